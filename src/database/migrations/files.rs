//! The migrations a program knows.

use super::error::MigrationError;
use super::statements::{self, Statement};

/// The first line of a file whose statements must not run in a transaction.
pub const NO_TRANSACTION: &str = "-- colloquy: no-transaction";

#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "generated; a bad file name fails the test below, not a running program"
)]
mod embedded {
    refinery::embed_migrations!("migrations");
}

/// One file: `V0001__create_events.sql`.
#[derive(Clone, Debug)]
pub struct Migration {
    file: refinery::Migration,
    transactional: bool,
}

impl Migration {
    /// Counted from 1 without gaps.
    pub fn version(&self) -> i32 {
        self.file.version()
    }

    /// The part of the file's name after the two underscores.
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// refinery's, over name, version and text.
    pub fn checksum(&self) -> u64 {
        self.file.checksum()
    }

    pub fn sql(&self) -> &str {
        self.file.sql().unwrap_or_default()
    }

    /// `false`: marked with `-- colloquy: no-transaction`; statements run one by one and must be re-runnable.
    pub fn transactional(&self) -> bool {
        self.transactional
    }
}

/// Migrations in order, without gaps.
#[derive(Clone, Debug)]
pub struct Migrations(Vec<Migration>);

impl Migrations {
    /// Those of `migrations/`, compiled in.
    pub fn embedded() -> Result<Self, MigrationError> {
        Self::new(embedded::migrations::runner().get_migrations().clone())
    }

    /// From names without `.sql` and texts.
    pub fn from_files(files: &[(&str, &str)]) -> Result<Self, MigrationError> {
        let parsed = files.iter().map(|(name, sql)| {
            refinery::Migration::unapplied(name, sql)
                .map_err(|_| wrong(name, "is not named like V0001__what_it_does.sql"))
        });
        Self::new(parsed.collect::<Result<_, _>>()?)
    }

    fn new(mut files: Vec<refinery::Migration>) -> Result<Self, MigrationError> {
        files.sort_by_key(refinery::Migration::version);
        let mut migrations = Vec::with_capacity(files.len());
        for (expected, file) in (1..).zip(files) {
            if !file.to_string().starts_with('V') {
                return Err(wrong(&file.to_string(), "must begin with V: the order is part of the history"));
            }
            if file.version() < expected {
                return Err(wrong(&file.to_string(), "has the version of another file"));
            }
            if file.version() > expected {
                return Err(wrong(&file.to_string(), &format!("there is no file V{expected:04} before it")));
            }
            migrations.push(validated(file)?);
        }
        Ok(Self(migrations))
    }

    /// The version a database has after all of them; 0 without any.
    pub fn latest(&self) -> i32 {
        self.0.last().map_or(0, Migration::version)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Migration> {
        self.0.iter()
    }
}

fn validated(file: refinery::Migration) -> Result<Migration, MigrationError> {
    let sql = file.sql().unwrap_or_default();
    let transactional = sql.lines().next().is_none_or(|line| line.trim_end() != NO_TRANSACTION);
    if transactional && sql.contains(NO_TRANSACTION) {
        return Err(wrong(&file.to_string(), "`-- colloquy: no-transaction` must be its first line"));
    }
    let statements = statements::split(sql);
    if statements.is_empty() {
        return Err(wrong(&file.to_string(), "holds no statement"));
    }
    if let Some(statement) = statements.iter().find(|statement| controls_transaction(statement)) {
        let problem = format!(
            "line {}: begins or ends a transaction, which is the runner's business",
            statements::line(sql, statement.start)
        );
        return Err(wrong(&file.to_string(), &problem));
    }
    Ok(Migration { file, transactional })
}

fn controls_transaction(statement: &Statement<'_>) -> bool {
    const WORDS: [&str; 8] = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "prepare"];
    let word = statement.first_word();
    WORDS.iter().any(|control| word.eq_ignore_ascii_case(control))
}

fn wrong(file: &str, problem: &str) -> MigrationError {
    MigrationError::File { file: file.to_owned(), problem: problem.to_owned() }
}
