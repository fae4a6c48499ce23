//! What of a long conversation the model is shown.
//!
//! The cut stays where it is from turn to turn and moves only when the window is full, then by a quarter of it, so that
//! the provider's prompt cache keeps finding the same beginning.

use std::collections::HashMap;
use std::sync::Arc;

pub mod pairs;

use crate::llm::estimate_item;
use crate::openresponses::{ApiError, Item, Message, Role};

/// An item of the past, and what it costs to show.
#[derive(Clone, Debug)]
pub struct Past {
    /// Tokens of everything before it on its thread, shown or not. Counted from the thread's start, so that a cut at a
    /// multiple of something stays where it is while the thread grows.
    pub tokens_before: u64,
    pub tokens: u64,
    pub item: Arc<Item>,
}

impl Past {
    /// Items that stand nowhere else, in order.
    pub fn of(items: impl Iterator<Item = Arc<Item>>) -> Vec<Self> {
        let mut tokens_before = 0;
        let counted = items.map(|item| {
            let past = Self { tokens_before, tokens: estimate_item(&item), item };
            tokens_before += past.tokens;
            past
        });
        counted.collect()
    }
}

/// Chooses what is shown of `past`: the end of a thread, oldest first, or the `whole` of it. Beside it stand `fixed`
/// tokens of instructions, tools and new input, and `answer` tokens are left for what the model says, in a window of
/// `size` tokens. Gives how many of the oldest are left out.
pub fn fit(past: &[Past], whole: bool, fixed: u64, answer: u64, size: u64) -> usize {
    let loaded = past.iter().map(|past| past.tokens).sum::<u64>();
    let total = loaded + past.first().map_or(0, |first| first.tokens_before);
    // What was deleted counts in `tokens_before`, but takes no room.
    let needed = if whole { loaded } else { total };
    let room = size.saturating_sub(answer).saturating_sub(fixed);
    if needed <= room {
        return 0;
    }
    // More than need be, so that the next turns can keep this cut.
    let step = (size / 4).max(1);
    let may_begin = cuts(past);
    let mut cut = total.saturating_sub(room).next_multiple_of(step);
    loop {
        let start = past.iter().position(|past| past.tokens_before >= cut).unwrap_or(past.len());
        let start = (start..past.len()).find(|start| may_begin[*start]).unwrap_or(past.len());
        if past[start..].iter().map(|past| past.tokens).sum::<u64>() <= room {
            return start;
        }
        cut += step;
    }
}

/// Leaves out the oldest of `items` until the others fit into `room` tokens, but for what the system and the developer
/// said, which is part of every request. What is newest stays, however long, with the calls that it answers.
pub fn fit_input(items: Vec<Arc<Item>>, room: u64) -> Vec<Arc<Item>> {
    let is_instruction =
        |item: &Item| matches!(item, Item::Message(Message { role: Role::System | Role::Developer, .. }));
    let past = Past::of(items.into_iter());
    let may_begin = cuts(&past);
    let mut left = past.iter().map(|past| past.tokens).sum::<u64>();
    let mut start = 0;
    for (at, item) in past.iter().enumerate() {
        if may_begin[at] {
            start = at;
            if left <= room {
                break;
            }
        }
        if !is_instruction(&item.item) {
            left -= item.tokens;
        }
    }
    let kept = past.into_iter().enumerate().filter(|(at, past)| *at >= start || is_instruction(&past.item));
    kept.map(|(_, past)| past.item).collect()
}

/// Where a window may begin, before each item and behind the last: so that it parts no tool call from its output, and no
/// reasoning from what it led to.
fn cuts(past: &[Past]) -> Vec<bool> {
    // How many outputs more than at the place before have their call on the other side of a cut there.
    let mut parted = vec![0_i64; past.len() + 2];
    let mut calls: HashMap<&str, usize> = HashMap::new();
    for (at, past) in past.iter().enumerate() {
        match &*past.item {
            Item::FunctionCall(call) => {
                calls.insert(&call.call_id, at);
            }
            Item::FunctionCallOutput(output) => {
                let first = calls.get(output.call_id.as_str()).map_or(at, |call| call + 1);
                parted[first] += 1;
                parted[at + 1] -= 1;
            }
            _ => {}
        }
    }
    let mut open = 0;
    let whole = (0..=past.len()).map(|at| {
        open += parted[at];
        // A call whose reasoning or sibling calls were cut away would be refused by some providers.
        let continues = at > 0
            && past.get(at).is_some_and(|past| matches!(*past.item, Item::FunctionCall(_)))
            && matches!(*past[at - 1].item, Item::Reasoning(_) | Item::FunctionCall(_));
        open == 0 && !continues
    });
    whole.collect()
}

/// The code of what is too long for its model.
pub const EXCEEDED: &str = "context_length_exceeded";

/// 400: the input has at `least` so many tokens, which is more than the model takes.
pub fn exceeded(least: u64, size: u64) -> ApiError {
    let message = format!(
        "This model's context window is {size} tokens, and the input has {least} or more. Shorten the input, set \
         'truncation' to 'auto', or compact the conversation."
    );
    ApiError::invalid(EXCEEDED, "input", message)
}

#[cfg(test)]
mod tests;
