//! The demo model: built in, deterministic, without network. The same conversation gets the same answer, at a human
//! pace, with everything a real model has: tools, schemas, images, memory, usage. On command it misbehaves.

mod answer;
mod arguments;
mod command;
mod conversation;
mod logprobs;
mod tokens;
mod vectors;

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use self::answer::Answer;
use self::command::Commands;
use self::conversation::Conversation;
use super::error::{ErrorClass, LlmError, from_answer};
use super::retraction::units;
use super::{Chunk, Finish, ModelRequest, TokenUsage, Upstream};

pub use command::commands_markdown;
pub(crate) use vectors::embeddings;

/// Prompt caches begin at this many tokens, and grow in steps.
const CACHE_LEAST: u64 = 1_024;
const CACHE_STEP: u64 = 128;

/// An answer of the demo model.
#[derive(Debug)]
pub(crate) struct DemoStream {
    steps: VecDeque<Step>,
    due: Instant,
}

#[derive(Debug)]
struct Step {
    /// After the step before.
    after: Duration,
    what: What,
}

#[derive(Debug)]
enum What {
    Say(Upstream),
    Fail(LlmError),
}

/// Writes the steps of an answer.
struct Script {
    steps: VecDeque<Step>,
    /// Between two tokens.
    gap: Duration,
    /// Added to the next step.
    pause: Duration,
    output: u64,
    reasoning: u64,
    most: u64,
}

impl DemoStream {
    /// Plays the whole answer out in advance. `Err` is what a provider would have answered with.
    pub fn begin(request: &ModelRequest, attempt: Uuid, tokens_per_second: u32) -> Result<Self, LlmError> {
        let conversation = Conversation::of(request);
        let (commands, message) = Commands::parse(conversation.last_user());
        if let Some(status) = commands.fail {
            let mut headers = HeaderMap::new();
            if matches!(status, 429 | 503 | 529) {
                headers.insert("retry-after", HeaderValue::from_static("1"));
            }
            return Err(from_answer(status, &headers, b"{}", Timestamp::now()));
        }
        let speed = commands.tokens_per_second.unwrap_or(tokens_per_second);
        let mut script = Script {
            steps: VecDeque::new(),
            gap: if speed == 0 { Duration::ZERO } else { Duration::from_secs(1) / speed },
            pause: commands.late.unwrap_or_default(),
            output: 0,
            reasoning: 0,
            most: request.params.max_output_tokens.map_or(u64::MAX, u64::from),
        };
        let mut answer = answer::of(request, &conversation, message, attempt, &commands);
        if let (Answer::Text(text), Some(chat)) = (&mut answer, &request.params.chat) {
            let end = chat.stop.iter().filter_map(|stop| text.find(stop)).min();
            text.truncate(end.unwrap_or(text.len()));
        }
        let finish = script.play(request, &commands, &answer);
        if let Some(finish) = finish {
            let (input, earlier) = conversation.input_tokens();
            let cached = if earlier >= CACHE_LEAST { earlier / CACHE_STEP * CACHE_STEP } else { 0 };
            script.say(Upstream::Finish(finish));
            script.say(Upstream::Usage(TokenUsage {
                input,
                cached,
                cache_written: 0,
                output: script.output,
                reasoning: script.reasoning,
            }));
        }
        Ok(Self { steps: script.steps, due: Instant::now() })
    }

    /// Waits for the next step and puts it into `queue`; `false` after the last. May be dropped while it waits.
    pub async fn read(&mut self, queue: &mut VecDeque<Upstream>) -> Result<bool, LlmError> {
        let Some(step) = self.steps.front() else { return Ok(false) };
        let due = self.due + step.after;
        if !step.after.is_zero() {
            sleep_until(due).await;
        }
        self.due = due;
        loop {
            match self.steps.pop_front().map(|step| step.what) {
                Some(What::Say(upstream)) => queue.push_back(upstream),
                Some(What::Fail(error)) => return Err(error),
                None => return Ok(false),
            }
            if self
                .steps
                .front()
                .is_none_or(|step| !step.after.is_zero() || matches!(step.what, What::Fail(_)))
            {
                return Ok(!self.steps.is_empty());
            }
        }
    }
}

impl Script {
    /// `None` if the answer does not come to an end.
    fn play(&mut self, request: &ModelRequest, commands: &Commands, answer: &Answer) -> Option<Finish> {
        self.think(request, commands);
        if let Answer::Calls(calls) = answer {
            for (index, call) in calls.iter().enumerate() {
                let index = u16::try_from(index).unwrap_or(u16::MAX);
                let begin = Chunk::ToolCall {
                    index,
                    call_id: call.id.as_str().into(),
                    name: call.name.as_str().into(),
                };
                self.token(begin);
                for piece in tokens::pieces(&call.arguments) {
                    if !self.token(Chunk::ToolArguments { index, delta: piece.into() }) {
                        return Some(Finish::Length);
                    }
                }
            }
            return Some(Finish::ToolCalls);
        }
        let (text, refused) = match answer {
            Answer::Refusal(text) => (text.as_str(), true),
            Answer::Text(text) => (text.as_str(), false),
            Answer::Calls(_) => return None,
        };
        let pieces: Vec<&str> = tokens::pieces(text).collect();
        let half = pieces.len().div_ceil(2);
        for (at, piece) in pieces.into_iter().enumerate() {
            if at == 2.min(half)
                && let Some(stall) = commands.stall
            {
                self.pause = stall;
            }
            if at == half {
                if commands.cut {
                    return self.fail(LlmError::new(ErrorClass::Interrupted));
                }
                if commands.error {
                    return self.fail(LlmError::new(ErrorClass::Server).status(500));
                }
                if commands.filter {
                    return Some(Finish::ContentFilter);
                }
            }
            let chunk = if refused {
                Chunk::Refusal(piece.into())
            } else if request.params.wants_logprobs() {
                let logprob = logprobs::of(piece, request.params.top_logprobs.unwrap_or_default());
                Chunk::TextLogProbs { delta: piece.into(), logprobs: [logprob].into() }
            } else {
                Chunk::Text(piece.into())
            };
            if !self.token(chunk) {
                return Some(Finish::Length);
            }
        }
        if commands.retract {
            let keep = tokens::pieces(text).take(half).map(units).sum();
            self.say_slowly(Chunk::Retract { keep });
            return Some(Finish::ContentFilter);
        }
        Some(Finish::Stop)
    }

    fn think(&mut self, request: &ModelRequest, commands: &Commands) {
        use crate::openresponses::Effort;
        let reasoning = request.params.reasoning.as_ref();
        let effort = reasoning.and_then(|reasoning| reasoning.effort);
        if !commands.think && matches!(effort, None | Some(Effort::None)) {
            return;
        }
        let thought = "The user wants an answer. I look at what was asked, and at what was said before.";
        let before = self.output;
        if commands.think {
            for piece in tokens::pieces(thought) {
                self.token(Chunk::ReasoningText(piece.into()));
            }
        } else {
            self.output += tokens::count(thought);
        }
        if commands.think
            || reasoning.is_some_and(|reasoning| reasoning.summary.or(reasoning.generate_summary).is_some())
        {
            let parts =
                ["**Reading the question.** It is short.", "**Preparing the answer.** It will be, too."];
            for (part, text) in (0u16..).zip(parts) {
                for piece in tokens::pieces(text) {
                    self.say_slowly(Chunk::ReasoningSummary { part, delta: piece.into() });
                }
            }
        }
        self.say(Upstream::Chunk(Chunk::ReasoningEncrypted("demo~nothing".into())));
        self.reasoning = self.output - before;
    }

    /// One token of the answer; `false` if it was one too many.
    fn token(&mut self, chunk: Chunk) -> bool {
        if self.output >= self.most {
            return false;
        }
        self.output += 1;
        self.say_slowly(chunk);
        true
    }

    fn say_slowly(&mut self, chunk: Chunk) {
        let after = self.gap + std::mem::take(&mut self.pause);
        self.steps.push_back(Step { after, what: What::Say(Upstream::Chunk(chunk)) });
    }

    fn say(&mut self, upstream: Upstream) {
        self.steps.push_back(Step { after: Duration::ZERO, what: What::Say(upstream) });
    }

    fn fail(&mut self, error: LlmError) -> Option<Finish> {
        let after = self.gap + std::mem::take(&mut self.pause);
        self.steps.push_back(Step { after, what: What::Fail(error.charged(true)) });
        None
    }
}

#[cfg(test)]
mod tests;
