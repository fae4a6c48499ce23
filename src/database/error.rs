//! What went wrong with PostgreSQL, sorted by what the caller should do about it.
//!
//! - **outage**: the database could not be reached or is not able to answer now. Nothing is wrong with the
//!   work itself: try later, never count it towards a dead letter.
//! - **conflict**: two transactions got into each other's way. Run the transaction again.
//! - **other**: the statement or the data is wrong; trying again will not help.
//!
//! No message holds a password, a token, the userinfo of a URL or a parameter's value. What PostgreSQL says in
//! `DETAIL` quotes row contents, so it is left out.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use super::auth::TokenError;
use super::settings::SettingsError;

/// A failed call to the database. `Display` is for operators: one line, with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The settings cannot work; nothing was tried.
    #[error(transparent)]
    Settings(#[from] SettingsError),

    /// No access token for the login (`DB_AUTH_MODE=entra`).
    #[error("no access token for PostgreSQL at {server}: {reason}. Check the managed identity of this app")]
    Token { server: String, reason: TokenError },

    /// Nothing answered, or the TLS handshake failed.
    #[error(
        "cannot connect to PostgreSQL at {server}: {reason}. Check that it runs and can be reached from here"
    )]
    Unreachable { server: String, reason: String },

    /// The server answered and refused the connection.
    #[error("PostgreSQL at {server} refused the connection: {reason} (SQLSTATE {state}). {advice}")]
    Refused { server: String, state: String, reason: String, advice: &'static str },

    /// Every connection of this process stayed in use.
    #[error(
        "no free database connection within {waited:?}: all {size} are in use. \
         Look for slow statements; DB_POOL_SIZE sets the number, DB_POOL_WAIT the patience"
    )]
    PoolTimeout { waited: Duration, size: usize },

    /// The connection broke while a statement ran; whether it took effect is unknown.
    #[error("connection to PostgreSQL lost during `{statement}`: {reason}. It is reopened on the next use")]
    ConnectionLost { statement: &'static str, reason: String },

    /// No answer in time; the connection was given up, or (in a transaction) the server stopped the statement.
    #[error(
        "`{statement}` gave no answer within {limit:?} and was given up. Look for locks \
         (pg_stat_activity, wait_event_type = 'Lock'); DB_STATEMENT_TIMEOUT sets the limit"
    )]
    Timeout { statement: &'static str, limit: Duration },

    /// The server is up but cannot serve: starting, stopping, out of connections, disk or memory, read-only.
    #[error("PostgreSQL cannot serve `{statement}` now: {reason} (SQLSTATE {state})")]
    Unavailable { statement: &'static str, state: String, reason: String },

    /// The role may not do that: its rights were not given, or were lost with the role that had them.
    #[error(
        "this role may not run `{statement}`: {reason} (SQLSTATE {state}). Give it its rights (docs/database.md, *Logging in*)"
    )]
    Denied { statement: &'static str, state: String, reason: String },

    /// A table, column or function is not there (yet): this program is newer than the schema.
    #[error(
        "`{statement}` needs a newer schema: {reason} (SQLSTATE {state}). Run `function-handlers migrate`, \
         or invoke the function `migrate`"
    )]
    SchemaTooOld { statement: &'static str, state: String, reason: String },

    /// Serialisation failure, deadlock, or a lock not obtained in time.
    #[error("`{statement}` lost against another transaction: {reason} (SQLSTATE {state}). Run it again")]
    Conflict { statement: &'static str, state: String, reason: String },

    /// PostgreSQL refused the statement or the data.
    #[error("`{statement}` failed: {reason} (SQLSTATE {state})")]
    Statement { statement: &'static str, state: String, reason: String, constraint: Option<String> },

    /// The answer was not what the program expected (number of rows, column, type): a defect of the program.
    #[error("`{statement}` was answered unexpectedly: {reason}. This is a defect; please report it")]
    Unexpected { statement: &'static str, reason: String },
}

/// What a caller should do about a [`DatabaseError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Outage,
    Conflict,
    Other,
}

impl DatabaseError {
    /// See the module's documentation. A missing table counts as an outage: between the deployment of a
    /// package and its migrations the work is fine and only has to wait. So does a right that is missing: somebody
    /// has to give it, and the work is right all the same.
    pub fn class(&self) -> Class {
        match self {
            Self::Token { .. }
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::PoolTimeout { .. }
            | Self::ConnectionLost { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. }
            | Self::Denied { .. }
            | Self::SchemaTooOld { .. } => Class::Outage,
            Self::Conflict { .. } => Class::Conflict,
            Self::Settings(_) | Self::Statement { .. } | Self::Unexpected { .. } => Class::Other,
        }
    }

    /// The database is away; the work is not to blame.
    pub fn is_outage(&self) -> bool {
        self.class() == Class::Outage
    }

    /// The same call may succeed when made again: an outage or a conflict.
    pub fn is_retryable(&self) -> bool {
        self.class() != Class::Other
    }

    /// Stable, for logs and problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Settings(_) => "database_settings",
            Self::Token { .. } => "database_token",
            Self::Unreachable { .. } => "database_unreachable",
            Self::Refused { .. } => "database_refused",
            Self::PoolTimeout { .. } => "database_pool_timeout",
            Self::ConnectionLost { .. } => "database_connection_lost",
            Self::Timeout { .. } => "database_timeout",
            Self::Unavailable { .. } => "database_unavailable",
            Self::Denied { .. } => "database_denied",
            Self::SchemaTooOld { .. } => "database_schema_too_old",
            Self::Conflict { .. } => "database_conflict",
            Self::Statement { .. } => "database_statement",
            Self::Unexpected { .. } => "database_unexpected",
        }
    }

    /// The five characters PostgreSQL gave, if it was PostgreSQL that refused.
    pub fn sql_state(&self) -> Option<&str> {
        match self {
            Self::Refused { state, .. }
            | Self::Unavailable { state, .. }
            | Self::Denied { state, .. }
            | Self::SchemaTooOld { state, .. }
            | Self::Conflict { state, .. }
            | Self::Statement { state, .. } => Some(state),
            _ => None,
        }
    }

    /// The constraint that was violated, for callers to whom a duplicate is an answer rather than a failure.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Statement { constraint, .. } => constraint.as_deref(),
            _ => None,
        }
    }

    /// A failed statement. `statement` is its label.
    pub(super) fn of_statement(statement: &'static str, error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let reason = chain(error);
            return if error.is_closed() || cause::<std::io::Error>(error).is_some() {
                Self::ConnectionLost { statement, reason }
            } else {
                Self::Unexpected { statement, reason }
            };
        };
        let state = db.code().code().to_owned();
        let reason = db.message().to_owned();
        let fatal = matches!(db.severity(), "FATAL" | "PANIC");
        match db.code() {
            code if *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::T_R_DEADLOCK_DETECTED
                || *code == SqlState::LOCK_NOT_AVAILABLE =>
            {
                Self::Conflict { statement, state, reason }
            }
            code if *code == SqlState::UNDEFINED_TABLE
                || *code == SqlState::UNDEFINED_COLUMN
                || *code == SqlState::UNDEFINED_FUNCTION =>
            {
                Self::SchemaTooOld { statement, state, reason }
            }
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::Denied { statement, state, reason },
            code if unavailable(code.code()) || fatal => Self::Unavailable { statement, state, reason },
            _ => Self::Statement { statement, state, reason, constraint: db.constraint().map(str::to_owned) },
        }
    }

    /// A connection that could not be made, whatever the reason.
    pub(super) fn of_connect(server: &str, error: &tokio_postgres::Error) -> Self {
        let server = server.to_owned();
        if let Some(db) = error.as_db_error() {
            let state = db.code().code().to_owned();
            return Self::Refused { server, advice: advice(&state), state, reason: db.message().to_owned() };
        }
        if let Some(source) = cause::<TokenError>(error) {
            return Self::Token { server, reason: source.clone() };
        }
        Self::Unreachable { server, reason: chain(error) }
    }

    pub(super) fn of_pool(server: &str, waited: Duration, size: usize, error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::of_connect(server, &error),
            PoolError::Timeout(TimeoutType::Wait) => Self::PoolTimeout { waited, size },
            PoolError::Timeout(_) => {
                Self::Unreachable { server: server.to_owned(), reason: "no answer in time".to_owned() }
            }
            other => Self::Unreachable { server: server.to_owned(), reason: other.to_string() },
        }
    }
}

/// SQLSTATEs that say "not now" rather than "not this".
fn unavailable(state: &str) -> bool {
    // 08: connection (PgBouncer reports everything as 08P01); 53: resources; 57P: shutdown, crash, start-up,
    // idle limits; 57014: cancelled, which here means one of our own time limits; 58: I/O errors of the server;
    // 25006: read-only, i.e. a standby during a failover; 25P03: idle in transaction.
    state.starts_with("08")
        || state.starts_with("53")
        || state.starts_with("57P")
        || state.starts_with("58")
        || matches!(state, "57014" | "25006" | "25P03")
}

fn advice(state: &str) -> &'static str {
    match state {
        "28P01" | "28000" => {
            "Check the role's name and password (DATABASE_URL, DB_PASSWORD) or, with DB_AUTH_MODE=entra, \
             that the role was created with pgaadauth_create_principal for this identity"
        }
        "3D000" => "The database does not exist: create it, or correct DATABASE_URL",
        "53300" => "Too many connections: lower DB_POOL_SIZE or the number of instances",
        "57P03" => "The server is starting or stopping; this passes",
        "08P01" => "That is the pooler's word: see its log, and that PostgreSQL behind it runs",
        _ => "See the server's log",
    }
}

/// The first cause of type `T`, looking into `io::Error`s as well.
fn cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// An error and its causes in one line. tokio-postgres keeps what matters in the cause, and none of its
/// messages quotes the connection string.
fn chain(error: &(dyn StdError + 'static)) -> String {
    struct Chain<'a>(&'a (dyn StdError + 'static));
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut last = self.0.to_string();
            let mut next = self.0.source();
            while let Some(error) = next {
                let text = error.to_string();
                if !last.ends_with(&text) {
                    write!(f, ": {text}")?;
                }
                last = text;
                next = error.source();
            }
            Ok(())
        }
    }
    Chain(error).to_string()
}
