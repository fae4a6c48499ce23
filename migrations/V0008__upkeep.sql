-- colloquy: no-transaction
-- Usage of past days as sums, secrets that are to be rotated, and what finds everything that is an owner's.
-- ARCHITECTURE.md, "Data", says why each table is as it is.

-- What `usage` says of a day that is over, summed.
CREATE TABLE IF NOT EXISTS usage_days (
    day             date        NOT NULL,
    owner           text        NOT NULL,
    model           text        NOT NULL,
    deployment      text        NOT NULL,
    provider        text        NOT NULL,
    -- Null for callers with a token instead of a key.
    api_key         text,
    attempts        bigint      NOT NULL,
    turns           bigint      NOT NULL,
    input_tokens    bigint      NOT NULL,
    cached_tokens   bigint      NOT NULL,
    cache_written_tokens bigint NOT NULL,
    output_tokens   bigint      NOT NULL,
    reasoning_tokens bigint     NOT NULL,
    cost_micros     bigint      NOT NULL,
    estimated_cost_micros bigint NOT NULL,
    estimated_attempts bigint   NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS usage_days_sums
    ON usage_days (owner, day, model, deployment, provider, api_key) NULLS NOT DISTINCT;
CREATE INDEX IF NOT EXISTS usage_days_day ON usage_days (day);

-- The days that are summed, without a gap.
CREATE TABLE IF NOT EXISTS usage_rollups (
    day             date        PRIMARY KEY,
    rolled_at       timestamptz NOT NULL,
    -- From when on its rows are no longer kept: one that comes later is added to the sums and goes.
    emptied_at      timestamptz
);

-- Days that are over from their sums, the others from the rows.
CREATE OR REPLACE VIEW usage_by_day AS
SELECT owner, day, model, deployment, provider, api_key, attempts, turns, input_tokens, cached_tokens,
       cache_written_tokens, output_tokens, reasoning_tokens, cost_micros, estimated_cost_micros, estimated_attempts
FROM usage_days
UNION ALL
SELECT owner, day, model, deployment, provider, api_key,
       count(*),
       count(DISTINCT coalesce(response_id, id)),
       sum(input_tokens)::bigint,
       sum(cached_tokens)::bigint,
       sum(cache_written_tokens)::bigint,
       sum(output_tokens)::bigint,
       sum(reasoning_tokens)::bigint,
       sum(cost_micros)::bigint,
       coalesce(sum(cost_micros) FILTER (WHERE estimated), 0)::bigint,
       count(*) FILTER (WHERE estimated)
FROM usage
WHERE state = 'settled' AND day > coalesce((SELECT max(rolled.day) FROM usage_rollups rolled), '-infinity')
GROUP BY owner, day, model, deployment, provider, api_key;

-- A secret that has to be replaced, from its announcement until the new one is seen alone.
CREATE TABLE IF NOT EXISTS rotations (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    -- As the vault calls it.
    vault           text        NOT NULL,
    secret          text        NOT NULL,
    secret_version  text        NOT NULL,
    expires_at      timestamptz,
    -- The source whose deliveries it proves, and its label there. Null: a secret that no delivery shows.
    source          text,
    label           text,
    state           text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    opened_at       timestamptz NOT NULL DEFAULT now(),
    -- When the vault told that it has expired, and that there is a new version.
    expired_at      timestamptz,
    renewed_at      timestamptz,
    closed_at       timestamptz,
    -- How it ended: 'new-secret-alone', 'new-version', 'by-hand'.
    outcome         text
);
-- One for each version of a secret, however often the vault tells of it.
CREATE UNIQUE INDEX IF NOT EXISTS rotations_secret ON rotations (vault, secret, secret_version);
CREATE INDEX IF NOT EXISTS rotations_open ON rotations (id) WHERE state = 'open';

-- What is somebody's is found by who they are: their data is deleted when they ask for it.
CREATE INDEX CONCURRENTLY IF NOT EXISTS threads_owner ON threads (owner);
CREATE INDEX CONCURRENTLY IF NOT EXISTS responses_caller ON responses (caller) WHERE caller IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS callbacks_owner ON callbacks (owner) WHERE owner IS NOT NULL;
