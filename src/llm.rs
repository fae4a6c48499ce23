//! Language models: providers, routing, retry, prices, spend.
//!
//! A provider's stream, whatever its wire format, becomes a sequence of [`Upstream`]: small pieces of the answer
//! ([`Chunk`]), token counts, and an end. Everything behind this module knows only these.

mod chunk;

use std::sync::Arc;

pub use chunk::{Chunk, Finish, TokenUsage, Upstream};

use crate::openresponses::{CreateResponse, Item};

/// What a turn asks of a model: the parameters of its request, and the window of items in order, the new input last.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// `input`, `previous_response_id` and `conversation` in it are not looked at.
    pub params: Arc<CreateResponse>,
    pub items: Vec<Arc<Item>>,
}
