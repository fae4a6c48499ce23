-- colloquy: no-transaction
-- Requests that are tried again without a key find their turn by the digest of their body, on any instance; and a turn
-- whose last viewer resumed on another instance is not given up.

-- When a viewer in another process last said that it is watching. Nothing indexes it: writing it stays heap-only.
ALTER TABLE responses ADD COLUMN IF NOT EXISTS watched_at timestamptz;

CREATE INDEX CONCURRENTLY IF NOT EXISTS responses_request_hash ON responses (owner, request_hash)
    WHERE request_hash IS NOT NULL AND idempotency_key IS NULL;
