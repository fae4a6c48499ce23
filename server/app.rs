//! What every route may need, made from configuration.

use std::sync::Arc;

use anyhow::anyhow;
use colloquy::access::{Access, Principal};
use colloquy::azure::Storage;
use colloquy::config::Config;
use colloquy::conversation::engine::{Engine, Limits};
use colloquy::database::{Database, TokenProvider};
use colloquy::openresponses::ApiError;
use colloquy::tasks::Tasks;
use colloquy::wiring;
use http::HeaderMap;

use crate::edge::Connections;

/// The server's parts.
pub struct App {
    pub config: Config,
    pub database: Database,
    pub engine: Engine,
    pub access: Access,
    pub connections: Arc<Connections>,
    pub tasks: Tasks,
}

/// Room for one more request of a caller, and what to tell it of what is left.
pub struct Admitted;

impl Admitted {
    /// Adds the headers of rate limits.
    pub fn describe(&self, _headers: &mut HeaderMap) {}
}
