//! What of a long conversation the model is shown.
//!
//! The cut stays where it is from turn to turn and moves only when the window is full, then by a quarter of it, so that
//! the provider's prompt cache keeps finding the same beginning.

use std::sync::Arc;

pub mod pairs;

use crate::openresponses::{ApiError, Item, Truncation};

/// An item of the past, and what it costs to show.
#[derive(Clone, Debug)]
pub struct Past {
    /// Tokens of everything before it on its thread, shown or not. Counted from the thread's start, so that a cut at a
    /// multiple of something stays where it is while the thread grows.
    pub tokens_before: u64,
    pub tokens: u64,
    pub item: Arc<Item>,
}

/// Chooses what is shown of `past`: the end of a thread, oldest first, or the `whole` of it. Beside it stand `fixed`
/// tokens of instructions, tools and new input, and `answer` tokens are left for what the model says, in a window of
/// `size` tokens. Gives how many of the oldest are left out.
///
/// Errors: 400 `context_length_exceeded` if it does not fit and nothing may be left out, or if not even the new input
/// fits.
pub fn fit(
    past: &[Past],
    whole: bool,
    fixed: u64,
    answer: u64,
    size: u64,
    truncation: Truncation,
) -> Result<usize, ApiError> {
    let loaded = past.iter().map(|past| past.tokens).sum::<u64>();
    let total = loaded + past.first().map_or(0, |first| first.tokens_before);
    // What was deleted counts in `tokens_before`, but takes no room.
    let needed = if whole { loaded } else { total };
    let room = size.saturating_sub(answer).saturating_sub(fixed);
    if needed <= room && fixed + answer <= size {
        return Ok(0);
    }
    if truncation == Truncation::Disabled || fixed + answer > size {
        return Err(exceeded(needed + fixed, answer, size));
    }
    // More than need be, so that the next turns can keep this cut.
    let step = (size / 4).max(1);
    let mut cut = total.saturating_sub(room).next_multiple_of(step);
    loop {
        let start = past.iter().position(|past| past.tokens_before >= cut).unwrap_or(past.len());
        let start = together(past, start);
        if past[start..].iter().map(|past| past.tokens).sum::<u64>() <= room {
            return Ok(start);
        }
        cut += step;
    }
}

/// Moves a cut forward until it parts no tool call from its output, and no reasoning from what it led to.
fn together(past: &[Past], mut start: usize) -> usize {
    while let Some(first) = past.get(start) {
        let parted = match &*first.item {
            Item::FunctionCallOutput(output) => !past[start..].iter().any(
                |later| matches!(&*later.item, Item::FunctionCall(call) if call.call_id == output.call_id),
            ),
            // A call whose reasoning or sibling calls were cut away would be refused by some providers.
            Item::FunctionCall(_) => {
                start > 0 && matches!(&*past[start - 1].item, Item::Reasoning(_) | Item::FunctionCall(_))
            }
            _ => false,
        };
        if !parted && !orphans_later(past, start) {
            return start;
        }
        start += 1;
    }
    start
}

/// Whether an output further on belongs to a call before the cut.
fn orphans_later(past: &[Past], start: usize) -> bool {
    past[start..].iter().any(|later| match &*later.item {
        Item::FunctionCallOutput(output) => past[..start].iter().any(
            |before| matches!(&*before.item, Item::FunctionCall(call) if call.call_id == output.call_id),
        ),
        _ => false,
    })
}

fn exceeded(input: u64, answer: u64, size: u64) -> ApiError {
    let message = format!(
        "This model's context window is {size} tokens. The input is about {input} tokens and {answer} are kept for the \
         answer. Shorten the input, lower 'max_output_tokens', set 'truncation' to 'auto', or compact the conversation."
    );
    ApiError::invalid("context_length_exceeded", "input", message)
}

#[cfg(test)]
mod tests;
