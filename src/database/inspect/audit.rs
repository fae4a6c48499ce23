//! The audit trail.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{direction, one_more, page_of};
use crate::database::responses::{Page, PageOf};
use crate::database::{Columns, DatabaseError, Row, Statements, Type};

/// Which rows. What is left out matches all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// As the row names who made the change: `owner (key)`, `command:NAME`.
    pub actor: Option<String>,
    /// `key.create`; `key` and what begins with `key.` alike.
    pub action: Option<String>,
    pub subject: Option<String>,
    /// From this instant on.
    pub since: Option<Timestamp>,
}

/// A change that was made.
#[derive(Debug, Serialize)]
pub struct AuditLine {
    pub id: Uuid,
    pub at: Timestamp,
    pub actor: String,
    pub action: String,
    pub subject: String,
    /// Never a prompt, an answer or a secret.
    pub detail: Option<Value>,
}

/// Changes by the order of their ids, which is that in which they were made.
pub async fn audit(
    client: &impl Statements,
    filter: &AuditFilter,
    page: PageOf<Uuid>,
) -> Result<Page<AuditLine>, DatabaseError> {
    let (behind, order) = direction(page.order);
    let sql = format!(
        "SELECT id, at, actor, action, subject, detail FROM api_audit
         WHERE ($1::text IS NULL OR actor = $1)
           AND ($2::text IS NULL OR action = $2 OR starts_with(action, $2 || '.'))
           AND ($3::text IS NULL OR subject = $3) AND ($4::timestamptz IS NULL OR at >= $4)
           AND ($5::uuid IS NULL OR id {behind} $5)
         ORDER BY id {order} LIMIT $6"
    );
    let params = [
        (&filter.actor as _, Type::TEXT),
        (&filter.action as _, Type::TEXT),
        (&filter.subject as _, Type::TEXT),
        (&filter.since as _, Type::TIMESTAMPTZ),
        (&page.after as _, Type::UUID),
        (&one_more(&page) as _, Type::INT8),
    ];
    let rows = client.query("inspect.audit", &sql, &params).await?;
    page_of(rows.iter().map(line), page.limit)
}

fn line(row: &Row) -> Result<AuditLine, DatabaseError> {
    Ok(AuditLine {
        id: row.column("id")?,
        at: row.column("at")?,
        actor: row.column("actor")?,
        action: row.column("action")?,
        subject: row.column("subject")?,
        detail: row.column("detail")?,
    })
}
