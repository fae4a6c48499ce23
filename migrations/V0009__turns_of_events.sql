-- What turns of events leave behind: one trace, answers that do not count, and what was paid in vain. ARCHITECTURE.md,
-- "Data".

ALTER TABLE responses
    -- Of the span in which it was asked for: whoever runs it later, in whichever process, carries that trace on.
    ADD COLUMN trace_parent text,
    -- The epoch under which a provider was asked last.
    ADD COLUMN asked_epoch bigint,
    -- How often its process died after a provider had been asked.
    ADD COLUMN answers_lost smallint NOT NULL DEFAULT 0;

-- Positions that no model is shown any more: answers of events that did not fit, and what was said about them. Unlike
-- `hidden` they are kept, and listed.
ALTER TABLE threads ADD COLUMN aside integer[] NOT NULL DEFAULT '{}';

-- How often a message was put back on its queue, counted before it is: more than once says that a replay was cut.
ALTER TABLE dead_letters ADD COLUMN puts smallint NOT NULL DEFAULT 0;

-- As before, without what was put aside.
CREATE OR REPLACE FUNCTION thread_window(viewed uuid, reaching integer, max_items integer, max_tokens bigint)
RETURNS SETOF items
LANGUAGE plpgsql STABLE AS $$
DECLARE
    segment record;
    item items;
    hidden_here integer[] := (SELECT hidden || aside FROM threads WHERE id = viewed);
    given integer := 0;
    total bigint := 0;
BEGIN
    FOR segment IN SELECT * FROM thread_lineage(viewed, reaching) LOOP
        FOR item IN
            SELECT * FROM items
            WHERE items.thread_id = segment.thread_id
              AND position > segment.above AND position <= segment.upto AND position <> ALL (hidden_here)
            ORDER BY position DESC LIMIT max_items - given
        LOOP
            RETURN NEXT item;
            given := given + 1;
            total := total + item.tokens;
            IF given >= max_items OR total > max_tokens THEN
                RETURN;
            END IF;
        END LOOP;
    END LOOP;
END
$$;
