//! The steps of deleting.

use super::{ERASED, OWNED, OwnerData, TO_GRANTEE, named};
use crate::database::{Columns, DatabaseError, Statements, Type};
use crate::ids::{DeadLetterId, DeliveryId};

/// One kind of rows, in the order in which they go: first what could begin something new, last what others stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Keys,
    GrantsReceived,
    CallbacksOfTurns,
    Turns,
    Conversations,
    Items,
    Threads,
    /// Of turns in conversations of others: those stay, without whoever asked for them.
    Caller,
    /// What was spent stays, without whoever spent it.
    Usage,
    UsageDays,
    Budgets,
    /// Keys and grants that the owner made for others stay, without whoever made them.
    Made,
    /// What was done stays, without whoever did it.
    Audit,
}

const SUMS: &str = "
    attempts, turns, input_tokens, cached_tokens, cache_written_tokens, output_tokens, reasoning_tokens, cost_micros,
    estimated_cost_micros, estimated_attempts";

impl Step {
    pub const ALL: [Self; 13] = [
        Self::Keys,
        Self::GrantsReceived,
        Self::CallbacksOfTurns,
        Self::Turns,
        Self::Conversations,
        Self::Items,
        Self::Threads,
        Self::Caller,
        Self::Usage,
        Self::UsageDays,
        Self::Budgets,
        Self::Made,
        Self::Audit,
    ];

    /// Takes up to `limit` rows. Gives how many; none when this step is done.
    pub async fn take(
        self,
        client: &impl Statements,
        data: &OwnerData,
        limit: i64,
    ) -> Result<u64, DatabaseError> {
        let sql = self.sql();
        // Every parameter is there for each statement, whether it has use for it or not.
        let params = [
            (&data.owner as _, Type::TEXT),
            (&data.source as _, Type::TEXT),
            (&limit as _, Type::INT8),
            (&ERASED as _, Type::TEXT),
        ];
        client.execute("owners.erase", &sql, &params).await
    }

    fn sql(self) -> String {
        match self {
            Self::Keys => "DELETE FROM api_keys WHERE id IN (
                    SELECT id FROM api_keys WHERE owner = $1 ORDER BY id LIMIT $3)"
                .to_owned(),
            Self::GrantsReceived => "DELETE FROM grants WHERE (conversation_id, grantee) IN (
                    SELECT conversation_id, grantee FROM grants WHERE grantee = $1 LIMIT $3)"
                .to_owned(),
            Self::CallbacksOfTurns => "WITH old AS (
                    SELECT id FROM callbacks WHERE owner = $1 AND state <> 'leased'
                    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
                ), attempts AS (
                    DELETE FROM callback_attempts a USING old WHERE a.callback_id = old.id
                ), letters AS (
                    DELETE FROM dead_letters l USING old WHERE l.kind = 'callback' AND l.subject_id = old.id
                )
                DELETE FROM callbacks c USING old WHERE c.id = old.id"
                .to_owned(),
            // Not before its event, which may be known as the owner's by the turn alone.
            Self::Turns => "WITH old AS (
                    SELECT r.id FROM responses r WHERE r.owner = $1 AND r.state NOT IN ('queued', 'in_progress')
                      AND NOT EXISTS (SELECT FROM jobs j JOIN events e ON e.id = j.event_id WHERE j.id = r.job_id)
                    ORDER BY r.id LIMIT $3 FOR UPDATE SKIP LOCKED
                ), log AS (
                    DELETE FROM response_events p USING old WHERE p.response_id = old.id
                )
                DELETE FROM responses r USING old WHERE r.id = old.id"
                .to_owned(),
            Self::Conversations => "WITH old AS (
                    SELECT c.id FROM conversations c
                    WHERE c.owner = $1 AND NOT EXISTS (SELECT FROM responses r WHERE r.conversation_id = c.id)
                    ORDER BY c.id LIMIT $3 FOR UPDATE SKIP LOCKED
                ), ungranted AS (
                    DELETE FROM grants g USING old WHERE g.conversation_id = old.id
                )
                DELETE FROM conversations c USING old WHERE c.id = old.id"
                .to_owned(),
            // Forks of others lose what they inherit: it was never theirs.
            Self::Items => format!(
                "DELETE FROM items WHERE (thread_id, position) IN (
                    SELECT i.thread_id, i.position FROM threads t JOIN items i ON i.thread_id = t.id
                    WHERE t.owner = $1 AND {UNUSED} LIMIT $3)"
            ),
            Self::Threads => format!(
                "WITH old AS (
                    SELECT t.id FROM threads t
                    WHERE t.owner = $1 AND {UNUSED} AND NOT EXISTS (SELECT FROM items i WHERE i.thread_id = t.id)
                    ORDER BY t.id LIMIT $3 FOR UPDATE SKIP LOCKED
                ), freed AS (
                    UPDATE threads f SET base_thread = NULL FROM old WHERE f.base_thread = old.id AND f.owner <> $1
                )
                DELETE FROM threads t USING old WHERE t.id = old.id"
            ),
            Self::Caller => "UPDATE responses SET caller = $4, api_key = NULL, idempotency_key = NULL WHERE id IN (
                    SELECT id FROM responses WHERE caller = $1 AND state NOT IN ('queued', 'in_progress')
                    ORDER BY id LIMIT $3)"
                .to_owned(),
            Self::Usage => "UPDATE usage SET owner = $4, api_key = NULL, raw = NULL WHERE id IN (
                    SELECT id FROM usage WHERE owner = $1 AND state = 'settled'
                    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)"
                .to_owned(),
            Self::UsageDays => usage_days(),
            Self::Budgets => "DELETE FROM budgets b
                WHERE scope = 'owner' AND subject = $1 AND held_micros = 0
                  AND NOT EXISTS (SELECT FROM budget_slices s
                                  WHERE (s.scope, s.subject, s.day) = (b.scope, b.subject, b.day))"
                .to_owned(),
            Self::Made => "WITH keys AS (
                    UPDATE api_keys SET created_by = $4 WHERE starts_with(created_by, $1 || ' (')
                )
                UPDATE grants SET created_by = $4 WHERE starts_with(created_by, $1 || ' (')"
                .to_owned(),
            Self::Audit => audit(),
        }
    }
}

/// A thread `t` that no turn and no conversation stands on.
const UNUSED: &str = "
    NOT EXISTS (SELECT FROM responses r WHERE r.thread_id = t.id)
    AND NOT EXISTS (SELECT FROM conversations c WHERE c.thread_id = t.id)";

fn audit() -> String {
    let erased = |key: &str, detail: &str| {
        format!(
            "CASE WHEN detail->>'{key}' = $1 THEN jsonb_set({detail}, '{{{key}}}', to_jsonb($4::text)) ELSE {detail} END"
        )
    };
    format!(
        "UPDATE api_audit
         SET detail = {},
             actor = CASE WHEN starts_with(actor, $1 || ' (') THEN $4 ELSE actor END,
             subject = CASE WHEN action LIKE 'owner.%' AND subject = $1 THEN $4
                            WHEN {TO_GRANTEE} THEN left(subject, -length($1)) || $4 ELSE subject END
         WHERE id IN (SELECT id FROM api_audit WHERE {} ORDER BY id LIMIT $3)",
        erased("grantee", &erased("owner", "detail")),
        named()
    )
}

/// The owner's sums are added to those of everybody who was erased.
fn usage_days() -> String {
    let (sums, added): (Vec<String>, Vec<String>) = SUMS
        .split(',')
        .map(|name| {
            let name = name.trim();
            (format!("sum({name})"), format!("{name} = sums.{name} + excluded.{name}"))
        })
        .unzip();
    format!(
        "WITH gone AS (
            DELETE FROM usage_days WHERE owner = $1 RETURNING *
        )
        INSERT INTO usage_days AS sums (owner, day, model, deployment, provider, api_key, {SUMS})
        SELECT $4, day, model, deployment, provider, NULL, {} FROM gone GROUP BY day, model, deployment, provider
        ON CONFLICT (owner, day, model, deployment, provider, api_key) DO UPDATE SET {}",
        sums.join(", "),
        added.join(", ")
    )
}

/// What a delivery holds beside the owner's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// Nothing: it goes whole.
    Whole,
    /// Events of others: it stays, without its body, which those do not need.
    Shared,
}

/// A delivery with events of the owner, and the blob its body is in.
#[derive(Clone, Debug)]
pub struct DeliveryBody {
    pub id: DeliveryId,
    pub body_blob: Option<String>,
    pub bodies: Bodies,
}

/// Some messages of the owner's source that were given up, with their texts.
pub async fn messages_given_up(
    client: &impl Statements,
    data: &OwnerData,
    limit: i64,
) -> Result<Vec<(DeadLetterId, String)>, DatabaseError> {
    const SQL: &str = "
        SELECT id, coalesce(message, '') AS message FROM dead_letters
        WHERE kind = 'message' AND source = $1 ORDER BY id LIMIT $2";
    let params = [(&data.source as _, Type::TEXT), (&limit as _, Type::INT8)];
    let rows = client.query("owners.messages", SQL, &params).await?;
    rows.iter().map(|row| Ok((DeadLetterId(row.column("id")?), row.column("message")?))).collect()
}

/// Deletes messages that were given up.
pub async fn delete_messages(client: &impl Statements, ids: &[DeadLetterId]) -> Result<(), DatabaseError> {
    const SQL: &str = "DELETE FROM dead_letters WHERE kind = 'message' AND id = ANY ($1)";
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
    client.execute("owners.delete_messages", SQL, &[(&ids as _, Type::UUID_ARRAY)]).await.map(drop)
}

/// Some deliveries with something of the owner in them, oldest first, but none whose events are being worked on.
pub async fn owned_deliveries(
    client: &impl Statements,
    data: &OwnerData,
    limit: i64,
) -> Result<Vec<DeliveryBody>, DatabaseError> {
    let sql = format!(
        "SELECT d.id, d.body_blob, coalesce(d.source = $2, false)
                OR NOT EXISTS (SELECT FROM events e WHERE e.delivery_id = d.id AND NOT {OWNED}) AS whole
         FROM deliveries d
         WHERE (d.source = $2 OR d.id IN (SELECT e.delivery_id FROM events e WHERE {OWNED}))
           AND NOT EXISTS (
               SELECT FROM events e WHERE e.delivery_id = d.id
               AND (EXISTS (SELECT FROM jobs w WHERE w.event_id = e.id AND w.state = 'leased')
                    OR EXISTS (SELECT FROM callbacks w WHERE w.event_id = e.id AND w.state = 'leased')))
         ORDER BY d.id LIMIT $4"
    );
    let [owner, source, routes] = data.params();
    let rows =
        client.query("owners.deliveries", &sql, &[owner, source, routes, (&limit, Type::INT8)]).await?;
    rows.iter()
        .map(|row| {
            let bodies = if row.column("whole")? { Bodies::Whole } else { Bodies::Shared };
            Ok(DeliveryBody {
                id: DeliveryId(row.column("id")?),
                body_blob: row.column("body_blob")?,
                bodies,
            })
        })
        .collect()
}

/// Takes the owner's events out of deliveries that hold others' too, with their work, and the bodies with them. Gives how
/// many events went.
pub async fn strip_deliveries(
    client: &impl Statements,
    data: &OwnerData,
    ids: &[DeliveryId],
) -> Result<i64, DatabaseError> {
    let sql = format!(
        "WITH gone AS (
            DELETE FROM events e WHERE e.delivery_id = ANY ($4) AND {OWNED} RETURNING e.id
        ), jobs_gone AS (
            DELETE FROM jobs USING gone WHERE jobs.event_id = gone.id
        ), callbacks_gone AS (
            DELETE FROM callbacks USING gone WHERE callbacks.event_id = gone.id RETURNING callbacks.id
        ), attempts_gone AS (
            DELETE FROM callback_attempts a USING callbacks_gone WHERE a.callback_id = callbacks_gone.id
        ), letters_gone AS (
            DELETE FROM dead_letters l USING gone WHERE l.event_id = gone.id
        ), stripped AS (
            UPDATE deliveries SET body = NULL, body_blob = NULL WHERE id = ANY ($4)
        )
        SELECT count(*) AS gone FROM gone"
    );
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
    let [owner, source, routes] = data.params();
    let params = [owner, source, routes, (&ids as _, Type::UUID_ARRAY)];
    client.query_one("owners.strip_deliveries", &sql, &params).await?.column("gone")
}
