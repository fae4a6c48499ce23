//! The schema's history: which migrations this program knows, which the database has, and bringing the two
//! together. The timer function and the command both stand on the functions here.
//!
//! - [`is_due`] and [`schema_version`]: one `SELECT` through the pool.
//! - [`check`], [`dry_run`], [`run`]: over a direct connection; the latter two under a session advisory lock, so
//!   that any number may be started at once and a runner that dies leaves no lock behind.
//! - [`who_holds`], [`terminate`]: for the operator of one that is stuck.
//!
//! File names, checksums and the history table are refinery's, whose command-line tool can read them. The running
//! is ours: refinery knows neither locks nor statements that refuse to run in a transaction.

mod apply;
mod error;
mod files;
mod history;
mod lock;
mod report;
mod session;
mod statements;

use std::time::{Duration, Instant};

pub use error::MigrationError;
pub use files::{Migration, Migrations};
pub use lock::{Holder, Terminated};
pub use report::{Applied, Check, Done, DryRun, Pending, Planned, Progress, Report, Standing, State};

use self::history::Entry;
use self::session::Session;
use super::client::{Columns, Statements};
use super::error::DatabaseError;
use super::pool::Database;
use crate::telemetry::metrics;

/// How patient a runner is.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for another runner to finish.
    pub wait: Duration,
    /// How long a migration may wait for a lock on a table. Short, because everyone who comes after it waits too.
    pub lock_timeout: Duration,
    /// The same for migrations outside a transaction: `CREATE INDEX CONCURRENTLY` waits for all older
    /// transactions, and nobody waits for it.
    pub concurrent_lock_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(120),
            lock_timeout: Duration::from_secs(5),
            concurrent_lock_timeout: Duration::from_secs(900),
        }
    }
}

/// The newest version the database has, 0 for an empty one. One `SELECT` through the pool, for readiness:
/// a schema newer than [`Migrations::latest`] is fine to serve with, an older one is not.
pub async fn schema_version(database: &Database) -> Result<i32, DatabaseError> {
    let client = database.client().await?;
    match client.query_one("migrations.version", history::VERSION, &[]).await {
        Ok(row) => Ok(row.column::<Option<i32>>("version")?.unwrap_or(0)),
        Err(DatabaseError::SchemaTooOld { .. }) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether the database answers with a schema that this program can serve with; for probes, in words for operators.
pub async fn readiness(database: &Database) -> Result<String, String> {
    let wanted = Migrations::embedded().map_err(|error| error.to_string())?.latest();
    let version = schema_version(database).await.map_err(|error| {
        metrics::database_error(error.code());
        error.to_string()
    })?;
    let pending = u64::try_from(wanted - version).unwrap_or_default();
    metrics::migrations(u64::try_from(version).unwrap_or_default(), pending);
    if version < wanted {
        return Err(format!(
            "the schema is at version {version}, this program needs {wanted}: run `function-handlers migrate`"
        ));
    }
    Ok(format!("schema version {version}"))
}

/// Is there anything for [`run`] to do or to complain about? One `SELECT` through the pool.
///
/// A database that is ahead of this program is left in peace.
pub async fn is_due(database: &Database, migrations: &Migrations) -> Result<bool, DatabaseError> {
    let applied = applied(database).await?;
    Ok(match history::plan(migrations, &applied) {
        Ok(plan) => plan.newer.is_empty() && !plan.pending.is_empty(),
        Err(_) => true,
    })
}

/// What the database has and what this program has beside it. One `SELECT` through the pool.
pub async fn standing(database: &Database, migrations: &Migrations) -> Result<Standing, DatabaseError> {
    Ok(Standing::new(migrations, &applied(database).await?))
}

/// Through the pool; nothing, if the database never saw a migration.
async fn applied(database: &Database) -> Result<Vec<history::Entry>, DatabaseError> {
    let client = database.client().await?;
    match client.query("migrations.applied", history::APPLIED, &[]).await {
        Ok(rows) => history::entries(&rows),
        Err(DatabaseError::SchemaTooOld { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Compares the database with this program without changing anything.
///
/// # Errors
/// An edited file and a version that was skipped are errors; a database behind or ahead is an answer.
pub async fn check(database: &Database, migrations: &Migrations) -> Result<Check, MigrationError> {
    let session = Session::open(database, Options::default().lock_timeout).await?;
    let applied = session.applied().await?;
    let plan = history::plan(migrations, &applied)?;
    Ok(Check::new(migrations, &applied, &plan))
}

/// Lists what [`run`] would do, and does it in a transaction that is rolled back, up to the first migration that
/// cannot run in one. Takes the same locks on tables as the real run, for as long as all of it takes.
pub async fn dry_run(
    database: &Database,
    migrations: &Migrations,
    options: &Options,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<DryRun, MigrationError> {
    let session = Session::open(database, options.lock_timeout).await?;
    let waited = lock::acquire(&session, options.wait, &|step| tell(progress, step)).await?;
    let applied = session.applied().await?;
    let plan = history::plan(migrations, &applied)?;
    refuse_newer(migrations, &plan.newer)?;
    let would_apply = apply::rehearse(&session, &plan.pending, options).await?;
    lock::release(&session).await;
    Ok(DryRun {
        current: current(&applied),
        latest: migrations.latest(),
        would_apply,
        waited_ms: millis(waited),
    })
}

/// Brings the database to [`Migrations::latest`]. Runners started at the same time wait for each other.
///
/// Cut at any point (also by dropping the future) it leaves every transactional migration either done or not
/// begun; the server notices within a second, stops the statement and frees the lock.
pub async fn run(
    database: &Database,
    migrations: &Migrations,
    options: &Options,
    progress: &(dyn Fn(&Progress) + Send + Sync),
) -> Result<Report, MigrationError> {
    let session = Session::open(database, options.lock_timeout).await?;
    let waited = lock::acquire(&session, options.wait, &|step| tell(progress, step)).await?;
    session.create_history().await?;
    let applied = session.applied().await?;
    let plan = history::plan(migrations, &applied)?;
    refuse_newer(migrations, &plan.newer)?;
    let mut report = Report {
        applied: Vec::with_capacity(plan.pending.len()),
        current: current(&applied),
        latest: migrations.latest(),
        waited_ms: millis(waited),
    };
    for migration in plan.pending {
        tell(
            progress,
            Progress::Starting {
                version: migration.version(),
                name: migration.name().to_owned(),
                transactional: migration.transactional(),
            },
        );
        let started = Instant::now();
        apply::apply(&session, migration, options).await?;
        let done = Applied {
            version: migration.version(),
            name: migration.name().to_owned(),
            millis: millis(started.elapsed()),
            transactional: migration.transactional(),
        };
        report.current = done.version;
        tell(progress, Progress::Applied(done.clone()));
        report.applied.push(done);
    }
    lock::release(&session).await;
    Ok(report)
}

/// Who is migrating this database now.
pub async fn who_holds(database: &Database) -> Result<Option<Holder>, MigrationError> {
    lock::holder(&Session::open(database, Options::default().lock_timeout).await?).await
}

/// Ends the session of whoever is migrating this database, and says whom. What it was doing in a transaction is
/// undone. `None`: nobody was.
pub async fn terminate(database: &Database) -> Result<Option<Terminated>, MigrationError> {
    lock::terminate(&Session::open(database, Options::default().lock_timeout).await?).await
}

fn current(applied: &[Entry]) -> i32 {
    applied.iter().map(|entry| entry.version).max().unwrap_or(0)
}

fn refuse_newer(migrations: &Migrations, newer: &[Entry]) -> Result<(), MigrationError> {
    match newer.last() {
        None => Ok(()),
        Some(entry) => Err(MigrationError::Newer { database: entry.version, program: migrations.latest() }),
    }
}

fn tell(progress: &(dyn Fn(&Progress) + Send + Sync), step: Progress) {
    tracing::info!(step = %step, "migrations.progress");
    progress(&step);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
