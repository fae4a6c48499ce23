//! Providers that do everything they can be told to, good and bad by turns.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};

use super::plan::Plan;
use crate::support::providers::{Answered, Charged, Ending, FakeProvider, Script, Tool, UsageForm, Wire};

/// One provider of each wire format.
pub struct Upstreams(Vec<(&'static str, FakeProvider)>);

/// The aliases that turns ask for: of two deployments the other steps in.
pub const MODELS: [&str; 4] = ["chat", "azure", "responses", "anthropic"];

/// A request to a provider.
#[derive(Debug)]
pub struct Asked {
    pub deployment: &'static str,
    /// The last of the turns whose input it holds.
    pub turn: Option<String>,
    pub answered: Answered,
}

impl Upstreams {
    /// Every way to answer in turn, each followed by a plain answer. Each provider begins elsewhere in the circle, so that
    /// all together have soon done all there is.
    pub fn start(plan: Plan) -> Self {
        let wires = [
            ("chat", Wire::Chat),
            ("azure", Wire::Azure),
            ("resp", Wire::Responses),
            ("anth", Wire::Anthropic),
        ];
        let mut number = 0;
        let providers = wires.map(|(name, wire)| {
            let provider = FakeProvider::start(wire);
            let mut dice = plan.dice("scripts", number);
            let mut ways = ways(&mut dice);
            ways.shuffle(&mut plan.dice("ways", 0));
            let first = number * ways.len() / wires.len();
            ways.rotate_left(first);
            number += 1;
            let scripts = ways.iter().flat_map(|way| [way.clone(), plain(&mut dice)]);
            let scripts: Vec<_> = scripts.collect();
            provider.next(scripts.into_iter().cycle().take(plan.turns * 3));
            provider.always(plain(&mut dice));
            (name, provider)
        });
        Self(providers.into())
    }

    /// All answers are this one.
    pub fn always(script: &Script) -> Self {
        let upstreams = Self::start(Plan::fixed());
        upstreams.0.iter().for_each(|(_, provider)| provider.always(script.clone()));
        upstreams
    }

    /// `colloquy.toml`: two aliases of two deployments, two of one, budgets that are not reached, and a target that
    /// anybody may have told.
    pub fn config(&self) -> String {
        let free =
            "requests_per_minute = 0\ntokens_per_minute = 0\nprice = { input = \"1\", output = \"4\" }";
        let mut text = "[budgets]\ntotal = 200\neach_owner = 150\neach_key = \"149.50\"\n".to_owned();
        text.extend(self.0.iter().map(|(name, provider)| provider.deployment(name, free)));
        text += "[targets.crm]\nurl = \"https://crm.invalid/\"\nowners = [\"*\"]\n";
        let deployments = [r#""chat", "azure""#, r#""azure", "chat""#, r#""resp""#, r#""anth""#];
        for (alias, deployments) in MODELS.iter().zip(deployments) {
            text += &format!(
                "[models.{alias}]\ndeployments = [{deployments}]\nfirst_event_seconds = 2\nsilence_seconds = 2\n"
            );
        }
        text
    }

    /// What the providers would put on the bill.
    pub fn charged(&self) -> Charged {
        self.0.iter().map(|(_, provider)| provider.charged()).fold(Charged::default(), |sum, one| Charged {
            requests: sum.requests + one.requests,
            input: sum.input + one.input,
            output: sum.output + one.output,
        })
    }

    /// Answers whose reader went away before their end.
    pub fn abandoned(&self) -> u64 {
        self.0.iter().map(|(_, provider)| provider.abandoned()).sum()
    }

    /// All requests, of any end.
    pub fn asked(&self) -> Vec<Asked> {
        let of_one = |(name, provider): &(&'static str, FakeProvider)| {
            let both = provider.seen().into_iter().zip(provider.answered());
            let deployment = *name;
            both.map(move |(seen, answered)| Asked { deployment, turn: turn_of(&seen.body), answered })
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_one).collect()
    }

    /// How often each way to answer occurred, those that did not included.
    pub fn occurred(&self) -> BTreeMap<&'static str, usize> {
        let mut counts: BTreeMap<_, _> =
            ways(&mut Plan::fixed().dice("", 0)).iter().map(|way| (way.name, 0)).collect();
        for (_, provider) in &self.0 {
            for answered in provider.answered() {
                *counts.entry(answered.script).or_default() += 1;
            }
        }
        counts
    }

    /// Whether every way to answer occurred.
    pub fn are_done(&self) -> bool {
        self.occurred().values().all(|count| *count > 0)
    }
}

/// The name of a turn, as its viewer put it into the input.
fn turn_of(body: &Value) -> Option<String> {
    let text = body.to_string();
    let rest = &text[text.rfind("turn-")?..];
    Some(rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next()?.to_owned())
}

/// Says some words at a human pace.
fn plain(dice: &mut StdRng) -> Script {
    words(dice).named("plain")
}

fn words(dice: &mut StdRng) -> Script {
    Script::words(dice.random_range(20..120)).pace(Duration::from_millis(20))
}

/// Each way to answer and to fail, once: before the answer, at its first byte, in its middle, at its end.
fn ways(dice: &mut StdRng) -> Vec<Script> {
    let mut ways = refusals();
    ways.extend(breaks());
    ways.extend(oddities(dice));
    ways
}

fn refusals() -> Vec<Script> {
    let coded = |code: &str, message: &str| json!({"error": {"code": code, "type": code, "message": message, "param": null}});
    let filtered = json!({"error": {"code": "content_filter", "param": "prompt", "status": 400, "message": "x",
        "innererror": {"code": "ResponsibleAIPolicyViolation"}}});
    let page = Value::from("<html>Bad gateway</html>");
    vec![
        Script::fails(429, "x").header("retry-after-ms", "100").named("429 with a wait"),
        Script::fails(429, "x").named("429 without a wait"),
        Script::fails_with(429, coded("insufficient_quota", "no money")).named("429 out of money"),
        Script::fails(429, "at capacity").named("429 out of capacity"),
        Script::fails(401, "x").named("401"),
        Script::fails(404, "x").named("404"),
        Script::fails(408, "x").named("408"),
        Script::fails(500, "x").named("500"),
        Script::fails_with(502, page).named("502 as a page"),
        Script::fails(503, "x").named("503"),
        Script::fails_with(529, coded("overloaded_error", "x")).named("529"),
        Script::fails_with(400, coded("invalid_prompt", "x")).named("400"),
        Script::fails_with(400, coded("context_length_exceeded", "x")).named("400 too long"),
        Script::fails_with(400, filtered).named("400 filtered"),
        Script::hangs_up().named("hangs up"),
    ]
}

fn breaks() -> Vec<Script> {
    let overloaded =
        || json!({"error": {"message": "overloaded", "type": "overloaded_error", "code": "overloaded"}});
    let half = || Script::words(40).pace(Duration::from_millis(20));
    vec![
        Script::words(10).delayed(Duration::from_secs(3)).named("late head"),
        Script::words(10).first_after(Duration::from_secs(3)).named("late first event"),
        half().ending_after(0, Ending::Eof).named("ends at once"),
        half().ending_after(0, Ending::Reset).named("resets at once"),
        half().ending_after(0, Ending::Stall).named("stalls at once"),
        half().ending_after(0, Ending::Pings).named("only pings"),
        half().ending_after(0, Ending::Error(overloaded())).named("error at once"),
        half().ending_after(0, Ending::Garbage).named("garbage at once"),
        half().ending_after(20, Ending::Eof).named("ends half-way"),
        half().ending_after(20, Ending::Reset).named("resets half-way"),
        half().ending_after(20, Ending::Stall).named("stalls half-way"),
        half().ending_after(20, Ending::Pings).named("pings half-way"),
        half().ending_after(20, Ending::Error(overloaded())).named("error half-way"),
        half().ending_after(20, Ending::Garbage).named("garbage half-way"),
        half().ending(Ending::Eof).named("no mark of the end"),
        half().ending(Ending::Reset).named("resets at the end"),
        half().ending(Ending::Stall).named("stalls at the end"),
    ]
}

/// What is no failure, though one might stumble over it.
fn oddities(dice: &mut StdRng) -> Vec<Script> {
    let mut words = || words(dice);
    let two = Script {
        tools: ["one", "two"]
            .map(|name| Tool { id: Some(name), name: "look_up", arguments: r#"{"word": "colloquy"}"# })
            .into(),
        ..words().finish("tool_calls")
    };
    let refusal = Script { refusal: Some("I cannot help with that.".to_owned()), ..Script::default() };
    vec![
        words().usage(UsageForm::Never).named("no usage"),
        words().usage(UsageForm::NullChoices).named("usage beside null"),
        words().usage(UsageForm::NoChoices).named("usage alone"),
        words().usage(UsageForm::RealChoice).named("usage beside a choice"),
        words().thinks("Let me think about that.").named("thinks"),
        words().comments().crlf().named("comments and CRLF"),
        words().drip(3).named("three bytes at a time"),
        words().finish("length").named("cut by length"),
        words().finish("content_filter").named("cut by a filter"),
        Script::calls("look_up", r#"{"word": "colloquy"}"#).named("calls a tool"),
        two.named("says and calls two tools"),
        refusal.named("refuses"),
    ]
}
