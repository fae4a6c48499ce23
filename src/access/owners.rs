//! What is done when an owner asks for their data, or for its end.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::azure::{Container, Queue, StorageError};
use crate::config::AppConfig;
use crate::config::app::ActionKind;
use crate::database::audit::{self, Entry};
use crate::database::maintenance;
use crate::database::owners::{self, Bodies, DeliveryBody, ERASED, Held, Live, OwnerData, Step};
use crate::database::{Client, Database, DatabaseError};
use crate::events::message::{self, Body, EventMessage};
use crate::functions::Payload;
use crate::ids::{DeadLetterId, DeliveryId};
use crate::llm::spend::{self, SpoolError};

/// How long turns that were asked to stop may take to end.
const STOPPING: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);

/// Why an owner's data was not deleted, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    #[error("`{ERASED}` is nobody: it stands in the place of owners whose data was deleted")]
    Nobody,
    #[error(
        "{} turns are in progress and {} jobs or callbacks are being worked on; wait for their end, or have the turns cancelled",
        .0.turns, .0.work
    )]
    Live(Live),
    #[error("bodies of deliveries lie in blobs, and AzureWebJobsStorage is not set here")]
    NoStorage,
    #[error("{0}")]
    Database(#[from] DatabaseError),
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("usage that waits on its queue could not be brought home: {0}")]
    Spooled(#[from] SpoolError),
}

/// What was there, and what is left. What is left comes of what could not go yet (a budget that a process holds a part of),
/// or came meanwhile; done again, it goes.
#[derive(Clone, Debug, Serialize)]
pub struct Erased {
    pub before: Vec<Held>,
    pub after: Vec<Held>,
}

impl Erased {
    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.after.iter().all(|held| held.rows == 0)
    }
}

/// The owner, with the events that are theirs by `colloquy.toml`: those of the source whose name is in `source:<name>`, and
/// those that routes answer on the owner's account. Events that a turn of the owner answered are theirs without it.
pub fn data_of(owner: &str, app: &AppConfig) -> OwnerData {
    let responding = app.routes.iter().filter(|route| route.action == ActionKind::Respond);
    OwnerData {
        owner: owner.to_owned(),
        source: owner.strip_prefix("source:").map(str::to_owned),
        routes: responding.filter(|route| route.owner() == owner).map(|route| route.name.clone()).collect(),
    }
}

/// What the audit trail calls an owner who is not to be in it: the same for the same owner, and nothing else.
pub fn pseudonym(owner: &str) -> String {
    let digest = Sha256::digest(owner);
    format!("owner:{}", digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Deletes an owner's data.
pub struct Erasure<'a> {
    pub database: &'a Database,
    pub container: Option<&'a Container>,
    /// Usage that the database did not take: brought home first.
    pub spooled: Option<&'a Queue>,
    /// Rows of one statement.
    pub batch: i64,
}

impl Erasure<'_> {
    /// Deletes everything of an owner that may go. Cut anywhere, it is begun again and goes on with what is left.
    ///
    /// `cancel`: turns in progress are asked to stop, and waited for. `actor` and `reason` stand in the audit trail, the
    /// owner only by a hash.
    ///
    /// # Errors
    /// Something still runs, or the database or storage cannot be reached.
    pub async fn run(
        &self,
        data: &OwnerData,
        cancel: bool,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Erased, ErasureError> {
        if data.owner == ERASED {
            return Err(ErasureError::Nobody);
        }
        let client = self.database.client().await?;
        let live = owners::live(&client, data).await?;
        if !live.is_none() && !cancel {
            return Err(ErasureError::Live(live));
        }
        let before = owners::counts(&client, data).await?;
        let detail = json!({ "reason": reason, "before": before });
        audit::write(&client, &[entry(data, actor, "owner.delete.begin", detail)]).await?;
        self.take(&client, Step::Keys, data).await?;
        if cancel {
            self.stop(&client, data).await?;
        }
        self.deliveries(&client, data).await?;
        self.messages(&client, data).await?;
        if let Some(queue) = self.spooled {
            while spend::bring_home(queue, self.database).await? > 0 {}
        }
        for step in Step::ALL {
            self.take(&client, step, data).await?;
        }
        let after = owners::counts(&client, data).await?;
        let detail = json!({ "reason": reason, "before": before, "after": after });
        audit::write(&client, &[entry(data, actor, "owner.delete", detail)]).await?;
        Ok(Erased { before, after })
    }

    async fn take(&self, client: &Client, step: Step, data: &OwnerData) -> Result<(), DatabaseError> {
        while step.take(client, data, self.batch).await? > 0 {}
        Ok(())
    }

    /// Asks turns to stop until none runs. Events go first, or their jobs would begin other turns.
    async fn stop(&self, client: &Client, data: &OwnerData) -> Result<(), ErasureError> {
        let until = Instant::now() + STOPPING;
        loop {
            self.deliveries(client, data).await?;
            owners::cancel_turns(client, &data.owner).await?;
            let live = owners::live(client, data).await?;
            if live.is_none() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(ErasureError::Live(live));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Deletes messages of the owner's source that were given up: their bodies first, so that none is left that nobody names.
    async fn messages(&self, client: &Client, data: &OwnerData) -> Result<(), ErasureError> {
        loop {
            let found = owners::messages_given_up(client, data, self.batch).await?;
            if found.is_empty() {
                return Ok(());
            }
            for blob in found.iter().filter_map(|(_, text)| blob_of(text)) {
                self.container.ok_or(ErasureError::NoStorage)?.delete(&blob).await?;
            }
            let ids: Vec<DeadLetterId> = found.iter().map(|(id, _)| *id).collect();
            owners::delete_messages(client, &ids).await?;
        }
    }

    /// Deletes the owner's events with their deliveries: blobs first, so that none is left that no row names.
    async fn deliveries(&self, client: &Client, data: &OwnerData) -> Result<(), ErasureError> {
        loop {
            let found = owners::owned_deliveries(client, data, self.batch).await?;
            if found.is_empty() {
                return Ok(());
            }
            for blob in found.iter().filter_map(|delivery| delivery.body_blob.as_deref()) {
                self.container.ok_or(ErasureError::NoStorage)?.delete(blob).await?;
            }
            let of = |bodies| -> Vec<DeliveryId> {
                let those = found.iter().filter(|delivery: &&DeliveryBody| delivery.bodies == bodies);
                those.map(|delivery| delivery.id).collect()
            };
            maintenance::delete_deliveries(client, &of(Bodies::Whole)).await?;
            owners::strip_deliveries(client, data, &of(Bodies::Shared)).await?;
        }
    }
}

/// The blob that a message's body is in, if it is in one.
fn blob_of(text: &str) -> Option<String> {
    match EventMessage::decode(&message::plain(text)).ok()?.body {
        Body::Blob(name) => Some(name),
        Body::Text(_) | Body::Base64(_) => None,
    }
}

fn entry(data: &OwnerData, actor: &str, action: &'static str, detail: serde_json::Value) -> Entry {
    Entry { actor: actor.to_owned(), action, subject: pseudonym(&data.owner), detail: Some(detail) }
}
