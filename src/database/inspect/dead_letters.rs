//! Dead letters.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::work::public_id;
use super::{direction, one_more, page_of};
use crate::database::responses::{Page, PageOf};
use crate::database::{Columns, DatabaseError, Param, Row, Statements, Type};
use crate::ids::{DeadLetterId, EventId};

/// Which dead letters. What is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeadLetterFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<DeadLetterId>,
    /// `job`, `callback` or `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The queue that a message was on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The route that its job or callback comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    #[serde(rename = "code", skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Given up from this instant on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Given up before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
}

/// A dead letter.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub kind: String,
    /// Of a job or callback, with its prefix.
    pub subject: String,
    /// The same as it stands in the row.
    #[serde(skip)]
    pub subject_id: Uuid,
    pub source: Option<String>,
    pub event: Option<EventId>,
    /// Of its job or callback.
    pub route: Option<String>,
    pub queue: Option<String>,
    pub reason_code: String,
    pub reason: String,
    pub attempts: i32,
    /// How often its message was put back on its queue, or was about to be.
    pub puts: i16,
    pub state: String,
    pub created_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub resolution: Option<String>,
    #[serde(skip)]
    pub message: Option<String>,
}

const SELECT: &str = "
    SELECT letters.*,
           CASE letters.kind WHEN 'job' THEN (SELECT route FROM jobs WHERE jobs.id = letters.subject_id)
                             WHEN 'callback' THEN (SELECT route FROM callbacks WHERE callbacks.id = letters.subject_id)
           END AS route
    FROM dead_letters AS letters";

/// What a [`DeadLetterFilter`] is in SQL, of rows called `letters`: parameters 1 to 9, from [`params`].
pub(in crate::database) const FILTER: &str = "
    ($1::uuid IS NULL OR letters.id = $1) AND ($2::text IS NULL OR letters.kind = $2)
    AND ($3::text IS NULL OR letters.queue = $3) AND ($4::text IS NULL OR letters.source = $4)
    AND ($5::text IS NULL
         OR letters.kind = 'job' AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = letters.subject_id AND route = $5)
         OR letters.kind = 'callback'
            AND EXISTS (SELECT 1 FROM callbacks WHERE callbacks.id = letters.subject_id AND route = $5))
    AND ($6::text IS NULL OR letters.reason_code = $6) AND ($7::text IS NULL OR letters.state = $7)
    AND ($8::timestamptz IS NULL OR letters.created_at >= $8)
    AND ($9::timestamptz IS NULL OR letters.created_at < $9)";

/// The parameters of [`FILTER`]. `id` is the filter's, as it stands in the row.
pub(in crate::database) fn params<'a>(filter: &'a DeadLetterFilter, id: &'a Option<Uuid>) -> Vec<Param<'a>> {
    vec![
        (id, Type::UUID),
        (&filter.kind, Type::TEXT),
        (&filter.queue, Type::TEXT),
        (&filter.source, Type::TEXT),
        (&filter.route, Type::TEXT),
        (&filter.reason_code, Type::TEXT),
        (&filter.state, Type::TEXT),
        (&filter.since, Type::TIMESTAMPTZ),
        (&filter.before, Type::TIMESTAMPTZ),
    ]
}

/// Dead letters by the order of their ids, which is that in which they were given up.
pub async fn dead_letters(
    client: &impl Statements,
    filter: &DeadLetterFilter,
    page: PageOf<DeadLetterId>,
) -> Result<Page<DeadLetter>, DatabaseError> {
    let (behind, order) = direction(page.order);
    let sql = format!(
        "{SELECT} WHERE {FILTER} AND ($10::uuid IS NULL OR letters.id {behind} $10)
         ORDER BY letters.id {order} LIMIT $11"
    );
    let (id, after, limit) = (filter.id.map(|id| id.0), page.after.map(|id| id.0), one_more(&page));
    let mut params = params(filter, &id);
    params.extend([(&after as _, Type::UUID), (&limit as _, Type::INT8)]);
    let rows = client.query("inspect.dead_letters", &sql, &params).await?;
    page_of(rows.iter().map(letter), page.limit)
}

/// One dead letter; `None` if there is none of that id.
pub async fn dead_letter(
    client: &impl Statements,
    id: DeadLetterId,
) -> Result<Option<DeadLetter>, DatabaseError> {
    let sql = format!("{SELECT} WHERE letters.id = $1");
    let row = client.query_opt("inspect.dead_letter", &sql, &[(&id.0, Type::UUID)]).await?;
    row.as_ref().map(letter).transpose()
}

fn letter(row: &Row) -> Result<DeadLetter, DatabaseError> {
    let (kind, subject_id): (String, Uuid) = (row.column("kind")?, row.column("subject_id")?);
    Ok(DeadLetter {
        id: DeadLetterId(row.column("id")?),
        subject: public_id(&kind, subject_id),
        kind,
        subject_id,
        source: row.column("source")?,
        event: row.column::<Option<Uuid>>("event_id")?.map(EventId),
        route: row.column("route")?,
        queue: row.column("queue")?,
        reason_code: row.column("reason_code")?,
        reason: row.column("reason")?,
        attempts: row.column("attempts")?,
        puts: row.column("puts")?,
        state: row.column("state")?,
        created_at: row.column("created_at")?,
        resolved_at: row.column("resolved_at")?,
        resolution: row.column("resolution")?,
        message: row.column("message")?,
    })
}
