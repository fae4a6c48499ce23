//! The action `respond`: an event starts model work.
//!
//! A route renders an event into a request to a model, the model's answer is checked before anything acts on it, and
//! what is right goes to a callback target. These modules know no SQL and no HTTP: templates, what of an event they
//! see, how its text is kept apart from instructions, what an answer must be, and what follows from how a turn ended.

mod answer;
pub mod event;
mod failures;
mod framing;
mod message;
mod route;
mod steps;
pub mod template;

pub use answer::{Answer, Rejected};
pub use event::EventData;
pub use failures::{Follows, INTERRUPTED, TIME_LIMIT, follows};
pub use message::{Told, render};
pub use route::{Asking, Repair, Route, Unusable};
pub use steps::{SeenTurn, Step, TurnState, next};
