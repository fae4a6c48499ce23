//! Language models: providers, routing, retry, prices, spend.
//!
//! A provider's stream, whatever its wire format, becomes a sequence of [`Upstream`]: small pieces of the answer
//! ([`Chunk`]), token counts, and an end. Everything behind this module knows only these.

mod breaker;
mod chunk;
mod client;
mod clock;
mod demo;
mod deployment;
mod error;
mod estimate;
pub mod fields;
mod json;
mod prices;
pub(crate) mod providers;
mod quota;
pub mod retraction;
mod retry;
mod router;
pub mod spend;
pub(crate) mod sse;
mod stream;

use std::sync::Arc;

pub use breaker::BreakerState;
pub use chunk::{Chunk, Finish, TokenUsage, Upstream};
pub use demo::commands_markdown;
pub use error::{ErrorClass, LlmError};
pub use estimate::{estimate_item, estimate_params, estimate_tokens, least_tokens};
pub use prices::{Price, cost};
pub use router::{
    Alias, AttemptReport, BeforeSending, DeploymentHealth, Embedded, Embeddings, NextAttempt, OpenLimits,
    Opened, Router, no_such_model,
};
pub use stream::OpenStream;

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
