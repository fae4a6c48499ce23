//! What of a long conversation the model is shown.
//!
//! The cut stays where it is from turn to turn and moves only when the window is full, then by a quarter of it, so that
//! the provider's prompt cache keeps finding the same beginning.

use std::sync::Arc;

use crate::openresponses::{ApiError, Item, Truncation};

/// An item of the past, and what it costs to show.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its place on the thread.
    pub position: i64,
    pub tokens: u64,
    pub item: Arc<Item>,
}

/// What fits.
#[derive(Debug)]
pub struct Window {
    /// Of the past, oldest first.
    pub items: Vec<Arc<Item>>,
    /// From where on the thread is shown: the next turn begins from here.
    pub from: i64,
    /// Tokens of `items`.
    pub tokens: u64,
}

/// Chooses what is shown of `past` (oldest first), beside `fixed` tokens of instructions, tools and new input, leaving
/// `answer` tokens for what the model says, in a window of `size` tokens.
///
/// Errors: 400 `context_length_exceeded` if it does not fit and nothing may be left out, or if not even the new input
/// fits.
pub fn fit(
    past: &[Past],
    fixed: u64,
    answer: u64,
    size: u64,
    truncation: Truncation,
) -> Result<Window, ApiError> {
    let total: u64 = past.iter().map(|past| past.tokens).sum();
    let room = size.saturating_sub(answer).saturating_sub(fixed);
    if total <= room && fixed + answer <= size {
        return Ok(whole(past, 0, total));
    }
    if truncation == Truncation::Disabled || fixed + answer > size {
        return Err(exceeded(total + fixed, answer, size));
    }
    let step = (size / 4).max(1);
    let excess = total - room;
    // More than need be, so that the next turns can keep this cut.
    let mut drop = excess.next_multiple_of(step).min(total);
    loop {
        let start = together(past, start_after(past, drop));
        let left: u64 = past[start..].iter().map(|past| past.tokens).sum();
        if left <= room {
            return Ok(whole(past, start, left));
        }
        drop = (drop + step).min(total);
    }
}

fn whole(past: &[Past], start: usize, tokens: u64) -> Window {
    let from = past.get(start).map_or_else(
        || past.last().map_or(0, |last| last.position + 1),
        // Nothing left out: whatever comes before, should there be anything, is not shown either.
        |first| first.position,
    );
    Window { items: past[start..].iter().map(|past| Arc::clone(&past.item)).collect(), from, tokens }
}

/// The first item that is kept when at least `drop` tokens go.
fn start_after(past: &[Past], drop: u64) -> usize {
    let mut gone = 0;
    for (at, past) in past.iter().enumerate() {
        if gone >= drop {
            return at;
        }
        gone += past.tokens;
    }
    past.len()
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
