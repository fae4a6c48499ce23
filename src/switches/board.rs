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

/// What is known of the switches, shared by all who ask. Read again when it is older than `SWITCH_CACHE`.
#[derive(Clone, Debug)]
pub struct Switchboard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// To read, with less patience, and to write. `None`: there is no storage, hence no switch.
    blobs: Option<(Container, Container)>,
    max_age: Duration,
    /// What was read last, and when reading was last tried.
    known: RwLock<(Option<Arc<Switches>>, Option<Instant>)>,
    reading: Mutex<()>,
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
        self.state().0
    }

    /// The switches, at most `max_age` old unless they cannot be read.
    pub async fn current(&self) -> Option<Arc<Switches>> {
        let Some((container, _)) = &self.0.blobs else { return Some(Arc::default()) };
        self.current_by(async { read(container).await.map_err(|error| error.to_string()) }).await
    }

    /// One caller at a time reads; others go on with what is known, and wait only if nothing is known yet. A failed
    /// read is logged and not tried again for `max_age`, so that a dead storage account does not cost every request
    /// a timeout.
    async fn current_by<F>(&self, read: F) -> Option<Arc<Switches>>
    where
        F: Future<Output = Result<Switches, String>> + Send,
    {
        let (known, read_at) = self.state();
        if self.is_fresh(read_at) {
            return known;
        }
        let turn = match self.0.reading.try_lock() {
            Ok(turn) => turn,
            Err(_) if read_at.is_some() => return known,
            Err(_) => self.0.reading.lock().await,
        };
        let (known, read_at) = self.state();
        let known = if self.is_fresh(read_at) { known } else { self.learn(read.await) };
        drop(turn);
        known
    }

    fn learn(&self, read: Result<Switches, String>) -> Option<Arc<Switches>> {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(read) => known.0 = Some(Arc::new(read)),
            Err(error) => tracing::warn!(
                code = "switches_unreadable",
                error,
                known = known.0.is_some(),
                "switches could not be read; the last known state stays in force, and without one nothing is processed"
            ),
        }
        known.1 = Some(Instant::now());
        known.0.clone()
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

    fn state(&self) -> (Option<Arc<Switches>>, Option<Instant>) {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_fresh(&self, read_at: Option<Instant>) -> bool {
        read_at.is_some_and(|at| at.elapsed() < self.0.max_age)
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
}
