//! Work that follows from events: jobs, callbacks, and the dead letters of both.
//!
//! A row of work is claimed by lease, run within a deadline and finished in one statement that names the epoch of its
//! lease. The row is the truth; queue messages are hints. These modules hold the states and rules; SQL is in
//! [`crate::database`].

pub mod address;
pub mod callback;
pub mod kinds;
pub mod retry;
pub mod sender;
pub mod state;
