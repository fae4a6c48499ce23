-- Events arrive, work follows from them. ARCHITECTURE.md, "Data", says why each table is as it is.

-- The smallest UUIDv7 of an instant: tables that grow are partitioned by month, taken from the id itself.
CREATE FUNCTION uuid_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partition of a table for the month of an instant, unless it is there. Any number may call it at once.
-- Creating apart and attaching takes a weaker lock than CREATE TABLE … PARTITION OF.
CREATE FUNCTION ensure_month_partition(parent text, at timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    month_start timestamptz := date_trunc('month', at, 'UTC');
    -- A month's end in UTC, whatever the session's time zone.
    month_end timestamptz := date_trunc('month', month_start + interval '32 days', 'UTC');
    partition text := parent || to_char(month_start AT TIME ZONE 'UTC', '"_"YYYY"_"MM');
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
                   parent, partition, uuid_floor(month_start), uuid_floor(month_end));
    RETURN true;
END
$$;

-- Drops the month partitions of a table that lie wholly before an instant and are empty. Gives their number.
CREATE FUNCTION drop_empty_month_partitions(parent text, before timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    partition text;
    filled boolean;
    dropped integer := 0;
BEGIN
    FOR partition IN
        SELECT child.relname FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = to_regclass(parent)
          AND child.relname < parent || to_char(date_trunc('month', before, 'UTC') AT TIME ZONE 'UTC', '"_"YYYY"_"MM')
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', partition) INTO filled;
        CONTINUE WHEN filled;
        -- Asked again behind the lock that dropping needs anyway: a late delivery may have come in between.
        EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', parent);
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', partition) INTO filled;
        IF NOT filled THEN
            EXECUTE format('DROP TABLE %I', partition);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END
$$;

-- One verified HTTP request from a sender.
CREATE TABLE deliveries (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    source          text        NOT NULL,
    event_path      text,
    request_id      text        NOT NULL,
    trace_parent    text,
    received_at     timestamptz NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    verdict         text        NOT NULL,
    secret_label    text,
    signed_at       timestamptz,
    headers         jsonb       NOT NULL,
    content_type    text,
    body_bytes      bigint      NOT NULL,
    -- Null when the body lies in a blob, or is one event and stands in its row.
    body            bytea,
    body_blob       text,
    event_count     integer     NOT NULL,
    -- Secrets that came inside the body, encrypted, until what needs them is done.
    sealed          jsonb
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_source ON deliveries (source, id);

CREATE TABLE events (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    delivery_id     uuid        NOT NULL,
    position        integer     NOT NULL,
    source          text        NOT NULL,
    type            text        NOT NULL,
    key             text        NOT NULL,
    fingerprint     bytea       NOT NULL,
    subject         text,
    received_at     timestamptz NOT NULL,
    processed_at    timestamptz,
    state           text        NOT NULL CHECK (state IN ('held', 'processed', 'conflict')),
    -- The event that already has this one's key, when state is 'conflict'.
    conflicts_with  uuid,
    run             integer     NOT NULL DEFAULT 1,
    -- Null when the payload is the whole body and the body lies in the delivery's blob.
    payload         bytea
) PARTITION BY RANGE (id);
CREATE INDEX events_delivery ON events (delivery_id);
CREATE INDEX events_source ON events (source, id);
CREATE INDEX events_key ON events (source, key);
CREATE INDEX events_held ON events (source, id) WHERE state = 'held';

-- What makes an effect happen once. Not partitioned: it must be unique across months.
CREATE TABLE event_keys (
    source          text        NOT NULL,
    key             text        NOT NULL,
    event_id        uuid        NOT NULL,
    fingerprint     bytea       NOT NULL,
    -- The window in which another event with this key is a duplicate, counted from arrival on both sides: the queue may
    -- hand deliveries over late and out of order.
    received_at     timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    PRIMARY KEY (source, key)
);
CREATE INDEX event_keys_expiry ON event_keys (expires_at);

CREATE TABLE jobs (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    kind            text        NOT NULL,
    -- Null for a backfill, which comes of no event.
    event_id        uuid,
    run             integer     NOT NULL,
    route           text        NOT NULL,
    state           text        NOT NULL DEFAULT 'pending'
                                CHECK (state IN ('pending', 'leased', 'succeeded', 'dead')),
    epoch           bigint      NOT NULL DEFAULT 0,
    -- The ticket of the latest claim, chosen by the claimant: it can give the lease up although the database never
    -- answered it.
    claim_id        uuid,
    attempts        integer     NOT NULL DEFAULT 0,
    outages         integer     NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT now(),
    hinted_at       timestamptz NOT NULL DEFAULT now(),
    lease_until     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- From when max_age counts; a replay sets it anew.
    started_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    error_code      text,
    error           text,
    trace_parent    text,
    -- How far a job that runs in steps has come.
    checkpoint      jsonb,
    UNIQUE (event_id, run, route)
);
-- One backfill of a kind at a time.
CREATE UNIQUE INDEX jobs_backfill ON jobs (kind) WHERE event_id IS NULL AND state IN ('pending', 'leased');
CREATE INDEX jobs_due ON jobs (due_at) WHERE state = 'pending';
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state = 'leased';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'succeeded';

-- The outbox: one row per message to a consumer.
CREATE TABLE callbacks (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    -- What the consumer sees as webhook-id. A replay's row carries the first one's, so that the consumer can tell.
    webhook_id      uuid        NOT NULL,
    target          text        NOT NULL,
    event_id        uuid        NOT NULL,
    run             integer     NOT NULL,
    route           text        NOT NULL,
    state           text        NOT NULL DEFAULT 'pending'
                                CHECK (state IN ('pending', 'leased', 'delivered', 'dead')),
    epoch           bigint      NOT NULL DEFAULT 0,
    -- The ticket of the latest claim, chosen by the claimant: it can give the lease up although the database never
    -- answered it.
    claim_id        uuid,
    attempts        integer     NOT NULL DEFAULT 0,
    outages         integer     NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT now(),
    hinted_at       timestamptz NOT NULL DEFAULT now(),
    lease_until     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    error_code      text,
    error           text,
    trace_parent    text,
    UNIQUE (event_id, run, route)
);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE state = 'pending';
CREATE INDEX callbacks_leased ON callbacks (lease_until) WHERE state = 'leased';
CREATE INDEX callbacks_finished ON callbacks (finished_at) WHERE state = 'delivered';
CREATE INDEX callbacks_target ON callbacks (target, id);

CREATE TABLE callback_attempts (
    callback_id     uuid        NOT NULL,
    epoch           bigint      NOT NULL,
    attempt         integer     NOT NULL,
    at              timestamptz NOT NULL DEFAULT now(),
    millis          integer     NOT NULL,
    status          integer,
    error_code      text,
    response        text,
    PRIMARY KEY (callback_id, epoch)
);

-- A row exists only once there is something to say of a target.
CREATE TABLE callback_targets (
    name            text        PRIMARY KEY,
    disabled_at     timestamptz,
    reason          text
);

-- Work that was given up, with its reason: listed, replayed or discarded from one place.
CREATE TABLE dead_letters (
    id              uuid        PRIMARY KEY,
    version         smallint    NOT NULL DEFAULT 1,
    kind            text        NOT NULL CHECK (kind IN ('job', 'callback', 'message')),
    -- The job or callback; for a message, derived from the queue's own id so that a second sweep finds it taken.
    subject_id      uuid        NOT NULL,
    -- Which death: a job that is replayed may die again.
    epoch           bigint      NOT NULL DEFAULT 0,
    source          text,
    event_id        uuid,
    queue           text,
    reason_code     text        NOT NULL,
    reason          text        NOT NULL,
    -- The queue message as it was, when kind is 'message'.
    message         text,
    attempts        integer     NOT NULL DEFAULT 0,
    state           text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    resolved_at     timestamptz,
    resolution      text,
    UNIQUE (kind, subject_id, epoch)
);
CREATE INDEX dead_letters_open ON dead_letters (id) WHERE state = 'open';
CREATE INDEX dead_letters_event ON dead_letters (event_id);

-- Events per source, type and UTC day: what the job `count-event` adds to.
CREATE TABLE event_counts (
    day             date        NOT NULL,
    source          text        NOT NULL,
    type            text        NOT NULL,
    events          bigint      NOT NULL,
    PRIMARY KEY (day, source, type)
);

-- Every change an operator makes: by whom, what, when.
CREATE TABLE api_audit (
    id              uuid        PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT now(),
    actor           text        NOT NULL,
    action          text        NOT NULL,
    subject         text        NOT NULL,
    detail          jsonb
) PARTITION BY RANGE (id);

SELECT ensure_month_partition(parent, at)
FROM unnest(ARRAY['deliveries', 'events', 'api_audit']) AS parent,
     unnest(ARRAY[now() - interval '1 month', now(), date_trunc('month', now(), 'UTC') + interval '32 days']) AS at;
