//! Integration tests: one binary, since linking each file on its own would cost more than running it.
//!
//! Files are named for what they show; `support` is the harness, and opens with a tour. Tests in a module `faults`
//! kill, freeze and restart real processes and run one at a time (`.config/nextest.toml`). Run with `scripts/test`,
//! which starts what they need and says where it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts what it likes"
)]

mod access;
mod attacks;
mod commands;
mod console;
mod conversation;
mod faults;
mod floods;
mod harness;
mod health;
mod ingress;
mod measured;
mod models;
mod operations;
mod respond;
mod scene;
mod scripts;
mod seeing;
mod startup;
mod support;
mod work;
