//! One runner at a time: a session advisory lock, which PostgreSQL frees when its session ends.
//!
//! Waiting is asking again and again with `pg_try_advisory_lock`. A session blocked in `pg_advisory_lock` has a
//! snapshot, and `CREATE INDEX CONCURRENTLY` of the lock's holder waits for every older snapshot: a deadlock, in
//! which PostgreSQL kills one of the two.

use std::fmt;
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::error::MigrationError;
use super::report::Progress;
use super::session::Session;
use crate::database::DatabaseError;
use crate::database::client::Columns;

/// "colloquy" in ASCII: no other program's lock by accident.
const KEY: i64 = i64::from_be_bytes(*b"colloquy");
const ASK_EVERY: Duration = Duration::from_millis(200);

const HOLDER: &str = "
    SELECT a.pid, a.application_name, host(a.client_addr) AS client_addr, a.usename::text AS role, a.state,
           a.wait_event_type, a.wait_event, left(a.query, 300) AS query,
           to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS since,
           extract(epoch FROM clock_timestamp() - a.backend_start)::int8 AS seconds,
           extract(epoch FROM clock_timestamp() - a.query_start)::int8 AS query_seconds,
           pg_blocking_pids(a.pid) AS blocked_by
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.classid::int8 << 32 | l.objid::int8) = $1";

/// The session that is migrating. Fields are empty where the role asking may not see them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Holder {
    /// Of its server process.
    pub pid: i32,
    /// `colloquy-migrate/<host>/<pid there>` for a runner of ours.
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub role: Option<String>,
    /// When its session began, RFC 3339 in UTC, and how long ago.
    pub since: Option<String>,
    pub seconds: Option<i64>,
    /// As in `pg_stat_activity`: `active`, `idle in transaction` …
    pub state: Option<String>,
    /// What it waits for: `Lock: relation` means another session (see `blocked_by`) is in its way.
    pub waits_for: Option<String>,
    /// Server processes whose locks it waits for.
    pub blocked_by: Vec<i32>,
    /// Its present or last statement, the first 300 characters, and how long ago it began.
    pub query: Option<String>,
    pub query_seconds: Option<i64>,
}

/// What [`super::terminate`] did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Terminated {
    pub holder: Holder,
    /// Its session was gone within 10 s.
    pub ended: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
        write!(
            f,
            "pid {} ({}, role {}, from {}), connected since {}, {}",
            self.pid,
            text(&self.application_name),
            text(&self.role),
            self.client_addr.as_deref().unwrap_or("the same machine"),
            text(&self.since),
            text(&self.state),
        )?;
        if let Some(seconds) = self.query_seconds {
            write!(f, " for {seconds} s")?;
        }
        if let Some(waits_for) = &self.waits_for {
            write!(f, "\nwaits for {waits_for}")?;
        }
        if !self.blocked_by.is_empty() {
            write!(f, "\nblocked by the sessions with pid {:?}", self.blocked_by)?;
        }
        if let Some(query) = &self.query {
            write!(f, "\nstatement: {}", query.split_whitespace().collect::<Vec<_>>().join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Terminated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.holder)?;
        if self.ended {
            write!(f, "It was ended; what it had not committed is undone, and the lock is free.")
        } else {
            write!(f, "It was told to end and had not done so after 10 s: look again with --who-holds.")
        }
    }
}

/// Returns how long it waited.
pub(super) async fn acquire(
    session: &Session,
    limit: Duration,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Duration, MigrationError> {
    let started = Instant::now();
    let mut told = false;
    loop {
        let rows = session
            .query("migrations.lock", "SELECT pg_try_advisory_lock($1) AS locked", &[(&KEY, Type::INT8)])
            .await?;
        if rows.first().map(|row| row.column::<bool>("locked")).transpose()? == Some(true) {
            return Ok(started.elapsed());
        }
        let waited = started.elapsed();
        if waited >= limit {
            let holder = holder(session).await?.map(Box::new);
            return Err(MigrationError::Busy { waited, holder });
        }
        if !told && let Some(holder) = holder(session).await? {
            progress(Progress::Waiting { holder });
            told = true;
        }
        tokio::time::sleep(ASK_EVERY.min(limit - waited)).await;
    }
}

/// Frees the lock now rather than when the server notices that the session is over.
pub(super) async fn release(session: &Session) {
    let sql = "SELECT pg_advisory_unlock($1)";
    if let Err(error) = session.query("migrations.unlock", sql, &[(&KEY, Type::INT8)]).await {
        tracing::debug!(error = %error, "migrations.unlock_failed");
    }
}

pub(super) async fn holder(session: &Session) -> Result<Option<Holder>, MigrationError> {
    let rows = session.query("migrations.holder", HOLDER, &[(&KEY, Type::INT8)]).await?;
    Ok(rows.first().map(read).transpose()?)
}

pub(super) async fn terminate(session: &Session) -> Result<Option<Terminated>, MigrationError> {
    // In one statement, so that the process ended is one that holds the lock now.
    let sql = format!("SELECT h.*, pg_terminate_backend(h.pid, 10000) AS ended FROM ({HOLDER}) h");
    let rows = session.query("migrations.terminate", &sql, &[(&KEY, Type::INT8)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let terminated = Terminated { holder: read(row)?, ended: row.column("ended")? };
    tracing::warn!(pid = terminated.holder.pid, ended = terminated.ended, "migrations.runner_terminated");
    Ok(Some(terminated))
}

fn read(row: &Row) -> Result<Holder, DatabaseError> {
    let wait_type: Option<String> = row.column("wait_event_type")?;
    let wait: Option<String> = row.column("wait_event")?;
    Ok(Holder {
        pid: row.column("pid")?,
        application_name: row.column("application_name")?,
        client_addr: row.column("client_addr")?,
        role: row.column("role")?,
        since: row.column("since")?,
        seconds: row.column("seconds")?,
        state: row.column("state")?,
        waits_for: wait_type.zip(wait).map(|(kind, event)| format!("{kind}: {event}")),
        blocked_by: row.column("blocked_by")?,
        query: row.column("query")?,
        query_seconds: row.column("query_seconds")?,
    })
}
