//! What a fake provider does with one request.

use std::time::Duration;

use serde_json::{Value, json};

use super::Limits;

/// Another status than 200, with headers and body.
pub type Failure = (u16, Vec<(&'static str, String)>, Value);

/// One request's answer.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it is called where answers are counted.
    pub name: &'static str,
    pub failure: Option<Failure>,
    /// The connection is reset before there is an answer.
    pub hangs_up: bool,
    /// Before the head of the answer.
    pub delay: Duration,
    /// Between the head and the first frame.
    pub first: Duration,
    /// Between two pieces of text.
    pub pace: Duration,
    pub text: Vec<String>,
    pub reasoning: Option<String>,
    /// At Anthropic: a block of thinking that nobody may read, before the other.
    pub redacted: Option<&'static str>,
    pub refusal: Option<String>,
    pub tools: Vec<Tool>,
    /// Of the text, in the protocol's own form (`url_citation`); where a format has another, in that.
    pub annotations: Vec<Value>,
    /// The service tier that is said to have served it.
    pub tier: Option<&'static str>,
    /// Headers with every answer.
    pub limits: Option<Limits>,
    /// At Azure: its asynchronous filter finds something in what was sent.
    pub finds: Option<Finding>,
    /// At Azure: the first frame has its older name, `prompt_annotations`.
    pub older_prompt_frame: bool,
    /// At Azure: its default filter, which lets text go in bursts of so many pieces and annotates nothing.
    pub bursts: Option<usize>,
    /// At Anthropic: the usage comes in several `message_delta`, cumulative, and says the input again.
    pub restated: bool,
    /// Pieces of text come with log probabilities, each piece one token.
    pub likely: bool,
    /// Input, cached, output, reasoning.
    pub usage: (u64, u64, u64, u64),
    pub usage_form: UsageForm,
    /// In the terms of chat completions: stop, length, content_filter.
    pub finish: &'static str,
    pub ending: Ending,
    /// After how many frames the ending comes; all of them by default.
    pub ends_after: Option<usize>,
    pub comments: bool,
    pub crlf: bool,
    /// How many bytes go out at once.
    pub drip: Option<usize>,
}

/// A tool called: in so many pieces, with or without an id.
#[derive(Clone, Debug)]
pub struct Tool {
    pub id: Option<&'static str>,
    pub name: &'static str,
    pub arguments: &'static str,
}

/// What an asynchronous filter finds in the text it let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// So many pieces of text are in order.
    pub kept: usize,
    /// It says so behind the finish, else with it.
    pub late: bool,
}

/// Where the usage of chat completions stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageForm {
    /// In a frame of its own, with these choices: `[]`, `null`, none at all, or a real one.
    EmptyChoices,
    NullChoices,
    NoChoices,
    RealChoice,
    Never,
}

/// How a stream ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// As the protocol says.
    Proper,
    /// The body ends, without the protocol's own mark.
    Eof,
    /// The connection is reset.
    Reset,
    /// Nothing comes any more, and the connection stays.
    Stall,
    /// Nothing but comments (or pings) come any more.
    Pings,
    /// A frame with an error, then the end.
    Error(Value),
    /// A frame that is no JSON.
    Garbage,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            name: "unnamed",
            failure: None,
            hangs_up: false,
            delay: Duration::ZERO,
            first: Duration::ZERO,
            pace: Duration::ZERO,
            text: Vec::new(),
            reasoning: None,
            redacted: None,
            refusal: None,
            tools: Vec::new(),
            annotations: Vec::new(),
            tier: None,
            limits: None,
            finds: None,
            older_prompt_frame: false,
            bursts: None,
            restated: false,
            likely: false,
            usage: (11, 4, 7, 2),
            usage_form: UsageForm::EmptyChoices,
            finish: "stop",
            ending: Ending::Proper,
            ends_after: None,
            comments: false,
            crlf: false,
            drip: None,
        }
    }
}

impl Script {
    /// A text, word by word.
    pub fn says(text: &str) -> Self {
        Self { text: text.split_inclusive(' ').map(str::to_owned).collect(), ..Self::default() }
    }

    /// So many words.
    pub fn words(count: usize) -> Self {
        let text = (0..count).map(|at| format!("w{at} ")).collect();
        Self { text, usage: (11, 4, count as u64, 0), ..Self::default() }
    }

    /// An error in the provider's usual form.
    pub fn fails(status: u16, message: &str) -> Self {
        let error = json!({"message": message, "type": "error", "code": status.to_string(), "param": null});
        Self::fails_with(status, json!({ "error": error }))
    }

    /// An error with this body.
    pub fn fails_with(status: u16, body: Value) -> Self {
        Self { failure: Some((status, Vec::new(), body)), ..Self::default() }
    }

    /// No answer, and no connection any more.
    pub fn hangs_up() -> Self {
        Self { hangs_up: true, ..Self::default() }
    }

    /// A tool called.
    pub fn calls(name: &'static str, arguments: &'static str) -> Self {
        let tools = vec![Tool { id: Some("call_1"), name, arguments }];
        Self { tools, finish: "tool_calls", ..Self::default() }
    }

    /// Called so where answers are counted.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Some((_, headers, _)) = &mut self.failure {
            headers.push((name, value.to_owned()));
        }
        self
    }

    #[must_use]
    pub fn pace(mut self, pace: Duration) -> Self {
        self.pace = pace;
        self
    }

    #[must_use]
    pub fn first_after(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    #[must_use]
    pub fn thinks(mut self, reasoning: &str) -> Self {
        self.reasoning = Some(reasoning.to_owned());
        self
    }

    /// All but the first pieces are taken back, with the finish or, `late`, behind it.
    #[must_use]
    pub fn filtered_behind(mut self, kept: usize, late: bool) -> Self {
        self.finds = Some(Finding { kept, late });
        self
    }

    /// With a block of thinking that only the provider reads.
    #[must_use]
    pub fn redacts(mut self, data: &'static str) -> Self {
        self.redacted = Some(data);
        self
    }

    /// An annotation of its text: a source, from one character to another.
    #[must_use]
    pub fn cites(mut self, url: &str, from: u64, to: u64) -> Self {
        self.annotations
            .push(json!({"type": "url_citation", "start_index": from, "end_index": to, "url": url,
            "title": "A source"}));
        self
    }

    /// Served by this tier, whichever was asked for.
    #[must_use]
    pub fn tier(mut self, tier: &'static str) -> Self {
        self.tier = Some(tier);
        self
    }

    /// With these headers.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    #[must_use]
    pub fn older_prompt_frame(mut self) -> Self {
        self.older_prompt_frame = true;
        self
    }

    #[must_use]
    pub fn bursts(mut self, pieces: usize) -> Self {
        self.bursts = Some(pieces);
        self
    }

    #[must_use]
    pub fn restates(mut self) -> Self {
        self.restated = true;
        self
    }

    /// With log probabilities.
    #[must_use]
    pub fn likely(mut self) -> Self {
        self.likely = true;
        self
    }

    #[must_use]
    pub fn usage(mut self, form: UsageForm) -> Self {
        self.usage_form = form;
        self
    }

    #[must_use]
    pub fn finish(mut self, finish: &'static str) -> Self {
        self.finish = finish;
        self
    }

    /// Ends so, after all its frames.
    #[must_use]
    pub fn ending(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// Ends so, after so many pieces of text.
    #[must_use]
    pub fn ending_after(mut self, pieces: usize, ending: Ending) -> Self {
        self.ends_after = Some(pieces);
        self.ending = ending;
        self
    }

    #[must_use]
    pub fn comments(mut self) -> Self {
        self.comments = true;
        self
    }

    #[must_use]
    pub fn crlf(mut self) -> Self {
        self.crlf = true;
        self
    }

    #[must_use]
    pub fn drip(mut self, bytes: usize) -> Self {
        self.drip = Some(bytes);
        self
    }
}
