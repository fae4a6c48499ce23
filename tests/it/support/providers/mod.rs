//! Providers of language models that do as they are told: real HTTP servers, one per wire format, which count what
//! they would have charged. Nothing here needs the rest of the harness, so that a process of its own can serve them.
//!
//! ```ignore
//! let provider = FakeProvider::start(Wire::Azure);
//! provider.next([Script::fails(429, "Rate limit is exceeded. Try again in 1 seconds.")]);   // once
//! provider.always(Script::says("Hello there").pace(Duration::from_millis(20)).crlf());     // from then on
//! // … [deployments.gpt] url = provider.url()
//! assert_eq!(provider.charged().requests, 1);
//! ```

//!
//! Requests that a vendor would refuse are refused, in its words ([`FakeProvider::refused`]).

mod connection;
mod frames;
mod limits;
mod play;
mod refusal;
mod script;
mod server;

pub use limits::{Limits, Shortage};
pub use script::{Ending, Finding, Script, Tool, UsageForm};
pub use server::{Answered, Charged, FakeProvider, Seen};

/// Which wire format a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Chat completions as OpenAI sends them.
    Chat,
    /// Chat completions with everything that Azure adds.
    Azure,
    Responses,
    Anthropic,
}

impl Wire {
    /// The word in `colloquy.toml`.
    pub fn provider(self) -> &'static str {
        match self {
            Self::Chat => "openai",
            Self::Azure => "azure",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
        }
    }
}
