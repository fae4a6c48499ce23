//! On real PostgreSQL, and through real PgBouncer, always: each test has a database of its own.

mod access;
mod auth;
mod conversations;
mod events;
mod grants;
mod maintenance;
mod migrations;
mod owners;
mod pool;
mod queued;
mod retention;
mod rollups;
mod rotations;
mod settings;
pub(crate) mod support;
mod talk;
mod talk_model;
mod threads;
mod tls;
mod turn_ends;
mod turn_log;
mod turn_retries;
mod turn_states;
mod turn_times;
mod turns;
mod work;
