//! A provider that fails three of ten calls, the routes that ask it, and a consumer that fails one of ten.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;

use super::super::conversations::plan::Plan;
use crate::support::Answer;
use crate::support::providers::{Ending, FakeProvider, Script, Wire};

/// Five in jobs, five on servers.
pub const ROUTES: usize = 10;
/// What an answer that fits is called where answers are counted.
pub const GOOD: &str = "good";
/// Of a hundred calls, so many fail.
const FAILING: u32 = 30;
/// More calls than any run makes for one event.
const CALLS: usize = 12;

/// Answers drawn by chance, one for each call.
pub fn start(plan: Plan, events: usize) -> FakeProvider {
    let provider = FakeProvider::start(Wire::Chat);
    let mut dice = plan.dice("calls", 0);
    provider.next((0..events * CALLS).map(|_| script(&mut dice)));
    provider.always(good());
    provider
}

fn good() -> Script {
    let text = r#"{"mood": "good", "reply": "Thank you for your kind words."}"#;
    Script::says(text).pace(Duration::from_millis(20)).named(GOOD)
}

fn script(dice: &mut StdRng) -> Script {
    if dice.random_range(0..100) >= FAILING {
        return good();
    }
    let half = || Script::words(10).pace(Duration::from_millis(20));
    let error = json!({"error": {"message": "overloaded", "type": "overloaded_error", "code": "overloaded"}});
    match dice.random_range(0..FAILING) {
        0..8 => Script::fails(503, "x").named("503"),
        8..13 => Script::fails(500, "x").named("500"),
        13..17 => Script::fails(429, "x").header("retry-after-ms", "100").named("429"),
        17..21 => Script::hangs_up().named("hangs up"),
        21..24 => half().ending_after(5, Ending::Reset).named("resets half-way"),
        24..26 => half().ending_after(5, Ending::Error(error)).named("error half-way"),
        26..28 => Script::says(r#"{"mood": "so so"}"#).named("does not fit"),
        28 => Script::says("").named("says nothing"),
        _ => Script::fails(400, "x").named("400"),
    }
}

/// One of ten callbacks is answered with 500.
pub fn consumer_answers(plan: Plan, events: usize) -> Vec<Answer> {
    let mut dice = plan.dice("consumer", 0);
    (0..events * 2).map(|_| Answer::Status(if dice.random_range(0..10) == 0 { 500 } else { 200 })).collect()
}

/// `colloquy.toml`: even routes in jobs, odd ones on servers; every fifth shares conversations.
pub fn config(provider: &FakeProvider) -> String {
    let quotas =
        "requests_per_minute = 0\ntokens_per_minute = 0\nprice = { input = \"1.00\", output = \"2.00\" }";
    let mut text = format!(
        "[sources.crm]\nkind = \"espocrm\"\n[targets.crm]\nurl = \"${{CONSUMER_URL}}\"\n{}\n\
         [models.small]\ndeployments = [\"small\"]\n",
        provider.deployment("small", quotas)
    );
    for route in 0..ROUTES {
        let runs_on = if route % 2 == 0 { "job" } else { "server" };
        let conversation = if route % 5 == 0 { "conversation = \"{{ event.payload.topic }}\"\n" } else { "" };
        text += &format!(
            "[[routes]]\nname = \"r{route}\"\nsource = \"crm\"\ntype = \"feedback.r{route}\"\naction = \"respond\"\n\
             model = \"small\"\ninstructions = \"Answer it.\"\n\
             input = \"{{{{ event.subject }}}}: {{{{ event.payload.description }}}}\"\n\
             callback = \"crm\"\nmax_output_tokens = 500\nruns_on = \"{runs_on}\"\n{conversation}\
             text.format = {{ type = \"json_schema\", name = \"answer\", schema = '''{SCHEMA}''' }}\n"
        );
    }
    text
}

const SCHEMA: &str = r#"{ "type": "object", "additionalProperties": false, "required": ["mood", "reply"],
    "properties": { "mood": { "enum": ["good", "bad"] }, "reply": { "type": "string", "minLength": 1 } } }"#;
