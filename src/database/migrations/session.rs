//! A session of one's own: past the pooler, with settings that only make sense there.

use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Connect};
use tokio_postgres::Row;

use super::error::MigrationError;
use super::history::{self, Entry};
use crate::database::client::{Columns, Param};
use crate::database::error::DatabaseError;
use crate::database::pool::Database;

/// How soon the server notices, in the middle of a statement, that its client is gone.
/// An odd number, so that a pooler that ignores options is not taken for a server that has this as its default.
const CLIENT_CHECK: Duration = Duration::from_millis(1_013);

pub(super) struct Session {
    pub client: ClientWrapper,
    pub server: String,
}

impl Session {
    /// `lock_timeout`: how long a statement of it waits for a table's lock, where a migration says nothing else. Whoever
    /// waits while holding the lock of migrations keeps every other runner out.
    pub async fn open(database: &Database, lock_timeout: Duration) -> Result<Self, MigrationError> {
        let target = database.direct();
        let server = target.server.clone();
        let mut config = target.config.clone();
        // A pooler refuses start-up options, which is as good as asking it what it is.
        let options = format!(
            "{} -c client_connection_check_interval={} -c lock_timeout={} -c statement_timeout=0 \
             -c idle_in_transaction_session_timeout=0 \
             -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
            config.get_options().unwrap_or_default(),
            CLIENT_CHECK.as_millis(),
            lock_timeout.as_millis(),
        );
        config.options(options.trim()).application_name(application_name().await);
        let (client, connection) = match database.connector().connect(&config).await {
            Ok(connected) => connected,
            Err(error) if refuses_options(&error) => return Err(MigrationError::NotDirect { server }),
            Err(error) => return Err(DatabaseError::of_connect(&server, &error).into()),
        };
        let session = Self { client: ClientWrapper::new(client, connection), server };
        session.refuse_pooler().await?;
        Ok(session)
    }

    /// A pooler told to ignore start-up options has ignored them.
    async fn refuse_pooler(&self) -> Result<(), MigrationError> {
        let sql =
            "SELECT setting::int8 AS value FROM pg_settings WHERE name = 'client_connection_check_interval'";
        let rows = self.query("migrations.settings", sql, &[]).await?;
        let value = rows.first().map(|row| row.column::<i64>("value")).transpose()?;
        if value == i64::try_from(CLIENT_CHECK.as_millis()).ok() {
            return Ok(());
        }
        Err(MigrationError::NotDirect { server: self.server.clone() })
    }

    pub async fn query(
        &self,
        name: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let rows = self.client.query_typed(sql, params).await;
        rows.map_err(|error| DatabaseError::of_statement(name, &error))
    }

    pub async fn batch(&self, name: &'static str, sql: &str) -> Result<(), DatabaseError> {
        let done = self.client.batch_execute(sql).await;
        done.map_err(|error| DatabaseError::of_statement(name, &error))
    }

    pub async fn create_history(&self) -> Result<(), DatabaseError> {
        // Asked first: CREATE … IF NOT EXISTS needs the right to create even when there is nothing to do.
        if !self.has_history().await? {
            self.batch("migrations.create_history", history::CREATE).await?;
        }
        Ok(())
    }

    async fn has_history(&self) -> Result<bool, DatabaseError> {
        let rows = self.query("migrations.history_exists", history::EXISTS, &[]).await?;
        rows.first().map_or(Ok(false), |row| row.column("found"))
    }

    /// Empty if nothing was ever applied.
    pub async fn applied(&self) -> Result<Vec<Entry>, DatabaseError> {
        if !self.has_history().await? {
            return Ok(Vec::new());
        }
        history::entries(&self.query("migrations.applied", history::APPLIED, &[]).await?)
    }
}

fn refuses_options(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        db.code().code() == "08P01" && db.message().contains("unsupported startup parameter")
    })
}

/// `colloquy-migrate/<host>/<pid>`, within PostgreSQL's 63 bytes.
async fn application_name() -> String {
    let host = match tokio::fs::read_to_string("/proc/sys/kernel/hostname").await {
        Ok(host) => host.trim().chars().filter(char::is_ascii_graphic).take(34).collect(),
        Err(_) => "unknown".to_owned(),
    };
    format!("colloquy-migrate/{host}/{}", std::process::id())
}
