//! From a request to a running turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::beginning::Committing;
use super::compact::Shortened;
use super::input::{OwnItem, check_outputs, conversation_id, entries, title};
use super::jobs::ForJob;
use super::past::{Reach, Shown, blamed, fits, fitting, held, is_summarised, shown};
use super::paying::Paying;
use super::retries::key_reused;
use super::turn::{NewTurn, OnDisconnect, StopReason, Turn};
use super::watched::Full;
use super::{Engine, away};
use crate::access::{Admitted, Principal};
use crate::conversation::combinations::{self, Transport};
use crate::database::threads::{self, Anchor, NewItem, Window};
use crate::database::turns::{self, Begun, Callback, Held, Runner};
use crate::ids::{ConversationId, ResponseId};
use crate::llm::{Alias, Chunk, ModelRequest, no_such_model};
use crate::openresponses::{ApiError, CreateResponse, Include, Item, Response, excerpt};
use crate::telemetry::trace;

/// How a request came, beside what it says.
#[derive(Clone, Debug)]
pub struct Call {
    pub transport: Transport,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// An SDK says that it sent the same before.
    pub is_retry: bool,
    /// A digest of the body.
    pub digest: [u8; 32],
    /// What a WebSocket remembers of the turn before, if that was not stored.
    pub local: Option<Arc<Local>>,
    /// It comes from a job.
    pub job: Option<ForJob>,
}

/// A turn that only its connection remembers.
#[derive(Debug)]
pub struct Local {
    pub id: ResponseId,
    /// Everything up to its end.
    pub items: Vec<Arc<Item>>,
}

/// What a turn is shown of the past.
pub(super) struct Before {
    pub window: Option<Window>,
    pub shown: Shown,
}

impl Engine {
    pub(super) async fn create_admitted(
        &self,
        who: &Principal,
        mut request: CreateResponse,
        call: Call,
        admitted: Option<Admitted>,
        committing: &Committing,
    ) -> Result<Arc<Turn>, ApiError> {
        let asked = Instant::now();
        request.validate()?;
        combinations::check(&request, call.transport)?;
        let callback = self.0.callbacks.of(who, &request)?;
        let alias = self.alias(request.model.as_deref())?;
        alias.check(&request)?;
        self.room()?;
        if let Some(turn) = self.first_try(who, &request, &call).await? {
            return Ok(turn);
        }
        self.permit_turn(who, &alias, &request, &call).await?;
        let unwatched = self.unwatched(who, &request)?;
        let input = entries(request.input.take())?;
        let request = Arc::new(request);
        let start = Start {
            who,
            id: ResponseId::new(),
            request: &request,
            call: &call,
            alias: &alias,
            callback: callback.as_ref(),
            admitted: admitted.as_ref(),
            committing,
        };
        let own = self.resolve(who, input).await?;
        let placed = match self.place(&start, &own).await {
            // Perhaps it is the first try of this request that has it locked.
            Err(error) if error.code == LOCKED && call.idempotency_key.is_some() => {
                return self.stored_first_try(who, &call).await?.ok_or(error);
            }
            placed => placed?,
        };
        let Placed { beginning, request, items, mut paying, compaction } = placed;
        paying.admitted = admitted;
        paying.unwatched = unwatched;
        let turn = match beginning {
            Beginning::New(turn) => turn,
            Beginning::Repeated(id) => return self.attach(who, id).await,
        };
        turn.set_asked(asked);
        self.turns().insert(turn.id, Arc::clone(&turn));
        self.0.recent.remember(&who.owner, &call, turn.id);
        self.pass_on(&turn, compaction.map(Chunk::Compaction).into_iter().collect());
        self.run(Arc::clone(&turn), Arc::clone(&alias), ModelRequest { params: request, items }, paying);
        if self.is_cut() {
            // It was being committed when this process had no time left.
            turn.stop(StopReason::Draining);
        }
        Ok(turn)
    }

    /// Finds what goes before, makes it short if asked, sets money aside, and begins the turn.
    async fn place(&self, start: &Start<'_>, own: &[OwnItem]) -> Result<Placed, ApiError> {
        /// A thread that changes under our hands is looked at again: what was its head may have to be forked now.
        const TRIES: u32 = 3;
        let (mut tries, mut made) = (0, None);
        // The request as if it asked for no summary, once there is none; and why, if that was in vain.
        let (mut plain, mut in_vain) = (None, None);
        while tries < TRIES {
            let seen = &Start { request: plain.as_ref().unwrap_or(start.request), ..*start };
            let before = self.before(seen, own, Reach::of(seen.request)).await;
            let Before { window, shown: Shown { items: past_items, whole } } =
                before.map_err(|error| blamed(error, in_vain.as_ref()))?;
            if own.is_empty() && past_items.is_empty() {
                return Err(ApiError::missing("input"));
            }
            let (window, past) = (window.as_ref(), past_items.len());
            let items: Vec<_> =
                past_items.into_iter().chain(own.iter().map(|own| Arc::clone(&own.item))).collect();
            // What the past lacks is left out of it: this is about the new input.
            check_outputs(items.iter().map(|item| &**item), past)?;
            let mut items = self.opened(start.who, window, items, past).await?;
            let mut compaction = None;
            let owner = start.owner(window);
            match self.compact_if_asked(seen, owner, &items, whole, own, &mut made).await? {
                Shortened::No if !is_summarised(seen.request) || fits(&items, seen.request, start.alias) => {}
                Shortened::To(item) => {
                    if let Item::Compaction(compacted) = &item {
                        compaction = Some(compacted.encrypted_content.as_str().into());
                    }
                    items = self.opened(start.who, window, vec![Arc::new(item)], 1).await?;
                }
                // Loaded to be summarised, the past need not fit; it is looked at again by the rules without.
                without => {
                    if let Shortened::InVain(error) = without {
                        in_vain = Some(error);
                    }
                    let request = CreateResponse { context_management: None, ..(**start.request).clone() };
                    plain = Some(Arc::new(request));
                    continue;
                }
            }
            let items =
                shown(items, seen.request, start.alias).map_err(|error| blamed(error, in_vain.as_ref()))?;
            let paying = self.reserve(start, &items).await?;
            let request = paying.limited(start.request);
            let start = &Start { request: &request, ..*start };
            if !start.request.stores() {
                let context =
                    if start.call.transport == Transport::WebSocket { items.clone() } else { Vec::new() };
                let begun = start.begun(Timestamp::now());
                self.0.spend.open(&paying.first);
                let turn = Arc::new(start.turn(&start.who.owner, None, None, begun, own, context));
                return Ok(Placed { beginning: Beginning::New(turn), request, items, paying, compaction });
            }
            if let Some(beginning) = self.begin(start, window, own, &paying).await? {
                return Ok(Placed { beginning, request, items, paying, compaction });
            }
            tries += 1;
        }
        Err(changed_meanwhile())
    }

    pub(super) fn alias(&self, model: Option<&str>) -> Result<Arc<Alias>, ApiError> {
        let name = model.ok_or_else(|| ApiError::missing("model"))?;
        self.0.router.alias(name).cloned().ok_or_else(|| no_such_model(name))
    }

    /// How many turns more this process may run.
    pub(super) fn spare_room(&self) -> i64 {
        i64::try_from(self.0.limits.turns_max.saturating_sub(self.open_turns())).unwrap_or(i64::MAX)
    }

    pub(super) fn room(&self) -> Result<(), ApiError> {
        if self.spare_room() > 0 {
            return Ok(());
        }
        let message = "The server has as many turns in flight as it may (TURNS_MAX).";
        Err(ApiError::unavailable("turns_limit", message))
    }

    /// What goes before the turn's `own` input, oldest first, as much as the model's window holds.
    pub(super) async fn before(
        &self,
        start: &Start<'_>,
        own: &[OwnItem],
        reach: Reach,
    ) -> Result<Before, ApiError> {
        let without_window = |items| Before { window: None, shown: Shown { items, whole: true } };
        let Start { who, request, call, alias, .. } = *start;
        let local = call.local.as_deref();
        let anchor = if let Some(id) = request.previous_response_id.as_deref() {
            let parsed = id.parse::<ResponseId>().ok();
            if let Some(local) = local.filter(|local| Some(local.id) == parsed) {
                if request.stores() {
                    let message = "The previous response was not stored, so nothing stored can follow it.";
                    return Err(ApiError::invalid_value("previous_response_id", message));
                }
                let items = held(local, request, alias, own, self.0.limits.local_max)?;
                return Ok(without_window(items));
            }
            Anchor::Response(parsed.ok_or_else(|| no_previous(id))?)
        } else if let Some(conversation) = &request.conversation {
            Anchor::Conversation(conversation_id(conversation.id())?)
        } else {
            return Ok(without_window(Vec::new()));
        };
        let window = self.window(&who.owner, anchor, alias, reach).await?;
        let window = window.ok_or_else(|| match (&request.previous_response_id, &request.conversation) {
            (Some(id), _) => {
                self.look_whose(&who.owner, id);
                no_previous(id)
            }
            (None, Some(conversation)) => {
                self.look_whose(&who.owner, conversation.id());
                ApiError::not_found("Conversation", conversation.id()).on("conversation")
            }
            (None, None) => ApiError::internal(),
        })?;
        if window.response_state.is_some_and(|state| !state.is_final()) {
            let message = "The previous response is still being generated. Wait for its end, or cancel it.";
            return Err(ApiError::invalid("previous_response_in_progress", "previous_response_id", message));
        }
        if window.active_response.is_some() {
            return Err(locked());
        }
        let shown = fitting(&window, request, alias, reach, own)?;
        Ok(Before { window: Some(window), shown })
    }

    /// The first commit of a stored turn. `None`: the thread has changed meanwhile.
    async fn begin(
        &self,
        start: &Start<'_>,
        window: Option<&Window>,
        own: &[OwnItem],
        paying: &Paying,
    ) -> Result<Option<Beginning>, ApiError> {
        let Start { who, id, request, call, alias, callback, committing, .. } = *start;
        let parameters = serde_json::to_string(&**request).map_err(|error| {
            tracing::error!(code = "request.unwritable", %error, "a request could not be written as JSON");
            ApiError::internal()
        })?;
        let input: Vec<NewItem<'_>> = own.iter().map(OwnItem::row).collect();
        let patience = self.patience(start);
        let conversation = window.and_then(|window| window.conversation);
        let previous = request.previous_response_id.as_deref().and_then(|id| id.parse().ok());
        let owner = start.owner(window);
        let turn = turns::NewTurn {
            id,
            owner,
            caller: (owner != who.owner).then_some(&*who.owner),
            api_key: (!who.is_token).then_some(&*who.key),
            place: window.map_or(threads::Place::New, |window| window.place),
            conversation,
            previous_response: previous,
            runner: Runner::Holder { holder: self.0.instance, lease: self.0.limits.lease },
            model: alias.name(),
            request: &parameters,
            background: request.background.unwrap_or(false),
            background_max: self.background_max(start),
            stream: request.stream.unwrap_or(false) || call.transport == Transport::WebSocket,
            on_disconnect: request.on_disconnect.as_deref(),
            input: &input,
            idempotency: Some(call.idempotency()),
            attempt: self.0.spend.is_tracking().then_some(&paying.first),
            job: call.job.map(|job| job.of),
            callback,
            patience,
            trace_parent: Some(&trace::current()),
        };
        let client = self.client().await?;
        committing.begin();
        match turns::begin(&client, &turn).await.map_err(away)? {
            Begun::Begun { created_at } => {
                let held = Held { response: id, epoch: 1 };
                let begun = start.begun(created_at);
                let mut turn = start.turn(owner, Some(held), conversation, begun, own, Vec::new());
                turn.waits = patience.map(|_| 0);
                Ok(Some(Beginning::New(Arc::new(turn))))
            }
            Begun::Repeated { response, same_request: true } => Ok(Some(Beginning::Repeated(response))),
            Begun::Repeated { same_request: false, .. } => Err(key_reused()),
            Begun::Locked => Err(locked()),
            Begun::Crowded => Err(Full::OfOwner.into()),
            Begun::NotFound => {
                let id = request.conversation.as_ref().map_or("", |conversation| conversation.id());
                Err(ApiError::not_found("Conversation", id).on("conversation"))
            }
            Begun::Conflict => Ok(None),
        }
    }
}

/// A turn that is about to begin.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub who: &'a Principal,
    pub id: ResponseId,
    pub request: &'a Arc<CreateResponse>,
    pub call: &'a Call,
    pub alias: &'a Arc<Alias>,
    /// Who is told of its end.
    pub callback: Option<&'a Callback>,
    /// The caller's room.
    pub admitted: Option<&'a Admitted>,
    pub committing: &'a Committing,
}

impl<'a> Start<'a> {
    /// Whose the turn is: a conversation's turns are its owner's, whoever asks for them.
    fn owner<'w>(&self, window: Option<&'w Window>) -> &'w str
    where
        'a: 'w,
    {
        window.map_or(&self.who.owner, |window| &window.owner)
    }

    fn begun(&self, at: Timestamp) -> Response {
        Response::begun(self.request, self.id.to_string(), self.alias.name().to_owned(), at.as_second())
    }

    fn turn(
        &self,
        owner: &str,
        held: Option<Held>,
        conversation: Option<ConversationId>,
        begun: Response,
        own: &[OwnItem],
        context: Vec<Arc<Item>>,
    ) -> Turn {
        let default = if begun.background || self.call.job.is_some() { "continue" } else { "cancel" };
        let on_disconnect = match self.request.on_disconnect.as_deref().unwrap_or(default) {
            "continue" => OnDisconnect::Continue,
            _ => OnDisconnect::Cancel,
        };
        Turn::new(NewTurn {
            id: self.id,
            owner: owner.to_owned(),
            caller: (owner != self.who.owner).then(|| self.who.owner.clone()),
            key: self.who.key.clone(),
            held,
            conversation,
            begun,
            show_encrypted: self.request.includes(Include::ReasoningEncryptedContent),
            on_disconnect,
            title: conversation.and_then(|_| title(own)),
            context,
            job: self.call.job.map(|job| job.of.job),
            until: self.call.job.map(|job| job.until),
            waits: None,
            trace_parent: None,
        })
    }
}

/// A turn that has begun, or had begun before.
struct Placed {
    beginning: Beginning,
    /// With the limit that its budget sets.
    request: Arc<CreateResponse>,
    /// What the model is shown.
    items: Vec<Arc<Item>>,
    paying: Paying,
    /// The sealed summary that was just made of what goes before.
    compaction: Option<Arc<str>>,
}

/// How beginning a turn went.
enum Beginning {
    New(Arc<Turn>),
    /// An earlier try of the same request began it.
    Repeated(ResponseId),
}

fn no_previous(id: &str) -> ApiError {
    let message = format!("Previous response with id '{}' not found.", excerpt(id));
    ApiError::invalid("previous_response_not_found", "previous_response_id", message)
}

const LOCKED: &str = "conversation_locked";

fn locked() -> ApiError {
    let message = "Another turn of this conversation is in progress. Wait for its end, or cancel it.";
    ApiError::invalid(LOCKED, "conversation", message)
}

/// 409, which SDKs answer by trying again.
fn changed_meanwhile() -> ApiError {
    ApiError::new(
        http::StatusCode::CONFLICT,
        crate::openresponses::ErrorType::ConflictError,
        "thread_changed",
        "The conversation changed while this request began. Please try again.",
    )
    .retry_after(Duration::from_millis(100))
}
