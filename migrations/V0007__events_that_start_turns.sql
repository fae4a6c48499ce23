-- Events that start model work: whose a turn is, which conversation an event belongs to, and what a callback says.

-- The job that asked for a turn, and which of its turns it is, from 1 on. A turn that is not in the background runs
-- inside its job and is that job's alone: no other process takes it over.
ALTER TABLE responses ADD COLUMN job_id uuid, ADD COLUMN job_turn integer;
CREATE UNIQUE INDEX responses_job ON responses (job_id, job_turn) WHERE job_id IS NOT NULL;

-- Of a conversation that events share: the route, beside external_key, which another system gave. Such a conversation is
-- found by owner, route and key; deleted, it gives way to a new one.
ALTER TABLE conversations ADD COLUMN route text;
CREATE UNIQUE INDEX conversations_external ON conversations (owner, route, external_key)
    WHERE external_key IS NOT NULL AND deleted_at IS NULL;

-- What a callback says, where it is not the event it comes from.
ALTER TABLE callbacks ADD COLUMN IF NOT EXISTS body bytea;
