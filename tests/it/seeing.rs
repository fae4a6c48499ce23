//! What an operator sees of running processes: traces in a collector, metrics in a scrape.

mod answering;
mod metrics;
mod status;
mod traces;
