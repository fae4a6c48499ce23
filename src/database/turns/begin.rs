//! The first commit of a turn.

use std::borrow::Cow;

use super::*;
use crate::ids::JobId;
use crate::llm::spend::Attempt;

/// A turn that is to begin, under epoch 1.
#[derive(Clone, Debug)]
pub struct NewTurn<'a> {
    pub id: ResponseId,
    /// Of the place this turn goes to.
    pub owner: &'a str,
    /// Who asks for it and pays, if that is not the owner but somebody who was granted to write.
    pub caller: Option<&'a str>,
    /// The name of the key it was asked for with.
    pub api_key: Option<&'a str>,
    /// From the window this turn answers to.
    pub place: Place,
    /// If the place is a conversation's: it takes one turn at a time.
    pub conversation: Option<ConversationId>,
    pub previous_response: Option<ResponseId>,
    pub runner: Runner,
    /// The alias that was asked for.
    pub model: &'a str,
    /// The request without its input, as JSON.
    pub request: &'a str,
    pub background: bool,
    /// Most background turns that whoever asks may have open at once, this one among them; those of jobs do not count.
    /// `None`: any number.
    pub background_max: Option<u32>,
    pub stream: bool,
    pub on_disconnect: Option<&'a str>,
    pub input: &'a [NewItem<'a>],
    /// What makes a repeated request find the first one's turn.
    pub idempotency: Option<Idempotency<'a>>,
    /// Its first attempt at a provider, whose row of usage is opened in the same commit.
    pub attempt: Option<&'a Attempt>,
    /// Who is told of its end.
    pub callback: Option<&'a Callback>,
    /// How long it waits, from now, for a provider that is out. `None`: it fails at once.
    pub patience: Option<Duration>,
    /// The job it answers to.
    pub job: Option<OfJob>,
    /// Of the span in which it is asked for, so that whoever runs it later carries its trace on.
    pub trace_parent: Option<&'a str>,
}

/// Which turn of which job, from 1 on. There is one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfJob {
    pub job: JobId,
    pub number: i32,
}

/// Who runs a new turn.
#[derive(Clone, Copy, Debug)]
pub enum Runner {
    /// This instance, under a lease: the turn is in progress.
    Holder { holder: Uuid, lease: Duration },
    /// Whoever takes it first with [`due`](super::due): the turn is queued.
    Anybody,
}

/// Who is told of a turn's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// A target of `colloquy.toml`.
    pub target: String,
    /// If it is another URL than the target's.
    pub url: Option<String>,
}

impl NewTurn<'_> {
    /// As it is stored. Callers choose theirs apart from the owner, who cannot choose one with a line break: it came in a
    /// header.
    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        let key = self.idempotency?.key?;
        Some(match self.caller {
            Some(caller) => Cow::Owned(format!("{caller}\n{key}")),
            None => Cow::Borrowed(key),
        })
    }
}

/// What a request is known by: a key that is unique per caller for as long as the turn is kept, if it came with one, and
/// a digest of its body.
#[derive(Clone, Copy, Debug)]
pub struct Idempotency<'a> {
    pub key: Option<&'a str>,
    pub request_hash: &'a [u8],
}

/// The turn that an earlier try of a request began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstTry {
    pub response: ResponseId,
    /// Whether it came with the same digest.
    pub same_request: bool,
}

/// What beginning a turn came to. Everything but `Begun` has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    Begun {
        created_at: Timestamp,
    },
    /// There is a turn with this idempotency key already. `same_request`: it came with the same digest.
    Repeated {
        response: ResponseId,
        same_request: bool,
    },
    /// Another turn runs on the conversation.
    Locked,
    /// As many background turns of who asks are open as may be. Two that begin at once may both be let in.
    Crowded,
    /// The conversation is not there any more.
    NotFound,
    /// The thread is not as it was when the window was loaded: load it again.
    Conflict,
}

/// Begins a turn: makes, forks or continues its thread, locks its conversation, stores its input and its row under
/// epoch 1. One statement, so one round trip and one commit.
///
/// Run it on a [`Client`](crate::database::Client): of two that come at once with one idempotency key the second runs
/// into the unique index, which would spoil a transaction; it is answered with a second statement here.
pub async fn begin(client: &impl Statements, turn: &NewTurn<'_>) -> Result<Begun, DatabaseError> {
    let thread = match turn.place {
        Place::New => {
            "INSERT INTO threads (id, owner, head_position, head_response, head_tokens)
             SELECT $20, $2, $16, $1, $17 FROM gate
             RETURNING id"
        }
        // The lock keeps the items from being trimmed away while this makes them needed.
        Place::Fork { .. } => {
            "INSERT INTO threads (id, owner, base_thread, base_position, head_position, head_response, head_tokens,
                                  hidden, aside)
             SELECT $20, $2, base.id, $21, $16, $1, $17, base.hidden, base.aside FROM base
             RETURNING id"
        }
        Place::Append { .. } => {
            "UPDATE threads t SET head_position = $16, head_response = $1, head_tokens = $17
             FROM gate
             WHERE t.id = $20 AND t.owner = $2 AND t.head_position = $21 AND t.head_response IS NOT DISTINCT FROM $22
               AND NOT EXISTS (SELECT FROM responses WHERE id = $22 AND state IN ('queued', 'in_progress'))
             RETURNING t.id"
        }
    };
    let base = match turn.place {
        Place::Fork { .. } => {
            ", base AS (
                SELECT t.id, ARRAY(SELECT h FROM unnest(t.hidden) h WHERE h <= $21) AS hidden,
                       ARRAY(SELECT a FROM unnest(t.aside) a WHERE a <= $21) AS aside
                FROM gate, threads t
                WHERE t.id = $22 AND t.owner = $2 AND t.head_position >= $21
                FOR SHARE OF t
            )"
        }
        Place::New | Place::Append { .. } => "",
    };
    // A share lock, so that whoever takes the grant back finds either no turn or this one to stop. Before all others.
    let (granting, granted) = match turn.caller {
        Some(_) => (
            ", granting AS (
                SELECT g.conversation_id FROM open, grants g
                WHERE g.conversation_id = $18 AND g.grantee = $32 AND g.access = 'write' AND g.revoked_at IS NULL
                FOR SHARE OF g
            )",
            "granting",
        ),
        None => ("", "open"),
    };
    // Joins, not conditions with subqueries: a row that had to be waited for is judged again by its join.
    let (conversation, gate) = match turn.conversation {
        Some(_) => (
            format!(
                ", conversation AS (
                    SELECT c.id, c.active_response FROM {granted}, conversations c
                    WHERE c.id = $18 AND c.owner = $2 AND c.deleted_at IS NULL
                    FOR NO KEY UPDATE OF c
                )"
            ),
            "SELECT id FROM conversation
             WHERE active_response IS NULL
                OR EXISTS (SELECT FROM responses r
                           WHERE r.id = active_response AND r.state NOT IN ('queued', 'in_progress'))",
        ),
        None => (String::new(), "SELECT $18::uuid AS id FROM open"),
    };
    let (lock, found) = match turn.conversation {
        Some(_) => (
            ", locked AS (
                UPDATE conversations c SET active_response = $1, updated_at = now()
                FROM thread WHERE c.id = $18
            )",
            "EXISTS (SELECT FROM conversation)",
        ),
        None => ("", "true"),
    };
    let opened = match turn.attempt {
        Some(_) => {
            ", opened AS (
                INSERT INTO usage (id, response_id, owner, api_key, model, deployment, provider, reserved_micros, holder,
                                   day, created_at, state)
                SELECT $34, turn.id, coalesce($32, $2), $35, $36, $37, $38, $39, $40, $41, $42, 'open' FROM turn
            )"
        }
        None => "",
    };
    let (job_columns, job_values) = match turn.job {
        Some(OfJob { job, number }) => (", job_id, job_turn", format!(", '{}'::uuid, {number}", job.0)),
        None => ("", String::new()),
    };
    // As many as matter are counted; the few turns that are open have an index of their own.
    let places = match turn.background_max {
        Some(most) => format!(
            " AND {most} > (SELECT count(*) FROM (
                SELECT FROM responses r
                WHERE r.state IN ('queued', 'in_progress') AND r.background AND r.job_id IS NULL
                  AND coalesce(r.caller, r.owner) = coalesce($32, $2)
                LIMIT {most}) counted)"
        ),
        None => String::new(),
    };
    let sql = format!(
        "WITH taken AS (
            SELECT id, request_hash FROM responses WHERE owner = $2 AND idempotency_key = $14
        ), open AS (
            SELECT WHERE NOT EXISTS (SELECT FROM taken){places}
        ){granting}{conversation}, gate AS (
            {gate}
        ){base}, thread AS (
            {thread}
        ){lock}, turn AS (
            INSERT INTO responses (id, owner, caller, api_key, thread_id, conversation_id, previous_response_id, state,
                                   lease_until, holder, model, request, background, stream_requested, on_disconnect,
                                   input_from, input_to, started_at, idempotency_key, request_hash, due_at,
                                   callback_target, callback_url, wait_until, trace_parent{job_columns})
            SELECT $1, $2, $32, $3, thread.id, $18, $4, $5,
                   CASE WHEN $5 = 'queued' THEN 'infinity' ELSE now() + make_interval(secs => $6) END,
                   $7, $8, $9::json, $10, $11, $12, $13, $16, CASE WHEN $5 = 'in_progress' THEN now() END, $14, $15,
                   CASE WHEN $5 = 'queued' THEN now() END, $29, $30, now() + make_interval(secs => $31), $33{job_values}
            FROM thread
            RETURNING id, created_at
        ), stored AS (
            INSERT INTO items (thread_id, position, id, kind, role, response_id, tokens, tokens_before, data)
            SELECT thread.id, $13 + i.nth::int4 - 1, i.id, i.kind, i.role, $1, i.tokens, $19 + i.tokens_before, i.data
            FROM thread, unnest($23::uuid[], $24::text[], $25::text[], $26::int4[], $27::int8[], $28::text[])
                WITH ORDINALITY AS i (id, kind, role, tokens, tokens_before, data, nth)
        ){opened}
        SELECT turn.created_at, taken.id AS taken, coalesce(taken.request_hash = $15, false) AS same_request,
               {found} AS found, EXISTS (SELECT FROM gate) AS free,
               NOT EXISTS (SELECT FROM open) AND taken.id IS NULL AS crowded
        FROM (SELECT) one LEFT JOIN turn ON true LEFT JOIN taken ON true"
    );
    let items = ItemColumns::of(turn.input);
    let input_from = turn.place.next_position();
    let input_to = input_from - 1 + items.count();
    let tokens_before = turn.place.tokens();
    let head_tokens = tokens_before + items.total;
    let (state, holder, lease) = match turn.runner {
        Runner::Holder { holder, lease } => (ResponseStatus::InProgress, holder, lease),
        Runner::Anybody => (ResponseStatus::Queued, Uuid::nil(), Duration::ZERO),
    };
    let (state, lease) = (state.as_str(), lease.as_secs_f64());
    let (thread, position, other) = match turn.place {
        Place::New => (Uuid::now_v7(), 0, None),
        Place::Append { thread, head_position, head_response, .. } => {
            (thread, head_position, head_response.map(|id| id.0))
        }
        Place::Fork { base, base_position, .. } => (Uuid::now_v7(), base_position, Some(base)),
    };
    let previous = turn.previous_response.map(|id| id.0);
    let conversation = turn.conversation.map(|id| id.0);
    let key = turn.idempotency_key();
    let hash = turn.idempotency.map(|idempotency| idempotency.request_hash);
    let target = turn.callback.map(|callback| callback.target.as_str());
    let url = turn.callback.and_then(|callback| callback.url.as_deref());
    let patience = turn.patience.map(|patience| patience.as_secs_f64());
    let mut params: Vec<Param<'_>> = vec![
        (&turn.id.0, Type::UUID),
        (&turn.owner, Type::TEXT),
        (&turn.api_key, Type::TEXT),
        (&previous, Type::UUID),
        (&state, Type::TEXT),
        (&lease, Type::FLOAT8),
        (&holder, Type::UUID),
        (&turn.model, Type::TEXT),
        (&turn.request, Type::TEXT),
        (&turn.background, Type::BOOL),
        (&turn.stream, Type::BOOL),
        (&turn.on_disconnect, Type::TEXT),
        (&input_from, Type::INT4),
        (&key, Type::TEXT),
        (&hash, Type::BYTEA),
        (&input_to, Type::INT4),
        (&head_tokens, Type::INT8),
        (&conversation, Type::UUID),
        (&tokens_before, Type::INT8),
        (&thread, Type::UUID),
        (&position, Type::INT4),
        (&other, Type::UUID),
        (&items.ids, Type::UUID_ARRAY),
        (&items.kinds, Type::TEXT_ARRAY),
        (&items.roles, Type::TEXT_ARRAY),
        (&items.tokens, Type::INT4_ARRAY),
        (&items.tokens_before, Type::INT8_ARRAY),
        (&items.data, Type::TEXT_ARRAY),
        (&target, Type::TEXT),
        (&url, Type::TEXT),
        (&patience, Type::FLOAT8),
        (&turn.caller, Type::TEXT),
        (&turn.trace_parent, Type::TEXT),
    ];
    let (key_of, model, deployment, provider);
    if let Some(attempt) = turn.attempt {
        key_of = attempt.key.as_deref();
        (model, deployment, provider) = (&*attempt.model, &*attempt.deployment, &*attempt.provider);
        params.extend::<[Param<'_>; 9]>([
            (&attempt.id, Type::UUID),
            (&key_of, Type::TEXT),
            (&model, Type::TEXT),
            (&deployment, Type::TEXT),
            (&provider, Type::TEXT),
            (&attempt.reserved, Type::INT8),
            (&attempt.holder, Type::UUID),
            (&attempt.day, Type::DATE),
            (&attempt.started_at, Type::TIMESTAMPTZ),
        ]);
    }
    let row = match client.query_one("turns.begin", &sql, &params).await {
        Err(error) if error.constraint() == Some("responses_idempotency") => {
            return repeated(client, turn, error).await;
        }
        answer => answer?,
    };
    if let Some(created_at) = row.column("created_at")? {
        return Ok(Begun::Begun { created_at });
    }
    if let Some(taken) = row.column("taken")? {
        return Ok(Begun::Repeated {
            response: ResponseId(taken),
            same_request: row.column("same_request")?,
        });
    }
    if row.column("crowded")? {
        return Ok(Begun::Crowded);
    }
    Ok(match (row.column("found")?, row.column("free")?) {
        (false, _) => Begun::NotFound,
        (true, false) => Begun::Locked,
        (true, true) => Begun::Conflict,
    })
}

/// Who had the idempotency key, when it came in between. `error` stands if it is gone again.
async fn repeated(
    client: &impl Statements,
    turn: &NewTurn<'_>,
    error: DatabaseError,
) -> Result<Begun, DatabaseError> {
    let Some(idempotency) = turn.idempotency else { return Err(error) };
    let key = turn.idempotency_key();
    let stored = Idempotency { key: key.as_deref(), ..idempotency };
    let first = first_try(client, turn.owner, stored, Duration::ZERO).await?;
    let FirstTry { response, same_request } = first.ok_or(error)?;
    Ok(Begun::Repeated { response, same_request })
}

/// The turn that an earlier try of this request began: by its key, else by its digest alone, if it is no older than
/// `within` and worth to be seen again. One that failed is not, nor one that was given up because nobody watched.
pub async fn first_try(
    client: &impl Statements,
    owner: &str,
    request: Idempotency<'_>,
    within: Duration,
) -> Result<Option<FirstTry>, DatabaseError> {
    const BY_KEY: &str = "
        SELECT id, coalesce(request_hash = $3, false) AS same_request
        FROM responses WHERE owner = $1 AND idempotency_key = $2";
    let by_hash = format!(
        "SELECT r.id, true AS same_request FROM responses r
         WHERE r.owner = $1 AND r.caller IS NULL AND r.request_hash = $2 AND r.idempotency_key IS NULL
           AND r.created_at > now() - make_interval(secs => $3)
           AND r.state <> 'failed' AND (r.state <> 'cancelled' OR r.cancel_requested_at IS NOT NULL) AND {LIVE}
         ORDER BY r.created_at DESC LIMIT 1"
    );
    let within = within.as_secs_f64();
    let row = match request.key {
        Some(key) => {
            let params = [
                (&owner as _, Type::TEXT),
                (&key as _, Type::TEXT),
                (&request.request_hash as _, Type::BYTEA),
            ];
            client.query_opt("turns.first_try", BY_KEY, &params).await?
        }
        None => {
            let params: [Param<'_>; 3] =
                [(&owner, Type::TEXT), (&request.request_hash, Type::BYTEA), (&within, Type::FLOAT8)];
            client.query_opt("turns.first_try", &by_hash, &params).await?
        }
    };
    let first = |row: Row| {
        Ok(FirstTry { response: ResponseId(row.column("id")?), same_request: row.column("same_request")? })
    };
    row.map(first).transpose()
}
