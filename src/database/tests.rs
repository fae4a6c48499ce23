//! On real PostgreSQL, and through real PgBouncer, always: each test has a database of its own.

mod auth;
mod events;
mod maintenance;
mod migrations;
mod pool;
mod settings;
mod support;
mod tls;
mod work;
