-- Conversations, threads, turns and their logs. ARCHITECTURE.md, "Data", says why each table is as it is.

-- Makes the partition of a table for the UTC day of an instant, unless it is there; ensure_month_partition by day.
-- A turn may wait for it, so it waits for others no longer than 2 s.
CREATE FUNCTION ensure_day_partition(parent text, at timestamptz) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    day_start timestamptz := date_trunc('day', at, 'UTC');
    day_end timestamptz := day_start + interval '24 hours';
    partition text := parent || to_char(day_start AT TIME ZONE 'UTC', '"_"YYYY"_"MM"_"DD');
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('partition:' || partition, 0));
    -- Not to_regclass again: this session may remember that there was none.
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
               WHERE inhparent = to_regclass(parent) AND child.relname = partition) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition, parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   parent, partition, uuid_floor(day_start), uuid_floor(day_end));
    RETURN true;
END
$$;

-- A line of items. Items have positions from 1 on. A fork shares its base's items up to a position and goes on from
-- there; nothing is copied.
CREATE TABLE threads (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    owner           text        NOT NULL,
    base_thread     uuid,
    base_position   integer     NOT NULL DEFAULT 0,
    head_position   integer     NOT NULL,
    -- The latest turn on it. Two turns that both want to follow the same one are told apart by it.
    head_response   uuid,
    -- Tokens of all items up to the head, inherited ones too.
    head_tokens     bigint      NOT NULL,
    -- Positions that this thread does not show although another still shows them. A fork takes a copy of those it
    -- inherits when it is made.
    hidden          integer[]   NOT NULL DEFAULT '{}',
    -- Something that stood on it went away; upkeep looks what is left over.
    trim_at         timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX threads_base ON threads (base_thread) WHERE base_thread IS NOT NULL;
CREATE INDEX threads_trim ON threads (trim_at) WHERE trim_at IS NOT NULL;

CREATE TABLE items (
    thread_id       uuid        NOT NULL,
    position        integer     NOT NULL,
    version         smallint    NOT NULL DEFAULT 1,
    id              uuid        NOT NULL,
    kind            text        NOT NULL,
    role            text,
    -- The turn it was the input or the output of. Null for items added to a conversation by hand.
    response_id     uuid,
    tokens          integer     NOT NULL,
    -- Tokens of all items before it, inherited and deleted ones too: where a window is cut is counted from the start.
    tokens_before   bigint      NOT NULL,
    -- JSON. Not `json`: it is written and read as it is, and never looked into.
    data            text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, position)
) PARTITION BY HASH (thread_id);
CREATE INDEX items_id ON items (id);
DO $$
BEGIN
    FOR remainder IN 0..15 LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF items FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                       'items_' || to_char(remainder, 'FM00'), remainder);
    END LOOP;
END
$$;

-- A thread with a name, on which one turn at a time may run.
CREATE TABLE conversations (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    owner           text        NOT NULL,
    thread_id       uuid        NOT NULL,
    -- What another system calls it.
    external_key    text,
    title           text,
    -- Not jsonb, which refuses \u0000.
    metadata        json        NOT NULL DEFAULT '{}',
    active_response uuid,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    deleted_at      timestamptz
);
CREATE INDEX conversations_owner ON conversations (owner, id) WHERE deleted_at IS NULL;
CREATE INDEX conversations_thread ON conversations (thread_id);
CREATE INDEX conversations_deleted ON conversations (deleted_at) WHERE deleted_at IS NOT NULL;

-- Turns. Renewing a lease must stay a heap-only update, so no index has lease_until, and pages keep room.
CREATE TABLE responses (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    owner           text        NOT NULL,
    -- The name of the key it was asked for with.
    api_key         text,
    thread_id       uuid        NOT NULL,
    conversation_id uuid,
    previous_response_id uuid,
    state           text        NOT NULL
                                CHECK (state IN ('queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled')),
    -- Raised by every change of holder. Whoever writes for a turn names it.
    epoch           bigint      NOT NULL DEFAULT 1,
    lease_until     timestamptz NOT NULL,
    holder          uuid        NOT NULL,
    -- The alias that was asked for.
    model           text        NOT NULL,
    -- The request without its input: to be shown, and to run it again.
    request         json        NOT NULL,
    background      boolean     NOT NULL,
    stream_requested boolean    NOT NULL,
    on_disconnect   text,
    -- Positions of its own input on the thread, both included; nothing when "to" is less than "from".
    input_from      integer     NOT NULL,
    input_to        integer     NOT NULL,
    -- The same of its output. Null until it has ended.
    output_from     integer,
    output_to       integer,
    incomplete_reason text,
    error           json,
    usage           json,
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    completed_at    timestamptz,
    cancel_requested_at timestamptz,
    -- When the first viewer came: what somebody saw is not run again.
    viewed_at       timestamptz,
    restarts        smallint    NOT NULL DEFAULT 0,
    idempotency_key text,
    request_hash    bytea,
    deleted_at      timestamptz,
    -- Until when its log can be read. Null until it has ended.
    log_until       timestamptz
) WITH (fillfactor = 75);
CREATE UNIQUE INDEX responses_idempotency ON responses (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX responses_owner ON responses (owner, id);
CREATE INDEX responses_thread ON responses (thread_id);
CREATE INDEX responses_conversation ON responses (conversation_id) WHERE conversation_id IS NOT NULL;
CREATE INDEX responses_open ON responses (id) WHERE state IN ('queued', 'in_progress');
CREATE INDEX responses_deleted ON responses (deleted_at) WHERE deleted_at IS NOT NULL;

-- The log of a turn: packed runs of chunks, numbered from 0. Partitioned by the day of the turn's id.
CREATE TABLE response_events (
    response_id     uuid        NOT NULL,
    part            integer     NOT NULL,
    data            text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (response_id, part)
) PARTITION BY RANGE (response_id);

-- Drops the day partitions of the logs that end before an instant, unless a turn of the day still runs or its log is
-- still to be kept. Gives their number.
CREATE FUNCTION drop_old_response_events(before timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    partition text;
    day_start timestamptz;
    dropped integer := 0;
BEGIN
    FOR partition IN
        SELECT child.relname FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = 'response_events'::regclass
        ORDER BY child.relname
    LOOP
        day_start := to_date(right(partition, 10), 'YYYY_MM_DD')::timestamp AT TIME ZONE 'UTC';
        CONTINUE WHEN day_start + interval '24 hours' > before;
        CONTINUE WHEN EXISTS (
            SELECT FROM responses
            WHERE id >= uuid_floor(day_start) AND id < uuid_floor(day_start + interval '24 hours')
              AND (log_until IS NULL OR log_until > now()));
        EXECUTE format('DROP TABLE %I', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

-- The threads whose items make up a thread's past up to a position, newest first: of each, those above one position
-- and up to another.
CREATE FUNCTION thread_lineage(viewed uuid, reaching integer)
RETURNS TABLE (thread_id uuid, above integer, upto integer)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE lineage AS (
        SELECT id, base_thread, base_position, least(reaching, head_position) AS upto, 0 AS depth
        FROM threads WHERE id = viewed
        UNION ALL
        SELECT base.id, base.base_thread, base.base_position, least(lineage.upto, lineage.base_position), depth + 1
        FROM lineage JOIN threads base ON base.id = lineage.base_thread
    )
    SELECT id, base_position, upto FROM lineage WHERE upto > base_position ORDER BY depth
$$;

-- A thread's items backwards from a position, until the tokens given exceed `max_tokens` (the item that exceeds them
-- is given) or `max_items` are given. A loop, because no query stops reading at a sum.
CREATE FUNCTION thread_window(viewed uuid, reaching integer, max_items integer, max_tokens bigint)
RETURNS SETOF items
LANGUAGE plpgsql STABLE AS $$
DECLARE
    segment record;
    item items;
    hidden_here integer[] := (SELECT hidden FROM threads WHERE id = viewed);
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

SELECT ensure_day_partition('response_events', at)
FROM unnest(ARRAY[now(), now() + interval '24 hours', now() + interval '48 hours']) AS at;
