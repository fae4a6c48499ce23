//! Running one migration, with its row of history, so that it is done or not done.

use std::time::{Duration, Instant};

use tokio_postgres::Error;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::Type;

use super::error::MigrationError;
use super::files::Migration;
use super::report::Planned;
use super::session::Session;
use super::{Options, history, millis, statements};
use crate::database::client::Columns;
use crate::database::error::DatabaseError;

pub(super) async fn apply(
    session: &Session,
    migration: &Migration,
    options: &Options,
) -> Result<(), MigrationError> {
    if migration.transactional() {
        session.batch("migrations.begin", &begin(options.lock_timeout)).await?;
        in_transaction(session, migration).await?;
        session.batch("migrations.record", &history::insert(migration)).await?;
        session.batch("migrations.commit", "COMMIT").await?;
    } else {
        outside_transaction(session, migration, options.concurrent_lock_timeout).await?;
        session.batch("migrations.record", &history::insert(migration)).await?;
    }
    // What a file SET for itself must not reach the next one.
    session.batch("migrations.reset", "RESET ALL").await?;
    Ok(())
}

/// Runs what can run in one transaction, then rolls it back.
pub(super) async fn rehearse(
    session: &Session,
    pending: &[&Migration],
    options: &Options,
) -> Result<Vec<Planned>, MigrationError> {
    session.batch("migrations.begin", &begin(options.lock_timeout)).await?;
    let mut planned = Vec::with_capacity(pending.len());
    let mut possible = true;
    for migration in pending {
        possible &= migration.transactional();
        let started = Instant::now();
        if possible {
            in_transaction(session, migration).await?;
        }
        planned.push(Planned {
            version: migration.version(),
            name: migration.name().to_owned(),
            transactional: migration.transactional(),
            rehearsed_millis: possible.then(|| millis(started.elapsed())),
            sql: migration.sql().to_owned(),
        });
    }
    session.batch("migrations.rollback", "ROLLBACK; RESET ALL").await?;
    Ok(planned)
}

fn begin(lock_timeout: Duration) -> String {
    format!("BEGIN; SET LOCAL lock_timeout = {}", lock_timeout.as_millis())
}

async fn in_transaction(session: &Session, migration: &Migration) -> Result<(), MigrationError> {
    let Err(error) = session.client.batch_execute(migration.sql()).await else { return Ok(()) };
    if let Err(error) = session.batch("migrations.rollback", "ROLLBACK").await {
        // The session is lost, and with it the transaction.
        tracing::debug!(error = %error, "migrations.rollback_failed");
    }
    Err(failed(migration, 0, &error))
}

async fn outside_transaction(
    session: &Session,
    migration: &Migration,
    lock_timeout: Duration,
) -> Result<(), MigrationError> {
    let timeout = format!("SET lock_timeout = {}", lock_timeout.as_millis());
    session.batch("migrations.lock_timeout", &timeout).await?;
    // A run that was cut off in CREATE INDEX CONCURRENTLY has left an index that slows writes and serves no
    // read, and that IF NOT EXISTS takes for the real one.
    for index in invalid_indexes(session, migration).await? {
        tracing::warn!(index, version = migration.version(), "migrations.invalid_index_dropped");
        session
            .batch("migrations.drop_invalid_index", &format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"))
            .await?;
    }
    for statement in statements::split(migration.sql()) {
        if let Err(error) = session.client.batch_execute(statement.text).await {
            return Err(failed(migration, statement.start, &error));
        }
    }
    let invalid = invalid_indexes(session, migration).await?;
    if invalid.is_empty() {
        return Ok(());
    }
    Err(MigrationError::InvalidIndex {
        version: migration.version(),
        name: migration.name().to_owned(),
        indexes: invalid,
    })
}

/// Invalid indexes whose name the file mentions, quoted where SQL needs it. Those of partitioned tables
/// (relkind `I`) are invalid by design until all partitions have theirs.
async fn invalid_indexes(session: &Session, migration: &Migration) -> Result<Vec<String>, DatabaseError> {
    let sql = "SELECT c.oid::regclass::text AS quoted \
               FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
               WHERE NOT i.indisvalid AND c.relkind = 'i' AND $1 ~ ('\\m' || c.relname || '\\M') ORDER BY 1";
    let text = migration.sql();
    let rows = session.query("migrations.invalid_indexes", sql, &[(&text, Type::TEXT)]).await?;
    rows.iter().map(|row| row.column("quoted")).collect()
}

fn failed(migration: &Migration, offset: usize, error: &Error) -> MigrationError {
    let position = error.as_db_error().and_then(|db| db.position());
    let line = match position {
        // Counted in characters from 1 by PostgreSQL.
        Some(ErrorPosition::Original(character)) => {
            let text = migration.sql().get(offset..).unwrap_or_default();
            let character = usize::try_from(*character).unwrap_or(1).saturating_sub(1);
            let bytes = text.char_indices().nth(character).map_or(text.len(), |(at, _)| at);
            Some(statements::line(migration.sql(), offset + bytes))
        }
        _ if offset > 0 => Some(statements::line(migration.sql(), offset)),
        _ => None,
    };
    MigrationError::Failed {
        version: migration.version(),
        name: migration.name().to_owned(),
        line,
        undone: migration.transactional(),
        reason: Box::new(DatabaseError::of_statement("migration", error)),
    }
}
