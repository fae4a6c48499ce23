//! PostgreSQL, the record. Nothing else in the tree speaks SQL.
//!
//! Statements go through [`Client`] and [`Transaction`], which know only typed statements and so work through a
//! pooler in transaction mode. `docs/database.md` has the rules that follow from it.

pub mod api_keys;
pub mod audit;
mod auth;
pub mod backfills;
pub mod budgets;
pub mod callbacks;
mod client;
mod connect;
pub mod conversations;
pub mod dead_letters;
mod error;
pub mod events;
pub mod expiring;
pub mod grants;
pub mod inspect;
pub mod maintenance;
pub mod migrations;
pub mod owners;
mod pool;
pub mod respond;
pub mod responses;
pub mod retention;
pub mod rollups;
pub mod rotations;
mod settings;
pub mod spending;
pub mod threads;
mod tls;
pub mod turn_log;
pub mod turns;
pub mod usage;
pub mod work;

pub use auth::{ENTRA_SCOPE, TokenError, TokenProvider};
pub use client::{Client, Columns, Param, Statements, Transaction};
pub use error::{Class, DatabaseError};
pub use pool::{Database, PoolStatus};
pub use settings::{DatabaseAuth, DatabaseSettings, POOL_SIZE_LIMIT, SettingsError};
pub use tokio_postgres::Row;
pub use tokio_postgres::types::Type;

#[cfg(test)]
pub(crate) mod tests;
