//! What operators do, by command or by request: look at events, jobs, callbacks and dead letters, and settle them.
//!
//! Commands and `/admin` ask here, so that both do the same. What changes something writes its audit row with it.

mod callbacks;
mod dead_letters;
mod error;
mod events;
mod hints;
mod owners;
mod queues;
mod switches;

use std::sync::Arc;

use crate::azure::{Container, Storage};
use crate::config::app::AppConfig;
use crate::config::{Config, QueueNames};
use crate::database::{Client, Database, DatabaseError};
use crate::events::routes::Routes;
use crate::switches::Switchboard;

pub use callbacks::{Target, TargetState};
pub use dead_letters::{
    Batch, Found, LETTER_KINDS, LetterDetail, Look, MOST_AT_ONCE, MOST_PER_SECOND, Replay, Unreadable,
};
pub use error::OperationError;
pub use events::{EventReplay, EventReplayed};
pub use hints::put_hint;
pub use owners::OwnerShown;
pub use queues::{QueueMeasure, measured, poison_name};
pub use switches::{Changed, NewSwitch, SwitchLine};

/// What operators' doings need.
#[derive(Clone)]
pub struct Operations {
    database: Database,
    /// `None` where no storage is set: what stands in rows goes on all the same.
    storage: Option<Storage>,
    container: String,
    queues: QueueNames,
    routes: Routes,
    app: Arc<AppConfig>,
    switches: Switchboard,
    /// Rows of one statement that deletes.
    batch: i64,
}

impl Operations {
    /// Connects to nothing.
    pub fn new(config: &Config, database: Database, storage: Option<Storage>, switches: Switchboard) -> Self {
        Self {
            database,
            storage,
            container: config.storage.container.clone(),
            queues: config.queues.clone(),
            routes: Routes::new(&config.app.routes),
            app: Arc::new(config.app.clone()),
            switches,
            batch: config.work.maintain_batch.into(),
        }
    }

    /// A connection to the database.
    pub async fn client(&self) -> Result<Client, DatabaseError> {
        self.database.client().await
    }

    fn storage(&self) -> Result<&Storage, OperationError> {
        self.storage.as_ref().ok_or(OperationError::NoStorage)
    }

    fn container(&self) -> Result<Container, OperationError> {
        Ok(self.storage()?.container(&self.container))
    }
}
