//! Conversations: turns, their logs, what viewers see of them, the context window. No SQL and no HTTP.

pub mod assembler;
pub mod callbacks;
pub mod combinations;
pub mod engine;
pub mod live;
pub mod log;
pub mod queued;
pub mod window;

pub use assembler::{Assembler, End};
pub use live::{Live, Viewer};
