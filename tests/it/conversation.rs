//! The conversation server as a process, driven by OpenAI's own SDKs and by plain requests. Always two instances where
//! it matters.

mod background;
mod beginning;
mod budgets;
mod chat;
mod compaction;
mod conformance;
mod deleted;
mod held;
mod lasting;
mod logprobs;
mod past;
mod quotas;
mod retraction;
mod retries;
mod scene;
mod sdk;
mod slow;
pub mod socket;
pub mod sse;
mod summaries;
mod told;
mod trips;
mod turns;
mod unread;
mod unwatched;
