//! The conversation server as a process, driven by OpenAI's own SDKs and by plain requests. Always two instances where
//! it matters.

mod background;
mod chat;
mod compaction;
mod conformance;
mod scene;
mod sdk;
mod socket;
mod turns;
