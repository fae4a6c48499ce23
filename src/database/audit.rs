//! The audit trail: who changed what.

use serde_json::Value;
use uuid::Uuid;

use super::{DatabaseError, Param, Statements, Type};

/// Who changes something, and what they say about it.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    pub name: &'a str,
    pub reason: Option<&'a str>,
}

/// Whose data a caller changes, and how the audit row of it names who did.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub owner: &'a str,
    /// `None`: no row is written, since this is no change that somebody asked for.
    pub actor: Option<Actor<'a>>,
}

impl<'a> From<&'a str> for Caller<'a> {
    fn from(owner: &'a str) -> Self {
        Self { owner, actor: None }
    }
}

/// The common table expression that writes the row of an action on `subject`, an expression over `from`, in the
/// statement of the change itself: there is none without it. `first` is the number of its first parameter; it takes
/// those of [`Row::params`].
pub(super) fn audited(action: &str, subject: &str, from: &str, first: usize) -> String {
    let (id, actor, reason) = (first, first + 1, first + 2);
    format!(
        ", audited AS (
            INSERT INTO api_audit (id, actor, action, subject, detail)
            SELECT ${id}, ${actor}, '{action}', {subject},
                   CASE WHEN ${reason}::text IS NOT NULL THEN jsonb_build_object('reason', ${reason}::text) END
            FROM {from} WHERE ${actor}::text IS NOT NULL
        )"
    )
}

/// What one row says beside its action and subject.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    id: Uuid,
    actor: Option<&'a str>,
    reason: Option<&'a str>,
}

impl<'a> Row<'a> {
    pub fn of(caller: &Caller<'a>) -> Self {
        let reason = caller.actor.and_then(|actor| actor.reason);
        Self { id: Uuid::now_v7(), actor: caller.actor.map(|actor| actor.name), reason }
    }

    pub fn params(&self) -> [Param<'_>; 3] {
        [(&self.id, Type::UUID), (&self.actor, Type::TEXT), (&self.reason, Type::TEXT)]
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Whoever made it: an owner with the key used, or an operator's name.
    pub actor: String,
    /// What was done: `conversation.delete`, `grant.give`, `key.create`.
    pub action: &'static str,
    /// To what: a public id.
    pub subject: String,
    /// Never a prompt, an answer or a secret.
    pub detail: Option<Value>,
}

/// Writes entries in one statement, which may stand in the transaction of the change itself.
pub async fn write(client: &impl Statements, entries: &[Entry]) -> Result<(), DatabaseError> {
    const SQL: &str = "
        INSERT INTO api_audit (id, actor, action, subject, detail)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[])";
    let ids: Vec<Uuid> = entries.iter().map(|_| Uuid::now_v7()).collect();
    let actors: Vec<&str> = entries.iter().map(|entry| entry.actor.as_str()).collect();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action).collect();
    let subjects: Vec<&str> = entries.iter().map(|entry| entry.subject.as_str()).collect();
    let details: Vec<Option<&Value>> = entries.iter().map(|entry| entry.detail.as_ref()).collect();
    let params = [
        (&ids as _, Type::UUID_ARRAY),
        (&actors as _, Type::TEXT_ARRAY),
        (&actions as _, Type::TEXT_ARRAY),
        (&subjects as _, Type::TEXT_ARRAY),
        (&details as _, Type::JSONB_ARRAY),
    ];
    client.execute("audit.write_all", SQL, &params).await.map(drop)
}
