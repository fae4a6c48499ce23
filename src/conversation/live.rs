//! A turn as it runs: its pieces in memory, and those who watch.
//!
//! A viewer is a cursor over the pieces. It has no buffer of its own: a slow one only reads later what is kept anyway,
//! for as long as the turn is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::assembler::{Assembler, End};
use crate::llm::Chunk;
use crate::llm::retraction::redact;
use crate::openresponses::{Encoded, Event, Form, Response};

/// Pieces that a viewer writes out at once: one that comes late or reads slowly has no more than their events in memory.
const AT_ONCE: usize = 256;

/// What the owner of a turn and its viewers share.
#[derive(Debug)]
pub struct Live {
    state: Mutex<State>,
    /// Counts changes; every viewer waits on it.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Chunk>,
    /// How many of them may be seen: those that are durable, or all.
    shown: usize,
    end: Option<Arc<End>>,
    result: Option<Arc<Response>>,
    cut: Option<Cut>,
    viewers: usize,
    unlogged: bool,
    /// Some of what was said was taken back.
    retracted: bool,
}

impl State {
    fn keep(&mut self, chunks: impl IntoIterator<Item = Chunk>) {
        let before = self.chunks.len();
        self.chunks.extend(chunks);
        if self.chunks.iter().skip(before).any(|chunk| matches!(chunk, Chunk::Retract { .. })) {
            self.retracted = redact(&mut self.chunks);
        }
    }

    /// What may be seen behind the first `seen` pieces, and whether that is all.
    fn next(&self, seen: usize) -> (Vec<Chunk>, bool) {
        let upto = self.shown.min(seen + AT_ONCE);
        (self.chunks.get(seen..upto).unwrap_or_default().to_vec(), upto >= self.shown)
    }
}

/// Why viewers are sent away although the turn goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Another process has the turn now.
    LostLease,
    /// This process is stopping.
    Draining,
    /// It was deleted, or its conversation was: it is not there any more, here as anywhere.
    Deleted,
}

impl Default for Live {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Live {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding it cannot have left it half-changed: every change is one assignment or push.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Keeps pieces without showing them yet. Gives how many there are now.
    pub fn keep(&self, chunks: impl IntoIterator<Item = Chunk>) -> usize {
        let mut state = self.state();
        state.keep(chunks);
        state.chunks.len()
    }

    /// Shows the first `upto` pieces.
    pub fn show(&self, upto: usize) {
        {
            let mut state = self.state();
            state.shown = state.shown.max(upto.min(state.chunks.len()));
        }
        self.tell();
    }

    /// Keeps pieces and shows all there are.
    pub fn keep_and_show(&self, chunks: impl IntoIterator<Item = Chunk>) {
        {
            let mut state = self.state();
            state.keep(chunks);
            state.shown = state.chunks.len();
        }
        self.tell();
    }

    /// Shows everything and the end, and keeps the response as it ended. The first end stands.
    pub fn end(&self, end: End, result: Response) {
        {
            let mut state = self.state();
            state.shown = state.chunks.len();
            if state.end.is_none() {
                state.end = Some(Arc::new(end));
                state.result = Some(Arc::new(result));
            }
        }
        self.tell();
    }

    /// The response as it ended.
    pub fn result(&self) -> Option<Arc<Response>> {
        self.state().result.clone()
    }

    /// Why viewers were sent away, if they were.
    pub fn was_cut(&self) -> Option<Cut> {
        self.state().cut
    }

    /// Whether it has neither ended here nor gone elsewhere.
    pub fn is_running(&self) -> bool {
        let state = self.state();
        state.result.is_none() && state.cut.is_none()
    }

    /// Counts as a viewer for as long as what it gives lives.
    pub fn watch(self: &Arc<Self>) -> Watching {
        self.state().viewers += 1;
        self.tell();
        Watching(Arc::clone(self))
    }

    /// Sends every viewer away.
    pub fn cut(&self, why: Cut) {
        self.state().cut.get_or_insert(why);
        self.tell();
    }

    /// The stream goes on although the log hangs: what is seen from here cannot be resumed after a crash.
    pub fn set_unlogged(&self) {
        self.state().unlogged = true;
        self.tell();
    }

    /// How it ended. `None`: it goes on, or was cut.
    pub fn ended(&self) -> Option<Arc<End>> {
        self.state().end.clone()
    }

    /// Whether some of what was said was taken back.
    pub fn is_retracted(&self) -> bool {
        self.state().retracted
    }

    /// How many are watching.
    pub fn viewers(&self) -> usize {
        self.state().viewers
    }

    /// Told of every change: a piece shown, a viewer come or gone, the end.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All pieces so far, shown or not.
    pub fn chunks(&self) -> Vec<Chunk> {
        self.state().chunks.clone()
    }

    /// The pieces behind the first `from`, shown or not.
    pub fn chunks_from(&self, from: usize) -> Vec<Chunk> {
        self.state().chunks.get(from..).unwrap_or_default().to_vec()
    }

    /// How many pieces there are, shown or not.
    pub fn len(&self) -> usize {
        self.state().chunks.len()
    }

    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Somebody is watching.
#[derive(Debug)]
pub struct Watching(Arc<Live>);

impl Drop for Watching {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.viewers = state.viewers.saturating_sub(1);
        drop(state);
        self.0.tell();
    }
}

/// One who watches a turn event by event.
#[derive(Debug)]
pub struct Viewer {
    live: Arc<Live>,
    _watching: Watching,
    changed: watch::Receiver<u64>,
    assembler: Option<Assembler>,
    form: Form,
    /// Events up to this number were seen before.
    after: Option<u64>,
    seen: usize,
    /// There is more to see already.
    behind: bool,
    begun: bool,
    told_unlogged: bool,
    /// What was polled last is in no log, and its form has no place to say so.
    unlogged_from_here: bool,
}

/// What a viewer got.
#[derive(Debug, PartialEq)]
pub enum Seen {
    /// More may follow.
    More,
    /// That was the last event; the response as it ended.
    End(Box<Response>),
    /// Nothing more comes from this process; the stream can be resumed.
    Cut(Cut),
}

impl PartialEq for Response {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.status == other.status
    }
}

impl Viewer {
    /// Watches from the event after number `after`, or from the first.
    pub fn new(live: Arc<Live>, assembler: Assembler, form: impl Into<Form>, after: Option<u64>) -> Self {
        let changed = live.changes();
        Self {
            _watching: live.watch(),
            live,
            changed,
            assembler: Some(assembler),
            form: form.into(),
            after,
            seen: 0,
            behind: false,
            begun: false,
            told_unlogged: false,
            unlogged_from_here: false,
        }
    }

    /// Appends to `out` what may be seen and was not yet: a piece of it, if it is much. Does not wait.
    pub fn poll(&mut self, out: &mut Vec<u8>) -> Seen {
        self.changed.borrow_and_update();
        let Some(assembler) = &mut self.assembler else { return Seen::Cut(Cut::Draining) };
        let ((new, all), end, cut, unlogged) = {
            let state = self.live.state();
            (state.next(self.seen), state.end.clone(), state.cut, state.unlogged)
        };
        self.behind = !all;
        let (form, after) = (self.form, self.after);
        if cut == Some(Cut::Deleted) {
            // Over a WebSocket errors have another form.
            if form.encoded == Encoded::Sse {
                assembler
                    .deleted(after, &mut |number: u64, event: &Event<'_>| event.write(number, form, out));
            }
            return Seen::Cut(Cut::Deleted);
        }
        // Before the first event that no log has.
        if unlogged && !std::mem::replace(&mut self.told_unlogged, true) {
            match form.encoded {
                Encoded::Sse => out.extend_from_slice(b": unlogged\n\n"),
                Encoded::Json => self.unlogged_from_here = true,
            }
        }
        let mut sink = |number: u64, event: &Event<'_>| {
            if after.is_none_or(|after| number > after) {
                event.write(number, form, out);
                if form.encoded == Encoded::Json {
                    out.extend_from_slice(b"\n");
                }
            }
        };
        if !self.begun {
            self.begun = true;
            assembler.begin(&mut sink);
        }
        for chunk in &new {
            assembler.push(chunk, &mut sink);
        }
        self.seen += new.len();
        if self.behind {
            return Seen::More;
        }
        if let Some(end) = end {
            let finished = self.assembler.take().map(|assembler| assembler.finish(&end, &mut sink));
            return match finished {
                Some((response, _)) => Seen::End(Box::new(response)),
                None => Seen::Cut(Cut::Draining),
            };
        }
        cut.map_or(Seen::More, Seen::Cut)
    }

    /// Whether its viewer is to be told, before what was polled last, that the stream goes on unlogged. Once.
    pub fn goes_on_unlogged(&mut self) -> bool {
        std::mem::take(&mut self.unlogged_from_here)
    }

    /// Waits until there may be more to see.
    pub async fn changed(&mut self) {
        if !self.behind {
            // The sender lives as long as the `Live` this viewer holds.
            drop(self.changed.changed().await);
        }
    }
}

/// One who watches a turn piece by piece.
#[derive(Debug)]
pub struct Pieces {
    live: Arc<Live>,
    _watching: Watching,
    changed: watch::Receiver<u64>,
    seen: usize,
    /// There is more to see already.
    behind: bool,
}

impl Pieces {
    /// Watches from the first piece.
    pub fn new(live: Arc<Live>) -> Self {
        let changed = live.changes();
        Self { _watching: live.watch(), live, changed, seen: 0, behind: false }
    }

    /// Shows `each` what may be seen and was not yet: some of it, if it is much. Does not wait.
    pub fn poll(&mut self, mut each: impl FnMut(&Chunk)) -> Seen {
        self.changed.borrow_and_update();
        let ((new, all), result, cut) = {
            let state = self.live.state();
            (state.next(self.seen), state.result.clone(), state.cut)
        };
        new.iter().for_each(&mut each);
        self.seen += new.len();
        self.behind = !all;
        if self.behind {
            return Seen::More;
        }
        match (result, cut) {
            (Some(response), _) => Seen::End(Box::new((*response).clone())),
            (None, Some(cut)) => Seen::Cut(cut),
            (None, None) => Seen::More,
        }
    }

    /// Waits until there may be more to see.
    pub async fn changed(&mut self) {
        if !self.behind {
            // The sender lives as long as the `Live` this viewer holds.
            drop(self.changed.changed().await);
        }
    }
}

#[cfg(test)]
mod tests;
