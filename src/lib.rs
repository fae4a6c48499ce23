//! Colloquy: the back end of LLM products on Azure.
//!
//! The library both shipped binaries stand on. `ARCHITECTURE.md` is the map; the rules there
//! (who may speak SQL, who may read the environment, who may retry) are checked in CI.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        reason = "tests spawn tasks, and read the variables that scripts/test sets"
    )
)]

pub mod access;
pub mod azure;
pub mod chatcompletions;
#[cfg(feature = "commands")]
pub mod commands;
pub mod config;
pub mod conversation;
pub mod coordination;
pub mod database;
pub mod events;
pub mod functions;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod ids;
pub mod jobs;
pub mod llm;
pub mod openresponses;
pub mod operations;
pub mod request_id;
pub mod respond;
pub mod schema;
pub mod switches;
pub mod tasks;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod version;
pub mod webhooks;
pub mod wiring;
