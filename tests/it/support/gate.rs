//! A gate in the database, at which an operator's command is cut in its middle.

use std::time::Duration;

use super::{SOON, TestDatabase, eventually};

/// A command's process. SIGKILL, if it is dropped before its end.
pub type Running = tokio::process::Child;

/// Holds up whoever changes certain rows.
pub struct Gate {
    holding: tokio_postgres::Client,
    /// Within a transaction one sees the same activity again and again.
    look: tokio_postgres::Client,
    table: String,
}

const WAITING: &str = "SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory'";

impl Gate {
    /// `change`: `UPDATE` or `DELETE`. `rows`: which, as in a trigger's WHEN.
    pub async fn shut(database: &TestDatabase, table: &str, change: &str, rows: &str) -> Self {
        let (holding, look) = (database.client().await, database.client().await);
        let sql = format!(
            "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 PERFORM pg_advisory_xact_lock_shared(4711);
                 IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER gate BEFORE {change} ON {table} FOR EACH ROW WHEN ({rows}) EXECUTE FUNCTION gate();
             SELECT pg_advisory_lock(4711)"
        );
        holding.batch_execute(&sql).await.expect("a gate");
        Self { holding, look, table: table.to_owned() }
    }

    async fn waiting(&self) -> usize {
        self.look.query(WAITING, &[]).await.expect("pids").len()
    }

    /// Waits until the command stands at the gate, kills it, and takes the gate away. What it had asked for last is not
    /// carried out behind its back.
    pub async fn cut(self, mut command: Running) {
        eventually("somebody at the gate", SOON * 2, async || self.waiting().await > 0).await;
        command.kill().await.expect("SIGKILL");
        let end = format!("SELECT pg_terminate_backend(pid) FROM ({WAITING}) AS waiting");
        self.look.query(&end, &[]).await.expect("their end");
        eventually("nobody at the gate", SOON, async || self.waiting().await == 0).await;
        let sql = format!(
            "DROP TRIGGER gate ON {}; DROP FUNCTION gate(); SELECT pg_advisory_unlock(4711)",
            self.table
        );
        tokio::time::timeout(Duration::from_secs(30), self.holding.batch_execute(&sql))
            .await
            .expect("soon")
            .expect("no gate");
    }
}
