//! Why migrations cannot be run, for the operator who has to do something about it.

use std::time::Duration;

use super::lock::Holder;
use crate::database::DatabaseError;

/// `Display` is one or two sentences: what is wrong, what to do.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The files themselves are unusable; nothing was connected to.
    #[error("migration file {file}: {problem}")]
    File { file: String, problem: String },

    /// A file was changed or renamed after it had been applied.
    #[error(
        "migration V{version:04} was applied as `{applied}`; its file, now `{known}`, has been renamed or edited since. \
         Restore the file as it was and put the change into a new migration"
    )]
    Edited { version: i32, applied: String, known: String },

    /// The database has a later version but not this one.
    #[error(
        "the database lacks migration V{version:04}__{name} but has later ones. Files are applied in order: \
         give the file the next free number"
    )]
    Skipped { version: i32, name: String },

    /// This program is older than the schema. Serving is fine, migrating is not.
    #[error(
        "the database is at version {database}, this program knows {program} at most. It may serve (migrations \
         are backward compatible), but migrate with the newer program"
    )]
    Newer { database: i32, program: i32 },

    /// Another runner did not finish in time.
    #[error("another runner has held the migration lock for the whole wait of {waited:?}: {}. \
             `function-handlers migrate --who-holds` shows it, `--terminate` ends it", describe(.holder.as_deref()))]
    Busy { waited: Duration, holder: Option<Box<Holder>> },

    /// The "direct" connection goes through a pooler, where a session's lock belongs to nobody.
    #[error(
        "{server} is a pooler, not PostgreSQL itself. Migrations need a session of their own: set \
         DATABASE_DIRECT_URL to the server's own port (Azure: 5432, not 6432)"
    )]
    NotDirect { server: String },

    /// A statement failed. `undone`: the migration ran in a transaction, and the old schema is whole.
    #[error("migration V{version:04}__{name}{}: {reason}. {}", at(*.line), outcome(*.undone))]
    Failed { version: i32, name: String, line: Option<usize>, undone: bool, reason: Box<DatabaseError> },

    /// An index built outside a transaction came out unusable.
    #[error(
        "migration V{version:04}__{name} left invalid indexes: {}. Remove what stood in the way (duplicate \
         rows?) and run again: invalid indexes named in the file are dropped first", .indexes.join(", ")
    )]
    InvalidIndex { version: i32, name: String, indexes: Vec<String> },

    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl MigrationError {
    /// Nothing is wrong with the migrations: the database is away or busy; try again later.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Database(error) => error.is_outage() || error.is_retryable(),
            Self::Failed { reason, .. } => {
                reason.is_retryable() && !matches!(**reason, DatabaseError::SchemaTooOld { .. })
            }
            _ => false,
        }
    }

    /// Stable, for logs and reports.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "migration_file",
            Self::Edited { .. } => "migration_edited",
            Self::Skipped { .. } => "migration_skipped",
            Self::Newer { .. } => "migration_newer_schema",
            Self::Busy { .. } => "migration_busy",
            Self::NotDirect { .. } => "migration_not_direct",
            Self::Failed { .. } => "migration_failed",
            Self::InvalidIndex { .. } => "migration_invalid_index",
            Self::Database(error) => error.code(),
        }
    }
}

fn describe(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "it has just ended".to_owned(), |holder| holder.to_string().replace('\n', "; "))
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

fn outcome(undone: bool) -> &'static str {
    if undone {
        "All of it was undone"
    } else {
        "It runs outside a transaction: what came before this statement stays, and running again is safe"
    }
}
