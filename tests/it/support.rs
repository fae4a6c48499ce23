//! The harness. A tour:
//!
//! ```ignore
//! #[tokio::test]
//! async fn a_paid_invoice_reaches_the_consumer() {
//!     let database = TestDatabase::create().await;            // migrated, its own, dropped at the end
//!     let storage = TestStorage::create();                    // its own queues in the shared Azurite
//!     let consumer = Consumer::start().await;                 // a real HTTP server that checks signatures
//!     let app = FunctionApp::of(&database, &storage)          // devhost as a process, function-handlers under it
//!         .consumer(&consumer)
//!         .start()
//!         .await;
//!
//!     let answer = app.deliver_stripe(r#"{"id":"evt_1","type":"invoice.paid"}"#).await;
//!     assert_eq!(answer.status(), 200);
//!
//!     eventually("the callback", SOON, async || consumer.callbacks().len() == 1).await;
//!     assert!(consumer.callbacks()[0].verified.is_ok());
//! }
//! ```
//!
//! - **Nothing is shared that matters.** Each test has its own database (a copy of a migrated template that the first
//!   test to come makes), its own queues and containers, its own ports. Tests run in parallel, in any order.
//! - **Nothing is mocked.** The database is reached through PgBouncer in transaction mode, always. For faults there is
//!   [`PrivatePostgres`], [`PrivateRedis`] and [`PrivateAzurite`]: servers of one test's own, to stop, kill, freeze and start again, and
//!   [`Proxy`], which delays, cuts and swallows connections; a PostgreSQL may have a small disk, and
//!   processes a clock that is wrong ([`skewed`]). [`Tap`] notes what passes.
//! - Without a host: `FunctionApp::of(…).start_handler()` runs `function-handlers` alone, and the test posts envelopes.
//! - Of the conversation server there are two, unless a test is about one process: `Server::of(…).start_two()` gives
//!   requests to them in turn, and [`Front`] does that for programs that know one address.
//! - **Conditions are awaited**, by [`eventually`], with a limit; nothing sleeps and hopes.
//! - **Nothing is left behind.** Every child dies with its test, even if the test is killed; a child's log is printed
//!   when its test fails.
//! - Where things are comes from `COLLOQUY_TEST_*` ([`Surroundings`]), which `scripts/test` sets.

#![allow(dead_code, unused_imports, reason = "a harness offers more than today's tests use")]

mod app;
mod azurite;
mod collector;
mod consumer;
mod database;
mod endpoint;
mod eventually;
mod front;
mod gate;
mod handler;
mod ports;
mod postgres;
mod process;
pub mod providers;
mod proxy;
mod redis;
pub mod server;
mod signing;
mod skew;
mod small_disk;
mod storage;
mod surroundings;
mod tap;

pub use app::{FunctionApp, FunctionAppBuilder};
pub use azurite::PrivateAzurite;
pub use collector::{Collector, SeenLine, SeenSpan};
pub use consumer::{Answer, CONSUMER_SECRET, Callback, Consumer};
pub use database::TestDatabase;
pub use endpoint::Endpoint;
pub use eventually::{SOON, eventually};
pub use front::Front;
pub use gate::{Gate, Running};
pub use handler::Handler;
pub use ports::Port;
pub use postgres::PrivatePostgres;
pub use process::{Process, exists, mortal, resident_kib, signal};
pub use proxy::Proxy;
pub use redis::PrivateRedis;
pub use signing::{sign_espocrm, sign_standard, sign_stripe, verify_standard};
pub use skew::skewed;
pub use storage::TestStorage;
pub use surroundings::{Surroundings, handlers_program, is_release_build, report, repository, unique};
pub use tap::{Tap, Trip};
