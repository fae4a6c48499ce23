//! Language models: providers, routing, retry, prices, spend.
//!
//! A provider's stream, whatever its wire format, becomes a sequence of [`Upstream`]: small pieces of the answer
//! ([`Chunk`]), token counts, and an end. Everything behind this module knows only these.

mod chunk;
mod error;
mod json;
mod providers;
mod sse;

use std::sync::Arc;

pub use chunk::{Chunk, Finish, TokenUsage, Upstream};
pub use error::{ErrorClass, LlmError};

use crate::openresponses::{CreateResponse, Item};

/// What a turn asks of a model: the parameters of its request, and the window of items in order, the new input last.
///
/// Compaction items are the caller's to open: it puts messages with their text in their place. A reasoning item's
/// `encrypted_content` begins with the name of the deployment that wrote it and `~`, and goes back to that one alone;
/// one without `~` came from the caller and goes to upstream Responses APIs.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// `input`, `previous_response_id` and `conversation` in it are not looked at.
    pub params: Arc<CreateResponse>,
    pub items: Vec<Arc<Item>>,
}
