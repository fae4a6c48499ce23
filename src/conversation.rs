//! Conversations: turns, their logs, what viewers see of them, the context window. No SQL and no HTTP.

pub mod assembler;
pub mod live;

pub use assembler::{Assembler, End};
pub use live::{Live, Viewer};
