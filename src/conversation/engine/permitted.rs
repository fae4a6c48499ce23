//! What operators have stopped, as turns meet it.

use std::sync::Arc;

use jiff::Timestamp;

use super::create::Call;
use super::turn::Turn;
use super::{Engine, away};
use crate::access::Principal;
use crate::conversation::combinations::Transport;
use crate::database::turns::{self, Taken};
use crate::ids::ResponseId;
use crate::llm::Alias;
use crate::openresponses::{ApiError, CreateResponse};
use crate::switches::{self, Feature, Stopped, SwitchKind, Switches, TurnsHeld};

impl Engine {
    /// Whether a request may begin a turn: nothing that it needs is stopped.
    pub(super) async fn permit_turn(
        &self,
        who: &Principal,
        alias: &Alias,
        request: &CreateResponse,
        call: &Call,
    ) -> Result<(), ApiError> {
        let compacts = request.context_management.as_ref().is_some_and(|asked| !asked.is_empty());
        let needed = [
            (Feature::Background, request.background == Some(true)),
            (Feature::Websocket, call.transport == Transport::WebSocket),
            (Feature::Compaction, compacts),
        ];
        for (feature, _) in needed.into_iter().filter(|(_, needed)| *needed) {
            self.permit_feature(feature).await?;
        }
        if request.stores() {
            // What is stored needs more than storage anyway; nobody has to take it for running.
            self.read_switches().await.ok_or_else(switches::unknown)?;
        }
        self.permit(who, alias).await
    }

    /// Whether a model may be asked on somebody's account.
    pub(super) async fn permit(&self, who: &Principal, alias: &Alias) -> Result<(), ApiError> {
        self.unless(|switches, now| {
            let model = switches.model(alias.name(), alias.deployments().map(|name| &**name), now);
            model.or_else(|| switches.stopped(SwitchKind::Owner, &who.owner, now))
        })
        .await
    }

    /// Whether a feature is on.
    pub async fn permit_feature(&self, feature: Feature) -> Result<(), ApiError> {
        let (features, environment) = (&self.0.features, self.0.environment);
        self.unless(|switches, now| switches.feature(feature, features, environment, now)).await
    }

    async fn unless(
        &self,
        stopped: impl FnOnce(&Switches, Timestamp) -> Option<Stopped>,
    ) -> Result<(), ApiError> {
        // A process that has never reached storage still answers what needs none.
        let Some(switches) = self.read_switches().await else { return Ok(()) };
        let now = Timestamp::now();
        stopped(&switches, now).map_or(Ok(()), |stopped| Err(stopped.to_api(now)))
    }

    /// Known for long, but for the first request: then they are read.
    async fn read_switches(&self) -> Option<Arc<Switches>> {
        match self.0.switches.known() {
            Some(known) => Some(known),
            None => self.0.switches.current().await,
        }
    }

    /// A turn that nobody stores, if it runs here, or ended here a moment ago.
    pub fn unstored(&self, id: ResponseId) -> Option<Arc<Turn>> {
        self.turns().get(&id).filter(|turn| turn.held.is_none()).cloned()
    }

    /// Whether a turn that was taken over waits for an operator.
    pub(super) fn is_held(&self, taken: &Taken) -> bool {
        let payer = taken.caller.as_ref().unwrap_or(&taken.owner);
        let held = self.held_turns();
        held.models.contains(&taken.model) || held.owners.contains(payer)
    }

    /// Puts a turn that was taken over, and of which nobody saw anything, into the queue.
    pub(super) async fn set_aside(&self, taken: &Taken) -> Result<(), ApiError> {
        let client = self.client().await?;
        turns::set_aside(&client, taken.held).await.map_err(away).map(drop)
    }

    /// Turns in the queue that wait for an operator: as long as that is not known, all.
    pub(super) fn held_turns(&self) -> TurnsHeld {
        let aliases = self.0.router.aliases();
        let Some(switches) = self.0.switches.known() else {
            let models = aliases.map(|alias| alias.name().to_owned()).collect();
            return TurnsHeld { models, owners: Vec::new() };
        };
        let models = aliases.map(|alias| (alias.name(), alias.deployments().map(|name| &**name)));
        switches.held_turns(models, Timestamp::now())
    }
}
