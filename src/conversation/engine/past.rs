//! What a turn is shown of the past: as much as the model's window holds, oldest first.

use std::sync::Arc;

use super::create::Local;
use super::input::OwnItem;
use super::{Engine, away};
use crate::conversation::window::pairs::leave_out_unpaired;
use crate::conversation::window::{self, EXCEEDED, Past, exceeded, fit_input};
use crate::database::threads::{self, Anchor, StoredItem, Window};
use crate::llm::{Alias, estimate_item, estimate_params, least_tokens};
use crate::openresponses::{ApiError, CreateResponse, Item, Truncation};

/// Positions of a window that are read at most. Far more than any model's window holds in practice.
const WINDOW_ITEMS: i32 = 10_000;
/// Estimates run high: what may not be cut is read as far as it may fit after all.
const AT_MOST_OVERSTATED: u64 = 3;

/// How much of a past is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// As much as the model's window holds; the oldest is left out.
    Fitting,
    /// All of it, or an error.
    Whole,
    /// As much as can be read, whether or not it fits: it may have to be summarised.
    ToSummarise,
}

impl Reach {
    /// What `truncation` says.
    pub fn without_summary(request: &CreateResponse) -> Self {
        match request.truncation.unwrap_or_default() {
            Truncation::Auto => Self::Fitting,
            Truncation::Disabled => Self::Whole,
        }
    }

    /// What a request asks for.
    pub fn of(request: &CreateResponse) -> Self {
        if is_summarised(request) { Self::ToSummarise } else { Self::without_summary(request) }
    }

    /// Tokens of a window that are read.
    fn tokens(self, alias: &Alias) -> u64 {
        match self {
            Self::Fitting => alias.context_window(),
            Self::Whole | Self::ToSummarise => alias.context_window().saturating_mul(AT_MOST_OVERSTATED),
        }
    }
}

/// What is shown of a past, or summarised.
#[derive(Debug)]
pub(super) struct Shown {
    /// Oldest first.
    pub items: Vec<Arc<Item>>,
    /// Nothing before them was left out because it could not be read.
    pub whole: bool,
}

impl Engine {
    /// What lies before an anchor. `None`: the anchor is not there for this owner.
    pub(super) async fn window(
        &self,
        owner: &str,
        anchor: Anchor,
        alias: &Alias,
        reach: Reach,
    ) -> Result<Option<Window>, ApiError> {
        let client = self.client().await?;
        let most = i64::try_from(reach.tokens(alias)).unwrap_or(i64::MAX);
        threads::load_window(&client, owner, anchor, WINDOW_ITEMS, most).await.map_err(away)
    }
}

/// The window's items that the model is shown before the turn's `own` input, if that is not in the window.
pub(super) fn fitting(
    window: &Window,
    request: &CreateResponse,
    alias: &Alias,
    reach: Reach,
    own: &[OwnItem],
) -> Result<Shown, ApiError> {
    let mut past = window.items.iter().rev().map(past).collect::<Result<Vec<_>, _>>()?;
    // As `window` loads it: less than that ends where the thread begins.
    let most = usize::try_from(WINDOW_ITEMS).unwrap_or_default();
    let loaded: u64 = past.iter().map(|past| past.tokens).sum();
    let mut whole = past.len() < most && loaded <= reach.tokens(alias);
    // A summary stands for everything before it.
    if let Some(summary) = past.iter().rposition(|past| matches!(*past.item, Item::Compaction(_))) {
        past.drain(..summary);
        whole = true;
        let before = past.first().map_or(0, |first| first.tokens_before);
        past.iter_mut().for_each(|past| past.tokens_before -= before);
    }
    leave_out_unpaired(&mut past, |past| &past.item, own.iter().map(|own| &*own.item));
    match reach {
        Reach::Fitting => Ok(Shown { items: newest(&past, whole, request, alias, own), whole: true }),
        Reach::Whole if !whole => {
            let least = least_tokens(request, past.iter().map(|past| &*past.item));
            Err(exceeded(least.max(alias.context_window()), alias.context_window()))
        }
        Reach::Whole | Reach::ToSummarise => {
            Ok(Shown { items: past.into_iter().map(|past| past.item).collect(), whole })
        }
    }
}

/// 400: a past that is not read to its start cannot be made short without losing what is not read.
pub(super) fn too_long_to_summarise(alias: &Alias) -> ApiError {
    let message = format!(
        "What goes before is longer than can be summarised: more than {} tokens, as this server counts. Set 'truncation' \
         to 'auto' to leave out the oldest, or go on from a response whose past is shorter.",
        Reach::ToSummarise.tokens(alias)
    );
    ApiError::invalid(EXCEEDED, "input", message)
}

/// What is too long although it was to be made short: that did not come about for another reason, which may pass.
pub(super) fn blamed(error: ApiError, in_vain: Option<&ApiError>) -> ApiError {
    match in_vain {
        Some(why) if error.code == EXCEEDED => ApiError {
            message: format!(
                "What goes before does not fit the model's window, and could not be summarised. {}",
                why.message
            ),
            ..why.clone()
        },
        _ => error,
    }
}

/// Whether the model's window holds items beside an answer, as we count.
pub(super) fn fits(items: &[Arc<Item>], request: &CreateResponse, alias: &Alias) -> bool {
    let beside = estimate_params(request) + kept_for_answer(request, alias);
    beside + items.iter().map(|item| estimate_item(item)).sum::<u64>() <= alias.context_window()
}

/// The end of a past that the window holds, with room for the new input.
fn newest(
    past: &[Past],
    whole: bool,
    request: &CreateResponse,
    alias: &Alias,
    own: &[OwnItem],
) -> Vec<Arc<Item>> {
    let (params, answer) = (estimate_params(request), kept_for_answer(request, alias));
    if own.is_empty() {
        // What is new stands at the past's end, and stays.
        let room = alias.context_window().saturating_sub(params + answer);
        return fit_input(past.iter().map(|past| Arc::clone(&past.item)).collect(), room);
    }
    let new: u64 = own.iter().map(|own| own.tokens).sum();
    let start = window::fit(past, whole, params + new, answer, alias.context_window());
    past[start..].iter().map(|past| Arc::clone(&past.item)).collect()
}

/// What a model is shown of a past that a connection holds, before the turn's `own` input. `most`: bytes that may be
/// held.
pub(super) fn held(
    local: &Local,
    request: &CreateResponse,
    alias: &Alias,
    own: &[OwnItem],
    most: usize,
) -> Result<Vec<Arc<Item>>, ApiError> {
    let mut past = local.items.clone();
    leave_out_unpaired(&mut past, |item| item, own.iter().map(|own| &*own.item));
    if Reach::of(request) == Reach::Fitting {
        past = newest(&Past::of(past.into_iter()), true, request, alias, own);
    }
    let bytes: usize = past.iter().map(|item| bytes_of(item)).sum::<usize>()
        + own.iter().map(|own| own.json.len()).sum::<usize>();
    if bytes > most {
        let message = format!(
            "This connection would hold {bytes} bytes of turns that are not stored, and may hold {most} \
             (WEBSOCKET_CONTEXT_MAX). Set 'truncation' to 'auto', store the turns, or begin anew without \
             'previous_response_id'."
        );
        return Err(ApiError::invalid("connection_context_exceeded", "previous_response_id", message));
    }
    Ok(past)
}

/// What a model is shown at all. Under `auto` the new input, too, is cut from its start until it fits; nothing is sent
/// that surely does not. What only seems too long is the provider's to refuse.
pub(super) fn shown(
    items: Vec<Arc<Item>>,
    request: &CreateResponse,
    alias: &Alias,
) -> Result<Vec<Arc<Item>>, ApiError> {
    let size = alias.context_window();
    let mut items = items;
    if request.truncation == Some(Truncation::Auto) {
        let beside = estimate_params(request) + kept_for_answer(request, alias);
        let room = size.saturating_sub(beside);
        if items.iter().map(|item| estimate_item(item)).sum::<u64>() > room {
            items = fit_input(items, room);
        }
    }
    let least = least_tokens(request, items.iter().map(|item| &**item));
    if least > size {
        return Err(exceeded(least, size));
    }
    Ok(items)
}

/// Whether a turn asks for a summary of a long past.
pub(super) fn is_summarised(request: &CreateResponse) -> bool {
    request.context_management.iter().flatten().next().is_some()
}

/// About what an item takes in memory.
fn bytes_of(item: &Item) -> usize {
    /// Counts what is written.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, item) {
        Ok(()) => count.0,
        Err(_) => 0,
    }
}

/// Tokens of the window that are kept for the answer: what the caller allows it, else the model's longest, but then no
/// more than a quarter.
fn kept_for_answer(request: &CreateResponse, alias: &Alias) -> u64 {
    let longest = u64::from(alias.max_output_tokens());
    let usual = longest.min(alias.context_window() / 4);
    request.max_output_tokens.map_or(usual, |asked| u64::from(asked).min(longest))
}

fn past(stored: &StoredItem) -> Result<Past, ApiError> {
    Ok(Past {
        tokens_before: u64::try_from(stored.tokens_before).unwrap_or_default(),
        tokens: u64::try_from(stored.tokens).unwrap_or_default(),
        item: Arc::new(parse_item(&stored.data)?),
    })
}

/// An item as it was stored.
pub(super) fn parse_item(json: &str) -> Result<Item, ApiError> {
    serde_json::from_str(json).map_err(|error| {
        tracing::error!(
            code = "item.unreadable",
            line = error.line(),
            "a stored item cannot be read; a newer version may have written it"
        );
        ApiError::internal()
    })
}
