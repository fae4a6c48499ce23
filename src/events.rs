//! Events: what arrives, and what follows from it.
//!
//! A sender's request that passed verification is a *delivery*. It holds one or more *events*, each with its own key,
//! type and fate. Routes decide what an event does; what it does is written, in one transaction with its key, as rows
//! of work ([`crate::jobs`]). Nothing here does I/O: the handlers fetch and store, these modules decide.

pub mod message;
pub mod routes;
pub mod state;
pub mod vault;
