//! Providers that do everything they can be told to, good and bad by turns.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::seq::SliceRandom;
use serde_json::json;

use crate::support::providers::{Charged, Ending, FakeProvider, Script, UsageForm, Wire};

/// One provider of each wire format.
pub struct Upstreams(Vec<(&'static str, FakeProvider)>);

/// The aliases that turns ask for.
pub const MODELS: [&str; 3] = ["either", "responses", "anthropic"];

impl Upstreams {
    /// With so many good answers and as many bad ones, in any order; good ones from then on.
    pub fn start(turns: usize) -> Self {
        let wires = [
            ("chat", Wire::Chat),
            ("azure", Wire::Azure),
            ("resp", Wire::Responses),
            ("anth", Wire::Anthropic),
        ];
        let providers = wires.map(|(name, wire)| {
            let provider = FakeProvider::start(wire);
            let mut scripts = Vec::new();
            while scripts.len() < turns {
                scripts.extend(bad());
                scripts.extend((0..14).map(|_| good()));
            }
            scripts.shuffle(&mut rand::rng());
            provider.next(scripts);
            provider.always(good());
            (name, provider)
        });
        Self(providers.into())
    }

    /// All answers are this one.
    pub fn always(script: &Script) -> Self {
        let upstreams = Self::start(0);
        upstreams.0.iter().for_each(|(_, provider)| provider.always(script.clone()));
        upstreams
    }

    /// `colloquy.toml`: one alias with two deployments, two with one, and a target that anybody may have told.
    pub fn config(&self) -> String {
        let free =
            "requests_per_minute = 0\ntokens_per_minute = 0\nprice = { input = \"1\", output = \"4\" }";
        let mut text: String =
            self.0.iter().map(|(name, provider)| provider.deployment(name, free)).collect();
        text += "[targets.crm]\nurl = \"https://crm.invalid/\"\nowners = [\"*\"]\n";
        for (alias, deployments) in
            [(MODELS[0], r#""chat", "azure""#), (MODELS[1], r#""resp""#), (MODELS[2], r#""anth""#)]
        {
            text += &format!(
                "[models.{alias}]\ndeployments = [{deployments}]\nfirst_event_seconds = 2\nsilence_seconds = 2\n"
            );
        }
        text
    }

    /// What the providers would put on the bill: what usage rows are to be held against.
    pub fn charged(&self) -> Charged {
        self.0.iter().map(|(_, provider)| provider.charged()).fold(Charged::default(), |sum, one| Charged {
            requests: sum.requests + one.requests,
            input: sum.input + one.input,
            output: sum.output + one.output,
        })
    }

    /// What each deployment told of its whole answers: input and output.
    pub fn told(&self) -> BTreeMap<String, Vec<(u64, u64)>> {
        self.0.iter().map(|(name, provider)| ((*name).to_owned(), provider.told())).collect()
    }

    /// Requests of any end.
    pub fn requests(&self) -> usize {
        self.0.iter().map(|(_, provider)| provider.seen().len()).sum()
    }
}

/// Says a random number of words at a human pace.
fn good() -> Script {
    let script = Script::words(rand::random_range(20..120)).pace(Duration::from_millis(20));
    match rand::random_range(0..6) {
        0 => script.thinks("Let me think about that."),
        1 => script.comments().crlf(),
        2 => script.usage(UsageForm::Never),
        3 => script.finish("length"),
        4 => Script::calls("look_up", r#"{"word": "colloquy"}"#),
        _ => script,
    }
}

/// Each way to fail, once: before the answer, at its first byte, in its middle.
fn bad() -> Vec<Script> {
    let overloaded =
        json!({"error": {"message": "overloaded", "type": "overloaded_error", "code": "overloaded"}});
    let filtered = json!({"error": {"code": "content_filter", "param": "prompt", "status": 400, "message": "x",
        "innererror": {"code": "ResponsibleAIPolicyViolation"}}});
    let half = || Script::words(40).pace(Duration::from_millis(20));
    vec![
        Script::fails(429, "x").header("retry-after-ms", "100"),
        Script::fails(500, "x"),
        Script::fails(503, "x"),
        Script::fails_with(400, filtered),
        Script::words(10).delayed(Duration::from_secs(3)),
        Script::words(10).first_after(Duration::from_secs(3)),
        half().ending_after(0, Ending::Eof),
        half().ending_after(20, Ending::Eof),
        half().ending(Ending::Eof),
        half().ending_after(20, Ending::Reset),
        half().ending_after(20, Ending::Stall),
        half().ending_after(20, Ending::Pings),
        half().ending_after(20, Ending::Error(overloaded)),
        half().ending_after(20, Ending::Garbage),
    ]
}
