mod bodies;
mod chunking;
mod events;
mod streams;

use uuid::Uuid;

use super::super::error::LlmError;
use super::super::{Chunk, Finish, TokenUsage, Upstream};
use super::*;

const RESPONSES: ProviderKind = ProviderKind::Responses;
const ATTEMPT: Uuid = Uuid::from_u128(7);

/// What a parser makes of a whole stream, cut as given.
fn read(provider: ProviderKind, chunks: &[&[u8]]) -> (Vec<Upstream>, Result<(), LlmError>) {
    let (mut found, end) = read_all(provider, chunks);
    found.retain(|upstream| !matches!(upstream, Upstream::RawUsage(_)));
    (found, end)
}

/// With its usage in the provider's own words too.
fn read_all(provider: ProviderKind, chunks: &[&[u8]]) -> (Vec<Upstream>, Result<(), LlmError>) {
    let mut parser = Parser::new(provider, "dep", ATTEMPT, 1 << 20);
    let mut found = Vec::new();
    for chunk in chunks {
        if let Err(error) = parser.push(chunk, &mut |upstream| found.push(upstream)) {
            return (found, Err(error));
        }
    }
    let end = parser.finish(&mut |upstream| found.push(upstream));
    (found, end)
}

fn whole(provider: ProviderKind, text: &str) -> Vec<Upstream> {
    let (found, end) = read(provider, &[text.as_bytes()]);
    end.unwrap_or_else(|error| panic!("{error:?} after {found:?}"));
    found
}

/// `data:` lines of chat completions.
fn data(frames: &[&str]) -> String {
    frames.iter().map(|frame| format!("data: {frame}\n\n")).collect()
}

/// Events named as in their `type`.
fn typed(frames: &[&str]) -> String {
    frames
        .iter()
        .map(|frame| {
            let value: serde_json::Value = serde_json::from_str(frame).unwrap();
            format!("event: {}\ndata: {frame}\n\n", value["type"].as_str().unwrap())
        })
        .collect()
}

fn said(delta: &str) -> Upstream {
    Upstream::Chunk(Chunk::Text(delta.into()))
}

fn call(index: u16, call_id: &str, name: &str) -> Upstream {
    Upstream::Chunk(Chunk::ToolCall { index, call_id: call_id.into(), name: name.into() })
}

fn arguments(index: u16, delta: &str) -> Upstream {
    Upstream::Chunk(Chunk::ToolArguments { index, delta: delta.into() })
}

fn tokens(input: u64, cached: u64, output: u64, reasoning: u64) -> Upstream {
    Upstream::Usage(TokenUsage { input, cached, cache_written: 0, output, reasoning })
}

fn finish(finish: Finish) -> Upstream {
    Upstream::Finish(finish)
}
