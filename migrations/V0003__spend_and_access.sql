-- What was spent and on whose account, what may still be spent, and who may do what. docs/spend.md says how the money
-- tables work together.

-- One attempt at a provider; the id is the attempt's. Opened before it is paid, settled once. Money is whole
-- micro-units of one currency.
CREATE TABLE usage (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    -- Null for what has no response: chat completions, embeddings.
    response_id     uuid,
    owner           text        NOT NULL,
    -- Null for a caller with a token instead of a key.
    api_key         text,
    -- The alias that was asked for.
    model           text        NOT NULL,
    deployment      text        NOT NULL,
    provider        text        NOT NULL,
    state           text        NOT NULL CHECK (state IN ('open', 'settled')),
    -- The provider never said, or nobody was left to hear it.
    estimated       boolean     NOT NULL DEFAULT false,
    reason          text        CHECK (reason IN ('completed', 'incomplete', 'cancelled', 'disconnected', 'failed',
                                                  'interrupted', 'crashed')),
    input_tokens    bigint      NOT NULL DEFAULT 0,
    -- Parts of the input.
    cached_tokens   bigint      NOT NULL DEFAULT 0,
    cache_written_tokens bigint NOT NULL DEFAULT 0,
    output_tokens   bigint      NOT NULL DEFAULT 0,
    -- Part of the output.
    reasoning_tokens bigint     NOT NULL DEFAULT 0,
    cost_micros     bigint      NOT NULL DEFAULT 0 CHECK (cost_micros >= 0),
    -- What was set aside for it: what it counts as if its process dies.
    reserved_micros bigint      NOT NULL DEFAULT 0,
    -- The process whose slices of the budgets carry its cost. Null: its cost was added to the budgets directly.
    holder          uuid,
    -- The UTC day it is paid on.
    day             date        NOT NULL,
    created_at      timestamptz NOT NULL,
    settled_at      timestamptz,
    -- The provider's own words on usage. Not jsonb, which refuses \u0000.
    raw             json,
    CHECK ((state = 'settled') = (reason IS NOT NULL AND settled_at IS NOT NULL))
) PARTITION BY RANGE (id);
CREATE INDEX usage_holder ON usage (holder, day) WHERE holder IS NOT NULL;
CREATE INDEX usage_owner ON usage (owner, day);
CREATE INDEX usage_response ON usage (response_id) WHERE response_id IS NOT NULL;

-- The processes that spend. A row whose lease has lapsed is a process that died without saying so.
CREATE TABLE instances (
    id              uuid        PRIMARY KEY,
    started_at      timestamptz NOT NULL DEFAULT now(),
    seen_at         timestamptz NOT NULL DEFAULT now(),
    lease_until     timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What may be spent in a day by an owner, with a key, and in total (subject ''). A row exists once somebody spends.
CREATE TABLE budgets (
    scope           text        NOT NULL CHECK (scope IN ('owner', 'key', 'total')),
    subject         text        NOT NULL,
    day             date        NOT NULL,
    limit_micros    bigint      NOT NULL,
    -- Cost of what no slice carries (any more).
    spent_micros    bigint      NOT NULL DEFAULT 0,
    -- The sum of the slices that are out.
    held_micros     bigint      NOT NULL DEFAULT 0 CHECK (held_micros >= 0),
    -- When a process last got less than it needed: the others then give back what they do not use.
    wanted_at       timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, subject, day)
) WITH (fillfactor = 50);
CREATE INDEX budgets_day ON budgets (day);

-- A process's part of a budget: one row for the day, which grows by drawing and shrinks by giving back. Whoever writes
-- usage that it carries locks it FOR KEY SHARE, whoever closes it FOR UPDATE, so that no cost falls between.
CREATE TABLE budget_slices (
    scope           text        NOT NULL,
    subject         text        NOT NULL,
    day             date        NOT NULL,
    holder          uuid        NOT NULL,
    amount_micros   bigint      NOT NULL DEFAULT 0 CHECK (amount_micros >= 0),
    -- As the holder last reported; exact when the slice is closed.
    spent_micros    bigint      NOT NULL DEFAULT 0,
    -- The holder knows that the budget is near its end, and keeps nothing that no turn needs.
    scarce          boolean     NOT NULL DEFAULT false,
    -- Rises with each change by the holder, so that a change that was given up cannot come true later.
    sequence        bigint      NOT NULL DEFAULT 0,
    opened_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (scope, subject, day, holder)
) WITH (fillfactor = 50);
CREATE INDEX budget_slices_holder ON budget_slices (holder, day);

-- How much of what is free a process gets: what it needs now; beyond that a whole slice while there is plenty, and ever
-- less towards the end. Nothing when not even the smallest of its turns could go on.
CREATE FUNCTION budget_grant(free bigint, least_micros bigint, need bigint, slice bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN free <= 0 OR free < least_micros THEN 0
                ELSE least(free, greatest(need, least(slice, free / 8))) END
$$;

-- Keys made at run time. A key is 256 random bits, of which only the hash is kept.
CREATE TABLE api_keys (
    id              uuid        PRIMARY KEY,
    name            text        NOT NULL,
    sha256          bytea       NOT NULL UNIQUE,
    owner           text        NOT NULL,
    scopes          text[]      NOT NULL DEFAULT '{}',
    limits          jsonb       NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    created_by      text        NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_day   date
);
CREATE INDEX api_keys_owner ON api_keys (owner, id);

-- What an owner lets another do with a conversation. One row for each pair; api_audit has the history.
CREATE TABLE grants (
    conversation_id uuid        NOT NULL,
    grantee         text        NOT NULL,
    access          text        NOT NULL CHECK (access IN ('read', 'write')),
    created_by      text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at      timestamptz,
    PRIMARY KEY (conversation_id, grantee)
);
CREATE INDEX grants_grantee ON grants (grantee, conversation_id) WHERE revoked_at IS NULL;

-- Whether a grant lets somebody do this ('read', 'write'). In a WHERE beside the owner:
-- (conversations.owner = $2 OR granted(conversations.id, $2, 'read')).
CREATE FUNCTION granted(conversation uuid, who text, wanted text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT EXISTS (SELECT FROM grants
                   WHERE conversation_id = conversation AND grantee = who AND revoked_at IS NULL
                     AND (access = wanted OR access = 'write'))
$$;

-- What was spent, by day: GET /v1/usage and every chart read this.
CREATE VIEW usage_by_day AS
SELECT owner, day, model, deployment, provider, api_key,
       count(*) AS attempts,
       count(DISTINCT coalesce(response_id, id)) AS turns,
       sum(input_tokens)::bigint AS input_tokens,
       sum(cached_tokens)::bigint AS cached_tokens,
       sum(cache_written_tokens)::bigint AS cache_written_tokens,
       sum(output_tokens)::bigint AS output_tokens,
       sum(reasoning_tokens)::bigint AS reasoning_tokens,
       sum(cost_micros)::bigint AS cost_micros,
       coalesce(sum(cost_micros) FILTER (WHERE estimated), 0)::bigint AS estimated_cost_micros,
       count(*) FILTER (WHERE estimated) AS estimated_attempts
FROM usage
WHERE state = 'settled'
GROUP BY owner, day, model, deployment, provider, api_key;

-- How the budgets stand. What turns have set aside or processes keep ready is `held`; `spent` lags by a heartbeat.
CREATE VIEW budget_status AS
SELECT scope, subject, day, limit_micros,
       spent_micros + coalesce(out.spent, 0)::bigint AS spent_micros,
       held_micros - coalesce(out.carried, 0)::bigint AS held_micros,
       limit_micros - spent_micros - held_micros AS free_micros
FROM budgets
LEFT JOIN LATERAL (
    SELECT sum(slices.spent_micros) AS spent, sum(least(slices.spent_micros, slices.amount_micros)) AS carried
    FROM budget_slices slices
    WHERE (slices.scope, slices.subject, slices.day) = (budgets.scope, budgets.subject, budgets.day)
) AS out ON true;

SELECT ensure_month_partition('usage', at)
FROM unnest(ARRAY[now() - interval '1 month', now(), date_trunc('month', now(), 'UTC') + interval '32 days']) AS at;
