//! What the migration functions tell: serialisable for programs, `Display` for people.

use std::fmt;

use serde::Serialize;

use super::files::{Migration, Migrations};
use super::history::{Entry, Plan};
use super::lock::Holder;

/// One migration that was applied in this run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Applied {
    pub version: i32,
    pub name: String,
    pub millis: u64,
    pub transactional: bool,
}

/// What a run did. Empty `applied`: there was nothing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub applied: Vec<Applied>,
    /// The database's version now.
    pub current: i32,
    /// The newest this program knows.
    pub latest: i32,
    /// Spent waiting for another runner.
    pub waited_ms: u64,
}

/// One migration that has not been applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    pub version: i32,
    pub name: String,
    pub transactional: bool,
}

/// How database and program compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Both have the same migrations.
    UpToDate,
    /// Migrations are due.
    Behind,
    /// The database was migrated by a newer program. Serving with it is allowed.
    Newer,
}

/// The answer of `migrate --check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub state: State,
    pub current: i32,
    pub latest: i32,
    pub pending: Vec<Pending>,
    /// Versions the database has and this program does not know.
    pub unknown: Vec<i32>,
}

/// One migration that the database has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    pub version: i32,
    pub name: String,
    /// RFC 3339, by the clock of whoever applied it.
    pub applied_at: Option<String>,
}

/// How database and program compare, and what was applied when: for operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub current: i32,
    pub latest: i32,
    /// Newest first.
    pub applied: Vec<Done>,
    pub pending: Vec<Pending>,
    /// Versions the database has and this program does not know.
    pub unknown: Vec<i32>,
    /// Why nothing can be applied: an edited file, a version that was skipped.
    pub problem: Option<String>,
}

impl Standing {
    pub(super) fn new(migrations: &Migrations, applied: &[Entry]) -> Self {
        let (pending, unknown, problem) = match super::history::plan(migrations, applied) {
            Ok(plan) => (
                plan.pending.iter().map(|migration| Pending::of(migration)).collect(),
                plan.newer.iter().map(|entry| entry.version).collect(),
                None,
            ),
            Err(error) => (Vec::new(), Vec::new(), Some(error.to_string())),
        };
        let done = |entry: &Entry| Done {
            version: entry.version,
            name: entry.name.clone(),
            applied_at: entry.applied_on.clone(),
        };
        Self {
            current: super::current(applied),
            latest: migrations.latest(),
            applied: applied.iter().rev().map(done).collect(),
            pending,
            unknown,
            problem,
        }
    }
}

impl Check {
    pub(super) fn new(migrations: &Migrations, applied: &[Entry], plan: &Plan<'_>) -> Self {
        let state = match (plan.newer.is_empty(), plan.pending.is_empty()) {
            (false, _) => State::Newer,
            (true, false) => State::Behind,
            (true, true) => State::UpToDate,
        };
        Self {
            state,
            current: super::current(applied),
            latest: migrations.latest(),
            pending: plan.pending.iter().map(|migration| Pending::of(migration)).collect(),
            unknown: plan.newer.iter().map(|entry| entry.version).collect(),
        }
    }

    /// For the command: 0 when this program can serve, 3 when migrations are due. (1 is a failure, 2 wrong usage.)
    pub fn exit_code(&self) -> u8 {
        match self.state {
            State::UpToDate | State::Newer => 0,
            State::Behind => 3,
        }
    }
}

impl Pending {
    fn of(migration: &Migration) -> Self {
        Self {
            version: migration.version(),
            name: migration.name().to_owned(),
            transactional: migration.transactional(),
        }
    }
}

/// One migration of a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    pub version: i32,
    pub name: String,
    pub transactional: bool,
    /// How long it took before it was rolled back; `None`: only listed, because it, or one before it, cannot run
    /// in a transaction.
    pub rehearsed_millis: Option<u64>,
    pub sql: String,
}

/// The answer of `migrate --dry-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DryRun {
    pub current: i32,
    pub latest: i32,
    pub would_apply: Vec<Planned>,
    pub waited_ms: u64,
}

/// A step of a run, told as it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Progress {
    /// Another runner is at work.
    Waiting {
        holder: Holder,
    },
    Starting {
        version: i32,
        name: String,
        transactional: bool,
    },
    Applied(Applied),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { holder } => {
                write!(f, "waiting for another runner: {}", holder.to_string().replace('\n', "; "))
            }
            Self::Starting { version, name, transactional } => {
                write!(f, "applying V{version:04}__{name}{}", outside(*transactional))
            }
            Self::Applied(done) => {
                write!(f, "applied V{:04}__{} in {} ms", done.version, done.name, done.millis)
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.applied.iter().map(|done| {
            (done.version, &done.name, format!("{} ms{}", done.millis, outside(done.transactional)))
        });
        table(f, rows)?;
        if self.applied.is_empty() {
            write!(f, "Nothing to do: the schema is at version {}.", self.current)?;
        } else {
            write!(f, "{} applied; the schema is at version {}.", self.applied.len(), self.current)?;
        }
        if self.waited_ms >= 1_000 {
            write!(f, " Waited {} s for another runner.", self.waited_ms / 1_000)?;
        }
        Ok(())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self
            .pending
            .iter()
            .map(|due| (due.version, &due.name, format!("due{}", outside(due.transactional))));
        table(f, rows)?;
        match self.state {
            State::UpToDate => write!(f, "Up to date: the schema is at version {}.", self.current),
            State::Behind => write!(
                f,
                "{} due: the schema is at version {}, this program needs {}. Run `function-handlers migrate`.",
                self.pending.len(),
                self.current,
                self.latest
            ),
            State::Newer => write!(
                f,
                "The schema is at version {}, newer than this program's {}. It may serve, but not migrate.",
                self.current, self.latest
            ),
        }
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.would_apply.iter().map(|due| {
            let tried = match due.rehearsed_millis {
                Some(millis) => format!("worked in {millis} ms, rolled back"),
                None => "not tried".to_owned(),
            };
            (due.version, &due.name, format!("{tried}{}", outside(due.transactional)))
        });
        table(f, rows)?;
        for due in &self.would_apply {
            writeln!(f, "\n-- V{:04}__{}.sql\n{}", due.version, due.name, due.sql.trim_end())?;
        }
        let count = self.would_apply.len();
        if count > 0 {
            writeln!(f)?;
        }
        write!(f, "{count} would be applied: version {} → {}.", self.current, self.latest.max(self.current))
    }
}

fn outside(transactional: bool) -> &'static str {
    if transactional { "" } else { " (outside a transaction)" }
}

fn table<'a>(
    f: &mut fmt::Formatter<'_>,
    rows: impl Iterator<Item = (i32, &'a String, String)> + Clone,
) -> fmt::Result {
    let width = rows.clone().map(|(_, name, _)| name.chars().count()).max().unwrap_or(0);
    for (version, name, rest) in rows {
        writeln!(f, "V{version:04}  {name:width$}  {rest}")?;
    }
    Ok(())
}
