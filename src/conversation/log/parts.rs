//! How far a turn's log has come.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which chunks stand in which part of a turn's log. Parts that the database lost are sent again exactly as they were:
/// others may have read them.
#[derive(Debug, Default)]
pub struct LogParts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Where each part ends.
    ends: Vec<usize>,
    /// How many of them are in the log.
    logged: usize,
}

impl State {
    fn chunks(&self) -> usize {
        self.logged.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0)
    }
}

/// What is to be appended next.
#[derive(Debug, PartialEq, Eq)]
pub struct NextPart {
    pub part: i32,
    pub chunks: Range<usize>,
}

impl LogParts {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many chunks are in the log.
    pub fn chunks(&self) -> usize {
        self.state().chunks()
    }

    /// How many parts.
    pub fn parts(&self) -> i32 {
        number(self.state().logged)
    }

    /// The next part of a turn with so many chunks, if there is one.
    pub fn next(&self, chunks: usize) -> Option<NextPart> {
        let state = self.state();
        let start = state.chunks();
        let end = state.ends.get(state.logged).copied().unwrap_or(chunks);
        (start < end).then(|| NextPart { part: number(state.logged), chunks: start..end })
    }

    /// A part is in the log, and with it all chunks before `end`.
    pub fn stored(&self, part: i32, end: usize) {
        let mut state = self.state();
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        if part == state.ends.len() {
            state.ends.push(end);
        }
        state.logged = part.saturating_add(1).min(state.ends.len());
    }

    /// All there is was read from the log, whatever its parts.
    pub fn was_read(&self, chunks: usize) {
        let mut state = self.state();
        state.ends = if chunks > 0 { vec![chunks] } else { Vec::new() };
        state.logged = state.ends.len();
    }

    /// The log ends before this part.
    pub fn again(&self, from: i32) {
        let mut state = self.state();
        state.logged = usize::try_from(from).unwrap_or(0).min(state.logged);
    }

    /// Whether parts that were logged once are to be logged again.
    pub fn is_behind(&self) -> bool {
        let state = self.state();
        state.logged < state.ends.len()
    }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_logged_again_as_it_was() {
        let log = LogParts::default();
        let next = |part, chunks| Some(NextPart { part, chunks });
        assert_eq!(log.next(0), None);
        for (part, end) in [(0, 2), (1, 5), (2, 6)] {
            assert_eq!(log.next(end), next(part, log.chunks()..end));
            log.stored(part, end);
        }
        assert_eq!((log.next(6), log.parts(), log.is_behind()), (None, 3, false));
        log.again(1);
        assert_eq!((log.chunks(), log.is_behind()), (2, true));
        assert_eq!(log.next(9), next(1, 2..5));
        log.stored(1, 5);
        // Told twice.
        log.again(1);
        log.stored(1, 5);
        assert_eq!(log.next(9), next(2, 5..6));
        log.stored(2, 6);
        assert_eq!((log.next(9), log.is_behind()), (next(3, 6..9), false));
        log.again(7);
        assert_eq!(log.parts(), 3, "nothing is lost that was never there");
        for (chunks, parts) in [(0, 0), (4, 1)] {
            log.was_read(chunks);
            assert_eq!((log.next(chunks), log.parts(), log.chunks()), (None, parts, chunks));
        }
    }
}
