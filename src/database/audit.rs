//! The audit trail: who changed what.

use serde_json::Value;
use uuid::Uuid;

use super::{DatabaseError, Statements, Type};

/// Who changes something, and what they say about it.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    pub name: &'a str,
    pub reason: Option<&'a str>,
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
