//! How the log of a turn is written: runs of pieces, packed.
//!
//! `[1, ["t","Hel","lo"], ["c",0,"call_1","add"], ["a",0,"{}"]]`: a version, then runs of pieces of one kind. Every
//! piece keeps its boundaries, since sequence numbers count pieces. A kind is one letter; what all pieces of the run
//! have in common follows it, then their texts. Log probabilities stand behind the text they belong to:
//! `["p","Hel",[{"token":"Hel",…}],"lo",[…]]`.
//!
//! Version 2 knows log probabilities, retractions and annotations beside what version 1 knows. A part that has none of them is
//! written as version 1, so that of two releases side by side the older one reads all that it could have written.

mod parts;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use parts::{LogParts, NextPart};

use crate::llm::Chunk;
use crate::openresponses::LogProb;

/// What is written at most. Read are this and the one before: two releases run side by side.
const VERSION: u32 = 2;
const BEFORE: u32 = 1;

/// A log that cannot be read. Says where, never what.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another version wrote it.
    #[error("a part of a turn's log has version {0}, this program reads {BEFORE} and {VERSION}")]
    Version(u32),
    /// It is not what any version writes.
    #[error("a part of a turn's log cannot be read at byte {0}")]
    Malformed(usize),
}

/// Packs pieces into one part of a log: JSON text.
pub fn pack(chunks: &[Chunk]) -> String {
    let version = chunks.iter().map(|chunk| Run::of(chunk).since()).max().unwrap_or(BEFORE);
    let mut packed = format!("[{version}");
    let mut open = None;
    for chunk in chunks {
        let run = Run::of(chunk);
        if open != Some(run) {
            if open.is_some() {
                packed.push(']');
            }
            packed.push_str(",[\"");
            packed.push(run.letter());
            packed.push('"');
            if let Run::Summary(number) | Run::Call(number) | Run::Arguments(number) = run {
                packed.push(',');
                packed.push_str(&number.to_string());
            }
            open = Some(run);
        }
        match chunk {
            Chunk::Text(text)
            | Chunk::Refusal(text)
            | Chunk::ReasoningText(text)
            | Chunk::ReasoningEncrypted(text)
            | Chunk::Compaction(text)
            | Chunk::Annotation(text)
            | Chunk::ReasoningSummary { delta: text, .. }
            | Chunk::ToolArguments { delta: text, .. } => push_text(&mut packed, text),
            Chunk::ToolCall { call_id, name, .. } => {
                push_text(&mut packed, call_id);
                push_text(&mut packed, name);
            }
            Chunk::TextLogProbs { delta, logprobs } => {
                push_text(&mut packed, delta);
                packed.push(',');
                // Our own types always serialise.
                packed.push_str(&serde_json::to_string(&**logprobs).unwrap_or_else(|_| "[]".to_owned()));
            }
            Chunk::Retract { keep } => {
                packed.push(',');
                packed.push_str(&keep.to_string());
            }
        }
    }
    packed.push_str(if open.is_some() { "]]" } else { "]" });
    packed
}

/// `,"text"` with JSON's escapes.
fn push_text(packed: &mut String, text: &str) {
    packed.push_str(",\"");
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\' | '\0'..='\x1f')) {
        packed.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'\n' => packed.push_str("\\n"),
            mark @ (b'"' | b'\\') => {
                packed.push('\\');
                packed.push(char::from(mark));
            }
            control => packed.push_str(&format!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    packed.push_str(rest);
    packed.push('"');
}

/// Unpacks one part of a log.
pub fn unpack(packed: &str) -> Result<Vec<Chunk>, LogError> {
    let part: Part = serde_json::from_str(packed).map_err(|error| LogError::Malformed(error.column()))?;
    match part.version {
        BEFORE | VERSION => Ok(part.chunks),
        other => Err(LogError::Version(other)),
    }
}

/// What the pieces of a run have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Text,
    TextLogProbs,
    Retract,
    Annotation,
    Refusal,
    Summary(u16),
    Reasoning,
    Encrypted,
    Compaction,
    Call(u16),
    Arguments(u16),
}

impl Run {
    fn of(chunk: &Chunk) -> Self {
        match chunk {
            Chunk::Text(_) => Self::Text,
            Chunk::TextLogProbs { .. } => Self::TextLogProbs,
            Chunk::Retract { .. } => Self::Retract,
            Chunk::Annotation(_) => Self::Annotation,
            Chunk::Refusal(_) => Self::Refusal,
            Chunk::ReasoningSummary { part, .. } => Self::Summary(*part),
            Chunk::ReasoningText(_) => Self::Reasoning,
            Chunk::ReasoningEncrypted(_) => Self::Encrypted,
            Chunk::Compaction(_) => Self::Compaction,
            Chunk::ToolCall { index, .. } => Self::Call(*index),
            Chunk::ToolArguments { index, .. } => Self::Arguments(*index),
        }
    }

    /// The first version that knows it.
    fn since(self) -> u32 {
        match self {
            Self::TextLogProbs | Self::Retract | Self::Annotation => VERSION,
            _ => BEFORE,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Text => 't',
            Self::TextLogProbs => 'p',
            Self::Retract => 'd',
            Self::Annotation => 'n',
            Self::Refusal => 'r',
            Self::Summary(_) => 's',
            Self::Reasoning => 'x',
            Self::Encrypted => 'e',
            Self::Compaction => 'k',
            Self::Call(_) => 'c',
            Self::Arguments(_) => 'a',
        }
    }
}

struct Part {
    version: u32,
    chunks: Vec<Chunk>,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Runs;

        impl<'de> Visitor<'de> for Runs {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version and runs")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Part, A::Error> {
                let version = seq.next_element()?.ok_or_else(|| A::Error::custom("no version"))?;
                let mut chunks = Vec::new();
                if matches!(version, BEFORE | VERSION) {
                    while let Some(RunOf(run)) = seq.next_element()? {
                        chunks.extend(run);
                    }
                } else {
                    while seq.next_element::<IgnoredAny>()?.is_some() {}
                }
                Ok(Part { version, chunks })
            }
        }

        deserializer.deserialize_seq(Runs)
    }
}

struct RunOf(Vec<Chunk>);

impl<'de> Deserialize<'de> for RunOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces;

        impl<'de> Visitor<'de> for Pieces {
            type Value = RunOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a kind and its texts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RunOf, A::Error> {
                let kind: Cow<'de, str> = seq.next_element()?.ok_or_else(|| A::Error::custom("no kind"))?;
                let number: u16 = match &*kind {
                    "s" | "c" | "a" => seq.next_element()?.ok_or_else(|| A::Error::custom("no number"))?,
                    _ => 0,
                };
                let mut chunks = Vec::new();
                if kind == "d" {
                    while let Some(keep) = seq.next_element()? {
                        chunks.push(Chunk::Retract { keep });
                    }
                    return Ok(RunOf(chunks));
                }
                while let Some(text) = seq.next_element::<Arc<str>>()? {
                    chunks.push(match &*kind {
                        "t" => Chunk::Text(text),
                        "n" => Chunk::Annotation(text),
                        "r" => Chunk::Refusal(text),
                        "s" => Chunk::ReasoningSummary { part: number, delta: text },
                        "x" => Chunk::ReasoningText(text),
                        "e" => Chunk::ReasoningEncrypted(text),
                        "k" => Chunk::Compaction(text),
                        "a" => Chunk::ToolArguments { index: number, delta: text },
                        "c" => {
                            let name = seq.next_element()?.ok_or_else(|| A::Error::custom("no name"))?;
                            Chunk::ToolCall { index: number, call_id: text, name }
                        }
                        "p" => {
                            let logprobs: Option<Vec<LogProb>> = seq.next_element()?;
                            let logprobs =
                                logprobs.ok_or_else(|| A::Error::custom("no log probabilities"))?;
                            Chunk::TextLogProbs { delta: text, logprobs: logprobs.into() }
                        }
                        _ => return Err(A::Error::custom("no such kind")),
                    });
                }
                Ok(RunOf(chunks))
            }
        }

        deserializer.deserialize_seq(Pieces)
    }
}

#[cfg(test)]
mod tests;
