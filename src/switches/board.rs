//! The switches as one process knows them, and how they are changed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::Switches;
use crate::azure::{BlobVersion, Container, Creation, Storage, StorageError};
use crate::jobs::retry::Backoff;
use crate::tasks::Tasks;

/// The blob's name, in the container of our own state.
pub const BLOB: &str = "switches.json";

/// Reading switches must not hold up a delivery for as long as a sender waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a change is tried while others change something: more than there are operators at once.
const TRIES: u32 = 50;
const PAUSE: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_millis(200) };

/// Why the switches could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("the switches could not be reached: {0}")]
    Storage(#[from] StorageError),
    #[error("the blob {BLOB} is not what switches are written as: line {line}, column {column}")]
    Unreadable { line: usize, column: usize },
    #[error("the switches could not be written as JSON")]
    Unwritable,
    #[error("others changed the switches in each of {TRIES} tries; nothing was changed here, try again")]
    Busy,
    #[error("no storage is set here (AzureWebJobsStorage), so there are no switches")]
    NoStorage,
}

/// What is known of the switches, shared by all who ask. Nobody is given what is older than `SWITCH_CACHE`, unless it
/// cannot be read again.
#[derive(Clone, Debug)]
pub struct Switchboard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// To read, with less patience, and to write. `None`: there is no storage, hence no switch.
    blobs: Option<(Container, Container)>,
    max_age: Duration,
    known: RwLock<Known>,
    reading: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// What was read last.
    switches: Option<Arc<Switches>>,
    /// When reading was last tried.
    tried_at: Option<Instant>,
    /// Whether it failed then.
    failed: bool,
}

impl Known {
    fn was_tried_within(&self, age: Duration) -> bool {
        self.tried_at.is_some_and(|at| at.elapsed() < age)
    }
}

impl Switchboard {
    /// Reads nothing yet. Without storage nothing can be switched.
    pub fn new(storage: Option<&Storage>, container: &str, max_age: Duration) -> Self {
        let blobs = storage.map(|storage| {
            (storage.with_timeout(PATIENCE).container(container), storage.container(container))
        });
        Self(Arc::new(Inner { blobs, max_age, known: RwLock::default(), reading: Mutex::default() }))
    }

    /// A board without switches.
    pub fn empty() -> Self {
        Self::new(None, BLOB, Duration::ZERO)
    }

    /// The last known switches, however old. `None`: this process has never been able to read them, so anything may be
    /// stopped.
    pub fn known(&self) -> Option<Arc<Switches>> {
        if self.0.blobs.is_none() {
            return Some(Arc::default());
        }
        self.state().switches
    }

    /// The switches, at most `max_age` old unless they cannot be read.
    pub async fn current(&self) -> Option<Arc<Switches>> {
        let Some((container, _)) = &self.0.blobs else { return Some(Arc::default()) };
        self.current_by(async { read(container).await.map_err(|error| error.to_string()) }).await
    }

    /// One caller at a time reads. From half of `max_age` on one does so early, and the others go on with what is known;
    /// past `max_age` all wait for the one, no longer than it has patience. A failed read is logged and not tried again
    /// for `max_age`, so that a dead storage account does not cost every request a timeout.
    async fn current_by<F>(&self, read: F) -> Option<Arc<Switches>>
    where
        F: Future<Output = Result<Switches, String>> + Send,
    {
        let asked_at = Instant::now();
        let max_age = self.0.max_age;
        let known = self.state();
        let turn = if known.was_tried_within(max_age) {
            if known.failed || known.was_tried_within(max_age / 2) {
                return known.switches;
            }
            match self.0.reading.try_lock() {
                Ok(turn) => turn,
                Err(_) => return known.switches,
            }
        } else {
            self.0.reading.lock().await
        };
        // Whoever had the turn before may have read for this caller too, however short `max_age` is.
        let known = self.state();
        let was_read = known.was_tried_within(max_age / 2) || known.tried_at.is_some_and(|at| at >= asked_at);
        let switches = if was_read { known.switches } else { self.learn(read.await) };
        drop(turn);
        switches
    }

    fn learn(&self, read: Result<Switches, String>) -> Option<Arc<Switches>> {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        known.failed = read.is_err();
        match read {
            Ok(read) => known.switches = Some(Arc::new(read)),
            Err(error) => tracing::warn!(
                code = "switches_unreadable",
                error,
                known = known.switches.is_some(),
                "switches could not be read; the last known state stays in force, and without one nothing is processed"
            ),
        }
        known.tried_at = Some(Instant::now());
        known.switches.clone()
    }

    /// Keeps what [`Switchboard::known`] gives fresh in the background, so that no request waits for storage.
    pub fn keep_fresh(&self, tasks: &Tasks) {
        /// However short `SWITCH_CACHE` is.
        const OFTEN: Duration = Duration::from_millis(100);
        if self.0.blobs.is_none() {
            return;
        }
        let board = self.clone();
        // Twice as often as promised: reading takes its time.
        let period = (self.0.max_age / 2).max(OFTEN);
        tasks.spawn_until_stopped("switches", async move {
            let mut tick = tokio::time::interval(period);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let read = board.read().await.map_err(|error| error.to_string());
                drop(board.learn(read));
            }
        });
    }

    /// The switches as they are written now.
    pub async fn read(&self) -> Result<Switches, BoardError> {
        let (container, _) = self.0.blobs.as_ref().ok_or(BoardError::NoStorage)?;
        read(container).await
    }

    /// Applies a change to the switches, whoever else changes them at the same time: it is applied again to what the
    /// others wrote, until it is written over what it was applied to. Gives what `change` gave that time.
    pub async fn change<T>(&self, mut change: impl FnMut(&mut Switches) -> T) -> Result<T, BoardError> {
        let (_, container) = self.0.blobs.as_ref().ok_or(BoardError::NoStorage)?;
        let mut sent: Option<(Bytes, T)> = None;
        for tries in 1..=TRIES {
            let (text, version) = container.get_versioned(BLOB).await?.unzip();
            match sent.take() {
                // It was written, and only the answer to that was lost.
                Some((written, came_of_it)) if text.as_ref() == Some(&written) => return Ok(came_of_it),
                _ => {}
            }
            let before = text.as_deref().map(parsed).transpose()?.unwrap_or_default();
            let mut after = before.clone();
            let came_of_it = change(&mut after);
            if after == before {
                return Ok(came_of_it);
            }
            let written = serde_json::to_vec_pretty(&after).map_err(|_| BoardError::Unwritable)?;
            let written = Bytes::from(written);
            if write_over(container, version.as_ref(), written.clone()).await? {
                drop(self.learn(Ok(after)));
                return Ok(came_of_it);
            }
            sent = Some((written, came_of_it));
            tokio::time::sleep(PAUSE.delay(tries)).await;
        }
        Err(BoardError::Busy)
    }

    fn state(&self) -> Known {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn read(container: &Container) -> Result<Switches, BoardError> {
    match container.get(BLOB).await? {
        Some(text) => parsed(&text),
        None => Ok(Switches::default()),
    }
}

async fn write_over(
    container: &Container,
    version: Option<&BlobVersion>,
    text: Bytes,
) -> Result<bool, StorageError> {
    const JSON: &str = "application/json";
    Ok(match version {
        Some(version) => container.put_over(BLOB, version, text, JSON).await?,
        None => container.put_new(BLOB, text, JSON).await? == Creation::Created,
    })
}

/// What was written, by this version or another. A mistake is told by its place: the text is an operator's.
fn parsed(text: &[u8]) -> Result<Switches, BoardError> {
    serde_json::from_slice(text)
        .map_err(|error| BoardError::Unreadable { line: error.line(), column: error.column() })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// With storage that nobody is asked for.
    fn board(max_age: Duration) -> Switchboard {
        let settings = crate::azure::StorageSettings::from_connection_string("UseDevelopmentStorage=true");
        let storage = Storage::new(settings.expect("settings")).expect("storage");
        Switchboard::new(Some(&storage), "colloquy", max_age)
    }

    #[tokio::test]
    async fn the_last_known_state_survives_a_failed_read() {
        let board = board(Duration::ZERO);
        let mut known = Switches::default();
        known.sources.insert("stripe".to_owned(), super::super::tests::switch(None, None));
        let away = || async { Err("storage is away".into()) };
        assert_eq!(board.current_by(away()).await, None, "nothing is known yet");
        assert_eq!(board.known(), None);
        assert_eq!(board.current_by(async { Ok(known.clone()) }).await.as_deref(), Some(&known));
        assert_eq!(board.current_by(away()).await.as_deref(), Some(&known));
        assert_eq!(board.known().as_deref(), Some(&known));
        assert!(Switchboard::empty().known().is_some(), "without storage nothing can be stopped");
    }

    #[tokio::test]
    async fn within_its_age_the_blob_is_not_read_again() {
        let board = board(Duration::from_secs(60));
        board.current_by(async { Ok(Switches::default()) }).await;
        board.current_by(async { panic!("read again") }).await;
    }

    fn stopping(source: &str) -> Switches {
        let mut switches = Switches::default();
        switches.sources.insert(source.to_owned(), super::super::tests::switch(None, None));
        switches
    }

    impl Switchboard {
        /// As if reading had been tried that much earlier.
        fn age(&self, by: Duration) {
            let mut known = self.0.known.write().expect("not poisoned");
            known.tried_at = known.tried_at.and_then(|at| at.checked_sub(by));
            assert!(known.tried_at.is_some());
        }
    }

    const AGE: Duration = Duration::from_secs(60);

    /// The answers of one who reads slowly and of one who asks meanwhile, and whether that one had to wait.
    async fn two_ask(board: &Switchboard, read: Result<Switches, String>) -> (Switches, Switches, bool) {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let slow = board.current_by(async { answered.await.expect("an answer") });
        let other = board.current_by(async { panic!("read twice") });
        tokio::pin!(slow, other);
        assert!(slow.as_mut().now_or_never().is_none(), "it reads");
        let at_once = other.as_mut().now_or_never();
        answer.send(read).expect("somebody reads");
        let slow = slow.await.expect("known");
        let waited = at_once.is_none();
        let other = match at_once {
            Some(switches) => switches,
            None => other.await,
        };
        (Switches::clone(&slow), Switches::clone(&other.expect("known")), waited)
    }

    #[tokio::test]
    async fn past_their_age_nobody_is_given_old_switches() {
        let board = board(AGE);
        let (before, after) = (stopping("stripe"), stopping("github"));
        board.current_by(async { Ok(before.clone()) }).await;
        board.age(AGE);
        assert_eq!(two_ask(&board, Ok(after.clone())).await, (after.clone(), after, true));
    }

    #[tokio::test]
    async fn from_half_their_age_one_reads_and_nobody_waits_for_it() {
        let board = board(AGE);
        let (before, after) = (stopping("stripe"), stopping("github"));
        board.current_by(async { Ok(before.clone()) }).await;
        board.age(AGE / 2);
        assert_eq!(two_ask(&board, Ok(after.clone())).await, (after, before, false));
    }

    #[tokio::test]
    async fn a_failed_read_is_waited_for_once() {
        let board = board(AGE);
        let before = stopping("stripe");
        board.current_by(async { Ok(before.clone()) }).await;
        board.age(AGE);
        let away = Err("storage is away".to_owned());
        assert_eq!(two_ask(&board, away.clone()).await, (before.clone(), before.clone(), true));
        board.age(AGE / 2);
        let again = board.current_by(async { panic!("tried again") }).await;
        assert_eq!(again.as_deref(), Some(&before));
        board.age(AGE / 2);
        assert_eq!(two_ask(&board, away).await, (before.clone(), before, true));
    }
}
