//! What the database says was applied, in refinery's table, and what follows from it.

use tokio_postgres::Row;

use super::error::MigrationError;
use super::files::{Migration, Migrations};
use crate::database::DatabaseError;
use crate::database::client::Columns;

/// refinery's default table, column for column.
pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS refinery_schema_history (
    version int4 PRIMARY KEY,
    name varchar(255),
    applied_on varchar(255),
    checksum varchar(255)
)";

pub(super) const APPLIED: &str = "SELECT version, name::text AS name, checksum::text AS checksum, applied_on::text AS applied_on FROM refinery_schema_history ORDER BY version";

pub(super) const VERSION: &str = "SELECT max(version) AS version FROM refinery_schema_history";

pub(super) const EXISTS: &str = "SELECT to_regclass('refinery_schema_history') IS NOT NULL AS found";

/// One applied migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub version: i32,
    pub name: String,
    pub checksum: String,
    /// RFC 3339, as whoever applied it wrote it.
    pub applied_on: Option<String>,
}

/// What is left to do.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub pending: Vec<&'a Migration>,
    /// Applied by a newer program.
    pub newer: Vec<Entry>,
}

pub(super) fn entries(rows: &[Row]) -> Result<Vec<Entry>, DatabaseError> {
    rows.iter()
        .map(|row| {
            Ok(Entry {
                version: row.column("version")?,
                name: row.column::<Option<String>>("name")?.unwrap_or_default(),
                checksum: row.column::<Option<String>>("checksum")?.unwrap_or_default(),
                applied_on: row.column("applied_on")?,
            })
        })
        .collect()
}

/// Refuses edited files and skipped versions.
pub(super) fn plan<'a>(migrations: &'a Migrations, applied: &[Entry]) -> Result<Plan<'a>, MigrationError> {
    let current = applied.iter().map(|entry| entry.version).max().unwrap_or(0);
    let mut pending = Vec::new();
    for migration in migrations.iter() {
        match applied.iter().find(|entry| entry.version == migration.version()) {
            None if migration.version() < current => {
                return Err(MigrationError::Skipped {
                    version: migration.version(),
                    name: migration.name().to_owned(),
                });
            }
            None => pending.push(migration),
            Some(entry)
                if entry.name != migration.name() || entry.checksum != migration.checksum().to_string() =>
            {
                return Err(MigrationError::Edited {
                    version: entry.version,
                    applied: entry.name.clone(),
                    known: migration.name().to_owned(),
                });
            }
            Some(_) => {}
        }
    }
    let known = |entry: &&Entry| !migrations.iter().any(|migration| migration.version() == entry.version);
    Ok(Plan { pending, newer: applied.iter().filter(known).cloned().collect() })
}

/// The row that says a migration was applied. Names are `\w` only and the rest are numbers, so nothing to quote.
pub(super) fn insert(migration: &Migration) -> String {
    format!(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) \
         VALUES ({}, '{}', '{}', '{}')",
        migration.version(),
        migration.name(),
        jiff::Timestamp::now(),
        migration.checksum(),
    )
}
