//! How likely the demo model holds its tokens: made up, and the same each time.

use super::answer::FILLER;
use crate::openresponses::{LogProb, TopLogProb};

/// Of one token, with so many of the likeliest in its place; it is the first of them itself.
pub(super) fn of(token: &str, top: u32) -> LogProb {
    let hash = token.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    // In thousandths, so that they are written in few digits.
    let least = 1 + hash % 500;
    let logprob = |rank: u32| -f64::from(least + 500 * rank) / 1_000.0;
    let others = FILLER.iter().cycle().skip(usize::try_from(hash).unwrap_or_default() % FILLER.len());
    let tokens = std::iter::once(token.to_owned()).chain(others.map(|word| format!(" {word}")));
    let top_logprobs = (0..top).zip(tokens).map(|(rank, token)| {
        let bytes = token.clone().into_bytes();
        TopLogProb { token, logprob: logprob(rank), bytes }
    });
    LogProb {
        token: token.to_owned(),
        logprob: logprob(0),
        bytes: token.as_bytes().to_vec(),
        top_logprobs: top_logprobs.collect(),
    }
}
