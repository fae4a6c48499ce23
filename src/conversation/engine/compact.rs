//! Long pasts made short: the small model writes a summary, which then stands for everything before it.
//!
//! The summary is sealed with this server's key and bound to its owner, so that a caller who keeps its own state can
//! carry it without being able to write one.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::beginning::Committing;
use super::create::{Call, Start};
use super::input::{OwnItem, entries};
use super::past::{Reach, too_long_to_summarise};
use super::summary::{Unwritten, Wanted, message};
use super::{Engine, away};
use crate::access::{Admitted, Principal};
use crate::conversation::combinations::Transport;
use crate::conversation::window::pairs::answered_by;
use crate::database::threads::{self, Window};
use crate::ids::ResponseId;
use crate::llm::{Alias, estimate_item};
use crate::openresponses::{
    ApiError, CompactRequest, Compaction, ContextManagement, CreateResponse, Item, Role, Truncation, Usage,
};
use crate::switches::Feature;
use crate::webhooks::sealing::Sealer;

/// The protocol's least threshold.
const LEAST_THRESHOLD: u32 = 1_000;

/// What is sealed.
#[derive(Deserialize, Serialize)]
struct Sealed {
    summary: String,
    /// Items that were kept as they are.
    kept: Vec<Arc<Item>>,
}

/// What `POST /v1/responses/compact` answers.
#[derive(Debug, Serialize)]
pub struct CompactionResource {
    pub id: String,
    pub object: &'static str,
    /// Unix seconds.
    pub created_at: i64,
    pub output: Vec<Item>,
    pub usage: Usage,
}

/// A summary that stands for a past.
pub(super) struct Made {
    owner: String,
    /// What went before the turn, and its own input.
    items: Vec<Arc<Item>>,
    item: Item,
}

/// What became of a wish for a summary.
pub(super) enum Shortened {
    /// It was not asked for, or there is no need.
    No,
    To(Item),
    /// The model failed, or wrote none that could be used.
    InVain(ApiError),
}

impl Engine {
    /// Replaces compaction items by what they stand for: nothing before the last one is shown. The first `past` items are
    /// the window's, whose summaries were made for the owners of its threads or by the caller's own words; the others come
    /// from the caller.
    pub(super) async fn opened(
        &self,
        who: &Principal,
        window: Option<&Window>,
        items: Vec<Arc<Item>>,
        past: usize,
    ) -> Result<Vec<Arc<Item>>, ApiError> {
        let Some(last) = items.iter().rposition(|item| matches!(**item, Item::Compaction(_))) else {
            return Ok(items);
        };
        let Item::Compaction(compaction) = &*items[last] else { return Ok(items) };
        let sealer = self.sealer()?;
        let foreign = || {
            let message = "A compaction item cannot be opened: it was not made for you by this server, or its key is gone.";
            ApiError::invalid("compaction_unreadable", "input", message)
        };
        let open = |owner: &str| sealer.open(&context(owner), &compaction.encrypted_content).ok();
        let text = match window.filter(|_| last < past) {
            None => open(&who.owner),
            Some(window) => match (open(&window.owner).or_else(|| open(&who.owner)), window.thread()) {
                (None, Some(thread)) => {
                    let client = self.client().await?;
                    let owners = threads::owners_of_past(&client, thread).await.map_err(away)?;
                    owners.iter().find_map(|owner| open(owner))
                }
                (text, _) => text,
            },
        };
        let text = text.ok_or_else(foreign)?;
        let sealed: Sealed = serde_json::from_str(text.expose_secret()).map_err(|_| foreign())?;
        let words = format!("(A summary of what was said before.)\n{}", sealed.summary);
        // As the user's words, not ours: a summary may carry what somebody wanted the model to obey. Without an id, since
        // it is nobody's item.
        let mut shown = vec![Arc::new(message(Role::User, words))];
        shown.extend(sealed.kept);
        shown.extend(items.into_iter().skip(last + 1));
        Ok(shown)
    }

    /// Summarises what goes before a turn, if the turn asks for that once it is longer than a threshold, and it is. The
    /// turn's own input is kept as it is. `whole`: whether `items` reach to the past's start. `owner`: whose the turn is.
    /// `made`: what an earlier look at the thread led to,
    /// which is not paid for again as long as it stands for the same.
    pub(super) async fn compact_if_asked(
        &self,
        start: &Start<'_>,
        owner: &str,
        items: &[Arc<Item>],
        whole: bool,
        own: &[OwnItem],
        made: &mut Option<Made>,
    ) -> Result<Shortened, ApiError> {
        let asked = start.request.context_management.iter().flatten().next();
        let Some(ContextManagement::Compaction { compact_threshold }) = asked else {
            return Ok(Shortened::No);
        };
        let threshold = match *compact_threshold {
            Some(given) if given < LEAST_THRESHOLD => {
                let place = "context_management[0].compact_threshold";
                let message =
                    format!("Invalid '{place}': expected at least {LEAST_THRESHOLD}, but got {given}.");
                return Err(ApiError::invalid("integer_below_min_value", place, message));
            }
            Some(given) => u64::from(given),
            // Room for an answer, and for a summary that is itself shorter.
            None => start.alias.context_window() / 4 * 3,
        };
        let past = &items[..items.len().saturating_sub(own.len())];
        let total: u64 = items.iter().map(|item| estimate_item(item)).sum();
        if total <= threshold || past.is_empty() {
            return Ok(Shortened::No);
        }
        // What was not read would be in no summary, and shown to no later turn.
        if !whole && start.request.truncation != Some(Truncation::Auto) {
            return Err(too_long_to_summarise(start.alias));
        }
        if let Some(made) = made.as_ref().filter(|made| made.stands_for(owner, items)) {
            return Ok(Shortened::To(made.item.clone()));
        }
        let sealer = self.sealer()?;
        // An output may not lose its call to the summary.
        let new: Vec<&Item> = own.iter().map(|own| &*own.item).collect();
        let answered = answered_by(&past.iter().map(|item| &**item).collect::<Vec<_>>(), &new);
        let answered = answered.into_iter().filter_map(|at| past.get(at)).cloned();
        let kept = answered.chain(own.iter().map(|own| Arc::clone(&own.item))).collect();
        let wanted = Wanted {
            who: start.who,
            response: start.id.0,
            alias: start.alias,
            past,
            instructions: None,
            admitted: start.admitted.map(Admitted::beside),
        };
        let written = match self.summarise(wanted).await {
            Ok(written) => written,
            Err(Unwritten::NotAsked(error)) => return Err(error),
            Err(Unwritten::InVain(error)) => return Ok(Shortened::InVain(error)),
        };
        let item = seal(sealer, owner, written.text, kept)?;
        *made = Some(Made { owner: owner.to_owned(), items: items.to_vec(), item: item.clone() });
        Ok(Shortened::To(item))
    }

    /// `POST /v1/responses/compact`: everything given, or everything up to a stored response, as one compaction item. The
    /// user's messages stand before it, for whoever reads the list; a model is shown what the compaction stands for.
    pub async fn compact(
        &self,
        who: &Principal,
        request: CompactRequest,
        admitted: Admitted,
    ) -> Result<CompactionResource, ApiError> {
        let CompactRequest { model, input, previous_response_id, instructions, prompt_cache_key } = request;
        let params = CreateResponse {
            model,
            input,
            previous_response_id,
            prompt_cache_key,
            store: Some(false),
            ..CreateResponse::default()
        };
        let _counted = self.under_way()?;
        params.validate()?;
        self.permit_feature(Feature::Compaction).await?;
        let (alias, items) = self.context(who, params).await?;
        self.permit(who, &alias).await?;
        let sealer = self.sealer()?;
        let id = Uuid::now_v7();
        let wanted = Wanted {
            who,
            response: id,
            alias: &alias,
            past: &items,
            instructions: instructions.as_deref(),
            admitted: Some(admitted),
        };
        let written = self.or_restarting(self.summarise(wanted).await.map_err(ApiError::from))?;
        let mut output: Vec<Item> =
            items.iter().filter(|item| is_users(item)).map(|item| (**item).clone()).collect();
        output.push(seal(sealer, &who.owner, written.text, Vec::new())?);
        Ok(CompactionResource {
            id: format!("resp_{id}"),
            object: "response.compaction",
            created_at: jiff::Timestamp::now().as_second(),
            output,
            usage: super::ends::shown(written.usage),
        })
    }

    /// What a request goes on from and says, all of it, to be summarised: no turn begins.
    async fn context(
        &self,
        who: &Principal,
        mut request: CreateResponse,
    ) -> Result<(Arc<Alias>, Vec<Arc<Item>>), ApiError> {
        let alias = self.alias(request.model.as_deref())?;
        let input = entries(request.input.take())?;
        let call = Call {
            transport: Transport::Http,
            idempotency_key: None,
            is_retry: false,
            digest: [0; 32],
            local: None,
            job: None,
        };
        let request = Arc::new(request);
        let start = Start {
            who,
            id: ResponseId::new(),
            request: &request,
            call: &call,
            alias: &alias,
            callback: None,
            admitted: None,
            committing: &Committing::default(),
        };
        let own = self.resolve(who, input).await?;
        let before = self.before(&start, &own, Reach::ToSummarise).await?;
        if !before.shown.whole {
            return Err(too_long_to_summarise(&alias));
        }
        let past = before.shown.items.len();
        let items: Vec<_> =
            before.shown.items.into_iter().chain(own.into_iter().map(|own| own.item)).collect();
        if items.is_empty() {
            return Err(ApiError::missing("input"));
        }
        let items = self.opened(who, before.window.as_ref(), items, past).await?;
        Ok((alias, items))
    }

    fn sealer(&self) -> Result<&Sealer, ApiError> {
        self.0.sealer.as_ref().ok_or_else(no_key)
    }
}

impl Made {
    /// Rarely asked, so that the items may be written out for it.
    fn stands_for(&self, owner: &str, items: &[Arc<Item>]) -> bool {
        let written = |items: &[Arc<Item>]| serde_json::to_vec(items).ok();
        self.owner == owner && self.items.len() == items.len() && written(&self.items) == written(items)
    }
}

/// A summary as an item that only its owner can use.
fn seal(sealer: &Sealer, owner: &str, summary: String, kept: Vec<Arc<Item>>) -> Result<Item, ApiError> {
    let sealed = serde_json::to_string(&Sealed { summary, kept }).map_err(|_| ApiError::internal())?;
    let sealed = sealer.seal(&context(owner), &SecretString::from(sealed)).map_err(|error| {
        tracing::error!(code = "compaction.unsealed", %error, "a summary could not be sealed");
        ApiError::internal()
    })?;
    Ok(Item::Compaction(Compaction {
        id: format!("cmp_{}", Uuid::now_v7()),
        encrypted_content: sealed,
        created_by: None,
    }))
}

/// Whether an item is a message that a user wrote; a summary put in their place has no id.
fn is_users(item: &Item) -> bool {
    matches!(item, Item::Message(message) if message.role == Role::User && !message.id.is_empty())
}

/// What a summary is bound to.
fn context(owner: &str) -> String {
    format!("compaction:{owner}")
}

fn no_key() -> ApiError {
    ApiError::unavailable(
        "compaction_unavailable",
        "Compaction needs a key that this server was not given; its operator sets ENCRYPTION_KEY.",
    )
    .should_retry(false)
}
