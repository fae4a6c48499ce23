//! One who watches a turn as chunks of a chat completion.

use std::sync::Arc;

use super::answer::Frames;
use crate::conversation::engine::Turn;
use crate::conversation::live::{Pieces, Seen};

/// What a viewer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More may follow.
    More,
    /// That was all.
    End,
}

/// Follows a turn from its first piece.
#[derive(Debug)]
pub struct ChatViewer {
    turn: Arc<Turn>,
    pieces: Pieces,
    frames: Frames,
}

impl ChatViewer {
    /// `include_usage`: the last frame tells the tokens.
    pub fn new(turn: Arc<Turn>, include_usage: bool) -> Self {
        let pieces = Pieces::new(Arc::clone(&turn.live));
        let frames = Frames::new(&turn.begun, include_usage);
        Self { turn, pieces, frames }
    }

    /// Appends to `out` everything that may be seen and was not yet. Does not wait.
    pub fn poll(&mut self, out: &mut Vec<u8>) -> Progress {
        self.frames.begin(out);
        match self.pieces.poll(|chunk| self.frames.push(chunk, out)) {
            Seen::More => Progress::More,
            Seen::End(response) => {
                self.frames.finish(&response, self.turn.failure(), out);
                Progress::End
            }
            // Only stored turns change hands; without its end mark the stream is a broken one in any case.
            Seen::Cut(_) => Progress::End,
        }
    }

    /// Waits until there may be more to see.
    pub async fn changed(&mut self) {
        self.pieces.changed().await;
    }
}
