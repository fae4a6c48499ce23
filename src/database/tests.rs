//! On real PostgreSQL, and through real PgBouncer, always: each test has a database of its own.

mod events;
mod login;
mod maintenance;
mod migrations;
mod pool;
mod support;
mod tls;
mod work;
