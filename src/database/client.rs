//! The only ways to run a statement: with the types of its parameters, so that no named statement is ever
//! prepared. A named statement lives in one server connection, and behind a pooler in transaction mode the next
//! statement may run on another.
//!
//! Every call carries the statement's name, a short fixed label such as `jobs.claim`: it becomes the span's
//! and the error's. Parameter values reach neither.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tracing::Instrument;
use tracing::field::Empty;

use super::error::DatabaseError;

/// In a transaction both sides keep the time; the server is given this much more to speak first.
const SERVER_FIRST: Duration = Duration::from_secs(1);

/// A parameter and its PostgreSQL type, e.g. `(&id, Type::UUID)`.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// What can run statements: a [`Client`] or a [`Transaction`]. Queries are written against this trait.
pub trait Statements: Sync {
    #[doc(hidden)]
    fn session(&self) -> &Session;

    /// All rows.
    fn query(
        &self,
        name: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, DatabaseError>> + Send {
        let session = self.session();
        session.run(name, |pg| pg.query_typed(sql, params), Vec::len)
    }

    /// No row or one; two or more are a defect.
    fn query_opt(
        &self,
        name: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<Option<Row>, DatabaseError>> + Send {
        let session = self.session();
        let rows = |row: &Option<Row>| usize::from(row.is_some());
        session.run(name, |pg| pg.query_typed_opt(sql, params), rows)
    }

    /// Exactly one row; anything else is a defect.
    fn query_one(
        &self,
        name: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<Row, DatabaseError>> + Send {
        let session = self.session();
        session.run(name, |pg| pg.query_typed_one(sql, params), |_| 1)
    }

    /// The number of rows changed.
    fn execute(
        &self,
        name: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> impl Future<Output = Result<u64, DatabaseError>> + Send {
        let session = self.session();
        let rows = |changed: &u64| usize::try_from(*changed).unwrap_or(usize::MAX);
        session.run(name, |pg| pg.execute_typed(sql, params), rows)
    }

    /// Statements without parameters, separated by semicolons, in one round trip. Never put values into the text.
    fn batch_execute(
        &self,
        name: &'static str,
        sql: &str,
    ) -> impl Future<Output = Result<(), DatabaseError>> + Send {
        let session = self.session();
        session.run(name, |pg| pg.batch_execute(sql), |()| 0)
    }
}

/// A connection taken from the pool.
pub struct Client {
    session: Session,
}

#[doc(hidden)]
pub struct Session {
    // Empty only once dropped, so that `drop` can take a connection out of the pool.
    object: Option<Object>,
    limit: Duration,
    in_transaction: AtomicBool,
    /// Statements whose answer has not arrived. What is left at the end was given up by its caller.
    unanswered: AtomicUsize,
    /// Broken, about to be closed by the server, or still busy with a statement that was given up.
    spoilt: AtomicBool,
}

impl Client {
    pub(super) fn new(object: Object, limit: Duration) -> Self {
        let (in_transaction, spoilt) = (AtomicBool::new(false), AtomicBool::new(false));
        let unanswered = AtomicUsize::new(0);
        Self { session: Session { object: Some(object), limit, in_transaction, unanswered, spoilt } }
    }

    /// Another limit per statement than `DB_STATEMENT_TIMEOUT`, until this client goes back to the pool.
    pub fn set_statement_timeout(&mut self, limit: Duration) {
        self.session.limit = limit;
    }

    /// Begins a transaction (read committed). Dropped without [`Transaction::commit`], it is rolled back.
    ///
    /// The statement limit is set on the server too, and a process that is frozen in the middle loses the
    /// transaction, and its locks, after 60 s. Both come with `BEGIN` in one round trip.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>, DatabaseError> {
        self.transaction_with("").await
    }

    /// The same with further settings for this transaction, e.g. `SET LOCAL synchronous_commit = off`.
    pub async fn transaction_with(
        &mut self,
        set_local: &'static str,
    ) -> Result<Transaction<'_>, DatabaseError> {
        let limit = self.session.limit.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL idle_in_transaction_session_timeout = 60000; {set_local}"
        );
        // Made first: if BEGIN is cut off, the transaction it may have begun is rolled back as well.
        let transaction = Transaction { client: self, open: true };
        transaction.client.session.in_transaction.store(true, Ordering::Relaxed);
        transaction.batch_execute("begin", &begin).await?;
        Ok(transaction)
    }
}

impl Statements for Client {
    fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let unusable = self.spoilt.load(Ordering::Relaxed) || self.unanswered.load(Ordering::Relaxed) > 0;
        if let Some(object) = self.object.take_if(|_| unusable) {
            // The next user would fail, or wait behind a statement nobody wants any more.
            drop(Object::take(object));
        }
    }
}

/// Statements that take effect together or not at all.
pub struct Transaction<'a> {
    client: &'a mut Client,
    open: bool,
}

impl Transaction<'_> {
    /// Makes it last. When this fails with an outage, whether it lasted is unknown.
    pub async fn commit(mut self) -> Result<(), DatabaseError> {
        self.batch_execute("commit", "COMMIT").await?;
        self.open = false;
        Ok(())
    }

    /// Undoes it and waits until that is done. Dropping does the same without waiting.
    pub async fn rollback(mut self) -> Result<(), DatabaseError> {
        self.batch_execute("rollback", "ROLLBACK").await?;
        self.open = false;
        Ok(())
    }
}

impl Statements for Transaction<'_> {
    fn session(&self) -> &Session {
        self.client.session()
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.client.session.in_transaction.store(false, Ordering::Relaxed);
        if self.open {
            // The first poll sends the statement; its answer is read, and ignored, by the connection itself.
            if let Some(pg) = &self.client.session.object {
                drop(pg.batch_execute("ROLLBACK").now_or_never());
            }
        }
    }
}

impl Session {
    async fn run<'a, T, F>(
        &'a self,
        statement: &'static str,
        call: impl FnOnce(&'a tokio_postgres::Client) -> F + Send,
        rows: impl FnOnce(&T) -> usize + Send,
    ) -> Result<T, DatabaseError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + Send,
    {
        let Some(pg) = &self.object else {
            return Err(DatabaseError::ConnectionLost { statement, reason: "already returned".to_owned() });
        };
        let span = tracing::info_span!(
            "database.statement",
            otel.name = statement,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "postgresql",
            db.query.summary = statement,
            db.response.returned_rows = Empty,
            error.type = Empty,
        );
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let in_transaction = self.in_transaction.load(Ordering::Relaxed);
        // The server's own limit comes first, so that the transaction ends in order and the connection stays good.
        let patience = if in_transaction { self.limit + SERVER_FIRST } else { self.limit };
        let answer = tokio::time::timeout(patience, call(pg)).instrument(span.clone()).await;
        let timeout = DatabaseError::Timeout { statement, limit: self.limit };
        let result = match answer {
            Ok(answer) => answer.map_err(|error| match error.code() {
                Some(code) if *code == SqlState::QUERY_CANCELED && in_transaction => timeout,
                _ => DatabaseError::of_statement(statement, &error),
            }),
            // No request to cancel is sent: PgBouncer 1.18 dies of one whose sender leaves early
            // ("bad client state").
            Err(_) => {
                self.spoilt.store(true, Ordering::Relaxed);
                Err(timeout)
            }
        };
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        if let Err(DatabaseError::ConnectionLost { .. } | DatabaseError::Unavailable { .. }) = &result {
            self.spoilt.store(true, Ordering::Relaxed);
        }
        match &result {
            Ok(value) => span.record("db.response.returned_rows", rows(value)),
            Err(error) => span.record("error.type", error.code()).record("otel.status_code", "ERROR"),
        };
        result
    }
}

/// Reads columns without the panic of [`Row::get`].
pub trait Columns {
    /// The value of a column, by name.
    fn column<'a, T: FromSql<'a>>(&'a self, name: &'static str) -> Result<T, DatabaseError>;
}

impl Columns for Row {
    fn column<'a, T: FromSql<'a>>(&'a self, name: &'static str) -> Result<T, DatabaseError> {
        self.try_get(name).map_err(|error| DatabaseError::Unexpected {
            statement: name,
            reason: format!("column {name}: {error}"),
        })
    }
}
