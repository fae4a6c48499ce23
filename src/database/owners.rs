//! Everything that is one owner's: counted, read out, deleted.
//!
//! Deleting is done in steps of bounded statements. Each may be cut anywhere and run again, beside any number of others;
//! what is left over is found by the next run. Money stays: its rows and sums lose whose it was.

mod erasing;
mod export;

pub use erasing::{
    Bodies, DeliveryBody, Step, delete_messages, messages_given_up, owned_deliveries, strip_deliveries,
};
pub use export::{EXPORTS, Export, ExportPage, page};

use serde::Serialize;

use super::{Columns, DatabaseError, Param, Statements, Type};

/// Who stands in the place of an owner whose data was deleted.
pub const ERASED: &str = "(erased)";

/// An owner, and which events are theirs.
#[derive(Clone, Debug)]
pub struct OwnerData {
    pub owner: String,
    /// The source all of whose events are this owner's.
    pub source: Option<String>,
    /// Routes that answer events on this owner's account.
    pub routes: Vec<String>,
}

/// An event `e` that is the owner's: $1 is the owner, $2 the source, $3 the routes. What has a turn of the owner is theirs
/// whatever became of its route. Never null, so that `NOT` gives the events of others.
const OWNED: &str = "
    (e.source IS NOT DISTINCT FROM $2
     OR e.id IN (SELECT j.event_id FROM jobs j
                 WHERE j.kind = 'respond' AND j.route = ANY ($3) AND j.event_id IS NOT NULL)
     OR e.id IN (SELECT j.event_id FROM responses a JOIN jobs j ON j.id = a.job_id
                 WHERE a.owner = $1 AND j.event_id IS NOT NULL))";

/// A row of `api_audit` whose subject ends with the owner as a grantee.
const TO_GRANTEE: &str = "(action LIKE 'grant.%' AND starts_with(reverse(subject), reverse('/' || $1)))";

/// A row of `api_audit` that names the owner as one. A source, a switch or a key may be called the same: those stay as they
/// are.
fn named() -> String {
    format!(
        "(starts_with(actor, $1 || ' (') OR (action LIKE 'owner.%' AND subject = $1) OR {TO_GRANTEE}
          OR detail->>'owner' = $1 OR detail->>'grantee' = $1)"
    )
}

impl OwnerData {
    /// $1 to $3.
    fn params(&self) -> [Param<'_>; 3] {
        [(&self.owner, Type::TEXT), (&self.source, Type::TEXT), (&self.routes, Type::TEXT_ARRAY)]
    }
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    pub what: String,
    pub rows: i64,
}

/// How many rows there are, by table. Without any, nothing is left of the owner but what `kept` in `docs/access.md` says.
pub async fn counts(client: &impl Statements, data: &OwnerData) -> Result<Vec<Held>, DatabaseError> {
    let sql = format!(
        "SELECT 'conversations' AS what, count(*) AS rows FROM conversations WHERE owner = $1
         UNION ALL SELECT 'threads', count(*) FROM threads WHERE owner = $1
         UNION ALL SELECT 'items', count(*) FROM threads t JOIN items i ON i.thread_id = t.id WHERE t.owner = $1
         UNION ALL SELECT 'turns', count(*) FROM responses WHERE owner = $1
         UNION ALL SELECT 'parts of turn logs', count(*) FROM responses r
             JOIN response_events p ON p.response_id = r.id WHERE r.owner = $1
         UNION ALL SELECT 'turns asked for in conversations of others', count(*) FROM responses WHERE caller = $1
         UNION ALL SELECT 'callbacks of turns', count(*) FROM callbacks WHERE owner = $1
         UNION ALL SELECT 'deliveries', count(*) FROM deliveries WHERE source = $2
             OR id IN (SELECT e.delivery_id FROM events e WHERE {OWNED})
         UNION ALL SELECT 'bodies in blobs', count(*) FROM deliveries WHERE body_blob IS NOT NULL AND (source = $2
             OR id IN (SELECT e.delivery_id FROM events e WHERE {OWNED}))
         UNION ALL SELECT 'events', count(*) FROM events e WHERE {OWNED}
         UNION ALL SELECT 'jobs of events', count(*) FROM jobs WHERE event_id IN (SELECT e.id FROM events e WHERE {OWNED})
         UNION ALL SELECT 'callbacks of events', count(*) FROM callbacks
             WHERE event_id IN (SELECT e.id FROM events e WHERE {OWNED})
         UNION ALL SELECT 'messages given up', count(*) FROM dead_letters WHERE kind = 'message' AND source = $2
         UNION ALL SELECT 'API keys', count(*) FROM api_keys WHERE owner = $1
         UNION ALL SELECT 'grants', count(*) FROM grants WHERE grantee = $1
             OR conversation_id IN (SELECT id FROM conversations WHERE owner = $1)
         UNION ALL SELECT 'usage', count(*) FROM usage WHERE owner = $1
         UNION ALL SELECT 'usage by day', count(*) FROM usage_days WHERE owner = $1
         UNION ALL SELECT 'budgets', count(*) FROM budgets WHERE scope = 'owner' AND subject = $1
         UNION ALL SELECT 'audit rows', count(*) FROM api_audit WHERE {}",
        named()
    );
    let rows = client.query("owners.counts", &sql, &data.params()).await?;
    rows.iter().map(|row| Ok(Held { what: row.column("what")?, rows: row.column("rows")? })).collect()
}

/// What runs on the owner's account or data now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Turns that are queued or in progress, also those that others asked for in the owner's conversations.
    pub turns: i64,
    /// Jobs and callbacks that some process works on.
    pub work: i64,
}

impl Live {
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// What would be cut in the middle if the owner's data went now.
pub async fn live(client: &impl Statements, data: &OwnerData) -> Result<Live, DatabaseError> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM responses
                 WHERE (owner = $1 OR caller = $1) AND state IN ('queued', 'in_progress')) AS turns,
                (SELECT count(*) FROM callbacks WHERE owner = $1 AND state = 'leased')
                + (SELECT count(*) FROM callbacks c JOIN events e ON e.id = c.event_id
                   WHERE c.state = 'leased' AND {OWNED})
                + (SELECT count(*) FROM jobs w JOIN events e ON e.id = w.event_id
                   WHERE w.state = 'leased' AND {OWNED}) AS work"
    );
    let row = client.query_one("owners.live", &sql, &data.params()).await?;
    Ok(Live { turns: row.column("turns")?, work: row.column("work")? })
}

/// Asks all turns of the owner to stop. Gives how many had not been asked yet.
pub async fn cancel_turns(client: &impl Statements, owner: &str) -> Result<u64, DatabaseError> {
    const SQL: &str = "
        UPDATE responses SET cancel_requested_at = now(), due_at = CASE WHEN due_at IS NOT NULL THEN now() END
        WHERE (owner = $1 OR caller = $1) AND state IN ('queued', 'in_progress') AND cancel_requested_at IS NULL";
    client.execute("owners.cancel_turns", SQL, &[(&owner, Type::TEXT)]).await
}
