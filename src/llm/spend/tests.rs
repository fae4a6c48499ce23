//! On real PostgreSQL through real PgBouncer: each `Spend` here stands for a process.

mod concurrency;
mod days;
mod failures;
mod ledger;
mod support;
