//! The last commit of a turn.

use super::*;
use crate::database::usage;
use crate::ids::CallbackId;
use crate::llm::spend::Settlement;

/// How a turn ended.
#[derive(Clone, Debug)]
pub struct Finish<'a> {
    pub held: Held,
    /// A final one. A turn that was asked to stop becomes cancelled whatever is said here.
    pub state: ResponseStatus,
    pub output: &'a [NewItem<'a>],
    pub incomplete_reason: Option<&'a str>,
    /// As shown, in JSON. Left out if the turn becomes cancelled, like the reason above.
    pub error: Option<&'a str>,
    /// As shown, in JSON.
    pub usage: Option<&'a str>,
    /// For a conversation that has none yet.
    pub title: Option<&'a str>,
    /// How long its log stays readable.
    pub keep_log: Duration,
    /// If it becomes `failed`: its input leaves the thread, so that trying again does not say it twice, and its output
    /// never comes there. The next turn gets their positions, so the turn has none from then on; what it said is in its
    /// log alone.
    pub drop_failed_input: bool,
    /// For the callback, so that its trace goes on from here. `None`: from where the turn was asked for.
    pub trace_parent: Option<&'a str>,
    /// If it becomes `completed`.
    pub aside: Aside,
    /// How many parts its log must have at least.
    pub parts: i32,
}

/// What of a turn no later turn of its conversation is shown. It is kept, and listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aside {
    #[default]
    Nothing,
    /// All of its input but the first item.
    InputBehindFirst,
    /// All of it.
    Whole,
}

impl Aside {
    /// The positions, of a row `turn`.
    fn positions(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::InputBehindFirst => Some("generate_series(turn.input_from + 1, turn.input_to)"),
            Self::Whole => Some("generate_series(turn.input_from, greatest(turn.input_to, turn.output_to))"),
        }
    }
}

/// Parameters of a finish, without settlements.
const PARAMS: usize = 19;

/// What finishing came to. `callback`: the row that tells of it, if somebody is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ended as this: what was asked for, or cancelled.
    /// `deleted`: it, or its conversation, is not there any more, so nobody is to be shown any of it.
    As { state: ResponseStatus, completed_at: Timestamp, callback: Option<CallbackId>, deleted: bool },
    /// It had ended as this under the same epoch: an earlier call, whose answer was lost, had lasted.
    Already { state: ResponseStatus, completed_at: Timestamp, callback: Option<CallbackId>, deleted: bool },
    /// It has not ended: its log is shorter than was said, see
    /// [`Appended::ends_before`](crate::database::turn_log::Appended::ends_before). Nothing was changed.
    LogShort,
    /// Somebody else has it, or it is gone. Nothing was changed.
    Lost,
}

/// Ends a turn: state, output in one block behind its input, thread head, conversation unlocked, and the callback that
/// tells of it. One statement, which may stand in a [`Transaction`](crate::database::Transaction) with others. Output of
/// a turn that was deleted meanwhile is not kept.
pub async fn finish(client: &impl Statements, finish: &Finish<'_>) -> Result<Ended, DatabaseError> {
    finish_and_settle(client, finish, &[], false).await
}

/// The same together with the ends of the turn's attempts, see [`usage::settle`]: both last or neither, in the one
/// statement. Nothing is settled of a turn that is lost or not ended.
pub async fn finish_and_settle(
    client: &impl Statements,
    finish: &Finish<'_>,
    settlements: &[Settlement],
    budgeted: bool,
) -> Result<Ended, DatabaseError> {
    let drop_input = if finish.drop_failed_input && finish.state == ResponseStatus::Failed {
        ", dropped AS (
            DELETE FROM items i USING turn
            WHERE turn.state = 'failed' AND i.thread_id = turn.thread_id
              AND i.position >= turn.input_from AND i.response_id = turn.id
            RETURNING i.tokens
        ), undone AS (
            UPDATE threads t SET head_position = turn.input_from - 1, head_response = turn.previous_response_id,
                   head_tokens = head_tokens - (SELECT coalesce(sum(tokens), 0) FROM dropped)
            FROM next turn WHERE turn.state = 'failed' AND t.id = turn.thread_id AND t.head_response = turn.id
        )"
    } else {
        ""
    };
    let condition = if drop_input.is_empty() { "true" } else { "turn.state <> 'failed'" };
    // Its last position: of its input, and of what it leaves behind.
    let input_to = if drop_input.is_empty() {
        "input_to"
    } else {
        "CASE WHEN cancel_requested_at IS NULL THEN input_from - 1 ELSE input_to END"
    };
    let kept = if drop_input.is_empty() {
        LIVE.to_owned()
    } else {
        format!("{LIVE} AND cancel_requested_at IS NOT NULL")
    };
    let aside = finish.aside.positions().map_or_else(String::new, |positions| {
        format!(
            ", aside = CASE WHEN turn.state = 'completed' THEN t.aside || ARRAY(SELECT {positions}) ELSE t.aside END"
        )
    });
    let settled = usage::Settled::of(settlements);
    let settling = if settled.is_empty() {
        String::new()
    } else {
        // The turn's row is locked before any of the account, as by whoever takes it over. What had ended before is
        // settled again, which changes nothing unless it was not.
        let settling = usage::settling(PARAMS + 1, budgeted, "EXISTS (SELECT FROM ended)");
        format!(
            ", ended AS MATERIALIZED (
                SELECT id FROM turn
                UNION ALL
                SELECT id FROM responses WHERE id = $1 AND epoch = $2 AND state NOT IN ('queued', 'in_progress')
            ), {settling}"
        )
    };
    let sql = format!(
        "WITH turn AS (
            UPDATE responses r
            SET state = CASE WHEN cancel_requested_at IS NULL THEN $3 ELSE 'cancelled' END,
                incomplete_reason = CASE WHEN cancel_requested_at IS NULL THEN $4 END,
                error = CASE WHEN cancel_requested_at IS NULL THEN $5::json END,
                usage = $6::json, completed_at = now(), log_until = now() + make_interval(secs => $7),
                input_to = {input_to}, output_from = {input_to} + 1,
                output_to = {input_to} + CASE WHEN {kept} THEN $8 ELSE 0 END
            WHERE id = $1 AND epoch = $2 AND state = 'in_progress'
              AND ($19 = 0 OR deleted_at IS NOT NULL
                   OR EXISTS (SELECT FROM response_events e WHERE e.response_id = $1 AND e.part = $19 - 1))
            RETURNING id, owner, state, thread_id, conversation_id, previous_response_id, input_from, input_to,
                      output_from, output_to, completed_at, callback_target, callback_url, trace_parent,
                      NOT ({LIVE}) AS deleted
        ), told AS (
            INSERT INTO callbacks (id, webhook_id, target, url, response_id, owner, type, run, route, trace_parent)
            SELECT $17, $17, callback_target, callback_url, id, owner, 'response.' || state, 1, 'turn',
                   coalesce($18, trace_parent)
            FROM turn WHERE callback_target IS NOT NULL
            ON CONFLICT (response_id) WHERE response_id IS NOT NULL DO NOTHING
            RETURNING id
        ), unlocked AS (
            UPDATE conversations c SET active_response = NULL, updated_at = now(),
                   title = CASE WHEN c.deleted_at IS NULL THEN coalesce(c.title, $16) END
            FROM turn WHERE c.id = turn.conversation_id AND c.active_response = turn.id
            RETURNING c.id
        ), next AS (
            -- The conversation before its thread, as everybody else locks them.
            SELECT turn.* FROM turn, (SELECT count(*) FROM unlocked) first
        ), grown AS (
            UPDATE threads t SET head_position = turn.output_to,
                   head_tokens = head_tokens + CASE WHEN turn.output_to >= turn.output_from THEN $9 ELSE 0 END,
                   trim_at = CASE WHEN turn.deleted THEN now() ELSE t.trim_at END{aside}
            FROM next turn WHERE {condition} AND t.id = turn.thread_id AND t.head_response = turn.id
            RETURNING t.id, head_tokens
        ), stored AS (
            INSERT INTO items (thread_id, position, id, kind, role, response_id, tokens, tokens_before, data)
            SELECT grown.id, turn.output_from + i.nth::int4 - 1, i.id, i.kind, i.role, turn.id, i.tokens,
                   grown.head_tokens - $9 + i.tokens_before, i.data
            FROM turn, grown, unnest($10::uuid[], $11::text[], $12::text[], $13::int4[], $14::int8[], $15::text[])
                WITH ORDINALITY AS i (id, kind, role, tokens, tokens_before, data, nth)
            WHERE turn.output_to >= turn.output_from
        ){drop_input}{settling}
        SELECT state, completed_at, true AS now, (SELECT id FROM told) AS callback, deleted FROM turn
        UNION ALL
        SELECT state, completed_at, false, (SELECT id FROM callbacks WHERE response_id = $1), NOT ({LIVE})
        FROM responses r
        WHERE id = $1 AND epoch = $2 AND NOT EXISTS (SELECT FROM turn)"
    );
    let items = ItemColumns::of(finish.output);
    let (count, total) = (items.count(), items.total);
    let state = finish.state.as_str();
    let keep_log = finish.keep_log.as_secs_f64();
    // PostgreSQL takes no NUL in text.
    let title = finish.title.map(|title| title.replace('\0', "\u{fffd}"));
    let callback = Uuid::now_v7();
    let own: [Param<'_>; PARAMS] = [
        (&finish.held.response.0, Type::UUID),
        (&finish.held.epoch, Type::INT8),
        (&state, Type::TEXT),
        (&finish.incomplete_reason, Type::TEXT),
        (&finish.error, Type::TEXT),
        (&finish.usage, Type::TEXT),
        (&keep_log, Type::FLOAT8),
        (&count, Type::INT4),
        (&total, Type::INT8),
        (&items.ids, Type::UUID_ARRAY),
        (&items.kinds, Type::TEXT_ARRAY),
        (&items.roles, Type::TEXT_ARRAY),
        (&items.tokens, Type::INT4_ARRAY),
        (&items.tokens_before, Type::INT8_ARRAY),
        (&items.data, Type::TEXT_ARRAY),
        (&title, Type::TEXT),
        (&callback, Type::UUID),
        (&finish.trace_parent, Type::TEXT),
        (&finish.parts, Type::INT4),
    ];
    let mut params = Vec::from(own);
    if !settled.is_empty() {
        params.extend(settled.params());
    }
    let Some(row) = client.query_opt("turns.finish", &sql, &params).await? else { return Ok(Ended::Lost) };
    let state = status(row.column("state")?)?;
    if !state.is_final() {
        return Ok(Ended::LogShort);
    }
    let completed_at = row.column("completed_at")?;
    let callback = row.column::<Option<Uuid>>("callback")?.map(CallbackId);
    let deleted = row.column("deleted")?;
    Ok(if row.column("now")? {
        Ended::As { state, completed_at, callback, deleted }
    } else {
        Ended::Already { state, completed_at, callback, deleted }
    })
}
