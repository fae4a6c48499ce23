//! On real PostgreSQL, and through real PgBouncer, always: each test has a database of its own.

mod migrations;
mod pool;
mod support;
