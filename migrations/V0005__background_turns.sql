-- colloquy: no-transaction
-- Turns that wait for whoever is free to run them, and callbacks that tell of a turn's end. ARCHITECTURE.md, "Data".

ALTER TABLE responses
    -- Who is told of its end: a target of colloquy.toml, and the URL if it is another than the target's.
    ADD COLUMN IF NOT EXISTS callback_target text,
    ADD COLUMN IF NOT EXISTS callback_url text,
    -- Set while it is queued and nobody's: from when on any server may take it. Its lease is then infinite, so that it
    -- never counts as lapsed.
    ADD COLUMN IF NOT EXISTS due_at timestamptz,
    -- Until when it waits for its provider instead of failing. Null: it does not wait.
    ADD COLUMN IF NOT EXISTS wait_until timestamptz,
    -- How often it was put off because its provider was out.
    ADD COLUMN IF NOT EXISTS waits smallint NOT NULL DEFAULT 0;

-- due_at changes with the state alone, so this costs no update that would be heap-only without it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS responses_queued ON responses (due_at) WHERE state = 'queued';

-- A callback tells of an event or of a turn.
ALTER TABLE callbacks
    ALTER COLUMN event_id DROP NOT NULL,
    ADD COLUMN IF NOT EXISTS response_id uuid,
    -- Of the turn.
    ADD COLUMN IF NOT EXISTS owner text,
    -- What it says of the turn: response.completed and its like. The turn may be deleted before the consumer hears.
    ADD COLUMN IF NOT EXISTS type text,
    -- If it goes to another URL than the target's.
    ADD COLUMN IF NOT EXISTS url text;

ALTER TABLE callbacks DROP CONSTRAINT IF EXISTS callbacks_subject;
ALTER TABLE callbacks ADD CONSTRAINT callbacks_subject
    CHECK (num_nonnulls(event_id, response_id) = 1 AND (response_id IS NULL) = (type IS NULL)) NOT VALID;

-- One for each turn.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS callbacks_response ON callbacks (response_id)
    WHERE response_id IS NOT NULL;
