//! Events: one with its work, its payload, and running it again.

use serde::Serialize;

use super::{OperationError, Operations};
use crate::database::audit::Actor;
use crate::database::events as inbox;
use crate::database::inspect::{self, EventDetail};
use crate::events::routes::Plan;
use crate::events::state::EventState;
use crate::ids::{CallbackId, EventId, JobId};

/// What running an event again would do.
#[derive(Debug)]
pub struct EventReplay {
    pub event: EventId,
    /// The run it would be.
    pub run: i32,
    plan: Plan,
}

/// An event that runs again.
#[derive(Debug, Serialize)]
pub struct EventReplayed {
    pub event: EventId,
    pub run: i32,
    pub jobs: Vec<JobId>,
    pub callbacks: Vec<CallbackId>,
}

impl EventReplay {
    pub fn jobs(&self) -> usize {
        self.plan.jobs.len()
    }

    pub fn callbacks(&self) -> usize {
        self.plan.callbacks.len()
    }
}

impl Operations {
    /// One event with its delivery and its work.
    pub async fn event(&self, id: EventId) -> Result<EventDetail, OperationError> {
        let found = inspect::event(&self.client().await?, id).await?;
        found.ok_or_else(|| OperationError::NotFound { what: "event", id: id.to_string() })
    }

    /// What a sender sent, or its part of it. It may hold personal data.
    pub async fn payload(&self, event: &EventDetail) -> Result<Vec<u8>, OperationError> {
        if let Some(payload) = &event.payload {
            return Ok(payload.clone());
        }
        let name = event.body_blob.as_deref().ok_or(OperationError::PayloadGone)?;
        let body = self.container()?.get(name).await?.ok_or(OperationError::PayloadGone)?;
        Ok(body.to_vec())
    }

    /// What running an event again would do, under the routes of now. Changes nothing.
    pub async fn plan_replay(&self, id: EventId) -> Result<EventReplay, OperationError> {
        let event = self.event(id).await?;
        match event.state.parse() {
            Ok(EventState::Processed) => {}
            Ok(EventState::Held) => {
                return Err(OperationError::Held { event: id, source_name: event.source });
            }
            _ => return Err(OperationError::Conflict(id)),
        }
        let mut plan = Plan::default();
        self.routes.plan(&event.source, &event.event_type, id, &mut plan);
        Ok(EventReplay { event: id, run: event.run + 1, plan })
    }

    /// Runs an event again. `new_ids`: its callbacks get new ids, so that consumers take them for new ones.
    pub async fn replay_event(
        &self,
        replay: &EventReplay,
        new_ids: bool,
        actor: Actor<'_>,
    ) -> Result<EventReplayed, OperationError> {
        let client = self.client().await?;
        let run = replay.run - 1;
        let stored = inbox::replay(&client, replay.event, run, &replay.plan, new_ids, actor).await?;
        let stored = stored.ok_or(OperationError::ReplayedMeanwhile(replay.event))?;
        drop(client);
        self.hint_at(&stored).await;
        Ok(EventReplayed {
            event: replay.event,
            run: replay.run,
            jobs: stored.jobs,
            callbacks: stored.callbacks,
        })
    }
}
