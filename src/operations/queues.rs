//! Depth and age of queues.

use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::{OperationError, Operations};
use crate::azure::{Storage, StorageError};
use crate::config::QueueNames;
use crate::database::DatabaseError;
use crate::database::maintenance::{self, Backlog};
use crate::jobs::state::WorkKind;

/// One queue.
#[derive(Debug, Serialize)]
pub struct QueueMeasure {
    pub queue: String,
    /// What alerts call it, whatever it is called in storage.
    #[serde(skip)]
    pub known: String,
    /// As the service estimates it.
    pub messages: Option<u64>,
    /// Age of the oldest visible message.
    pub oldest_seconds: Option<f64>,
    /// Why there are no figures.
    pub error: Option<String>,
}

/// Where the host, and our own settlement, put what is given up.
pub fn poison_name(queue: &str) -> String {
    format!("{queue}-poison")
}

/// Every queue of work, each followed by that of what was given up.
pub async fn measured(storage: &Storage, names: &QueueNames) -> Vec<QueueMeasure> {
    let names = [("events", &names.events), ("jobs", &names.jobs), ("callbacks", &names.callbacks)];
    let all = names.into_iter().flat_map(|(known, name)| {
        [(known.to_owned(), name.clone()), (poison_name(known), poison_name(name))]
    });
    join_all(all.map(|(known, name)| one(storage, known, name))).await
}

async fn one(storage: &Storage, known: String, queue: String) -> QueueMeasure {
    match figures(storage, &queue).await {
        Ok((depth, age)) => {
            QueueMeasure { queue, known, messages: Some(depth), oldest_seconds: age, error: None }
        }
        Err(error) => QueueMeasure {
            queue,
            known,
            messages: None,
            oldest_seconds: None,
            error: Some(error.to_string()),
        },
    }
}

/// Messages, and the seconds for which the oldest has waited.
async fn figures(storage: &Storage, queue: &str) -> Result<(u64, Option<f64>), StorageError> {
    let queue = storage.queue(queue);
    let depth = queue.properties().await?.approximate_count;
    let oldest = match depth {
        0 => None,
        _ => queue.peek(1).await?.first().map(|message| message.inserted_at),
    };
    let age = oldest.map(|at| Timestamp::now().duration_since(at).as_secs_f64().max(0.0));
    Ok((depth, age))
}

impl Operations {
    /// The queues, `None` where no storage is set; and the rows of work that wait.
    pub async fn queues(&self) -> Result<(Option<Vec<QueueMeasure>>, Vec<Backlog>), OperationError> {
        let queues = async {
            match &self.storage {
                Some(storage) => Some(measured(storage, &self.queues).await),
                None => None,
            }
        };
        let backlogs = async {
            let client = self.client().await?;
            let jobs = maintenance::backlog(&client, WorkKind::Job).await?;
            Ok::<_, DatabaseError>(vec![jobs, maintenance::backlog(&client, WorkKind::Callback).await?])
        };
        let (queues, backlogs) = futures_util::join!(queues, backlogs);
        Ok((queues, backlogs?))
    }
}
