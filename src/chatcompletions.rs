//! OpenAI's chat completions, as an older way to ask for a turn that is not stored.
//!
//! A request becomes a [`CreateResponse`](crate::openresponses::CreateResponse) with `store: false`, so it is run,
//! limited, metered and stopped like any other; what comes back is written as `chat.completion` or as
//! `chat.completion.chunk` frames. Shapes: OpenAI's API reference, "Chat Completions".

mod answer;
mod fields;
mod messages;
mod request;
mod viewer;

pub use answer::completion;
pub use fields::markdown;
pub use request::{Asked, ChatRequest, Terms};
pub use viewer::{ChatViewer, Progress};

#[cfg(test)]
mod tests;
