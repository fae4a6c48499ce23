//! What a turn is shown of the past: as much as the model's window holds, oldest first.

use std::sync::Arc;

use super::input::OwnItem;
use super::{Engine, away};
use crate::conversation::window::pairs::leave_out_unpaired;
use crate::conversation::window::{self, Past};
use crate::database::threads::{self, Anchor, StoredItem, Window};
use crate::llm::{Alias, estimate_params};
use crate::openresponses::{ApiError, CreateResponse, Item, Truncation};

/// Positions of a window that are read at most. Far more than any model's window holds in practice.
const WINDOW_ITEMS: i32 = 10_000;

impl Engine {
    /// What lies before an anchor. `None`: the anchor is not there for this owner.
    pub(super) async fn window(
        &self,
        owner: &str,
        anchor: Anchor,
        alias: &Alias,
    ) -> Result<Option<Window>, ApiError> {
        let client = self.client().await?;
        let most = i64::try_from(alias.context_window()).unwrap_or(i64::MAX);
        threads::load_window(&client, owner, anchor, WINDOW_ITEMS, most).await.map_err(away)
    }
}

/// The window's items that the model is shown before the turn's `own` input, if that is not in the window.
pub(super) fn fitting(
    window: &Window,
    request: &CreateResponse,
    alias: &Alias,
    truncation: Truncation,
    own: &[OwnItem],
) -> Result<Vec<Arc<Item>>, ApiError> {
    let mut past = window.items.iter().rev().map(past).collect::<Result<Vec<_>, _>>()?;
    // As `window` loads it: less than that ends where the thread begins.
    let most = usize::try_from(WINDOW_ITEMS).unwrap_or_default();
    let loaded: u64 = past.iter().map(|past| past.tokens).sum();
    let mut whole = past.len() < most && loaded <= alias.context_window();
    // A summary stands for everything before it.
    if let Some(summary) = past.iter().rposition(|past| matches!(*past.item, Item::Compaction(_))) {
        past.drain(..summary);
        whole = true;
        let before = past.first().map_or(0, |first| first.tokens_before);
        past.iter_mut().for_each(|past| past.tokens_before -= before);
    }
    leave_out_unpaired(&mut past, |past| &past.item, own.iter().map(|own| &*own.item));
    let (params, answer) = (estimate_params(request), kept_for_answer(request, alias));
    // Estimates run high: for the new input the past makes room where it may, but nothing is refused for it here. What is
    // to be summarised is not to be cut before.
    let summarised = request.context_management.iter().flatten().next().is_some();
    let fixed = params
        + match truncation {
            Truncation::Auto if !summarised => {
                let new: u64 = own.iter().map(|own| own.tokens).sum();
                new.min(alias.context_window().saturating_sub(params + answer))
            }
            _ => 0,
        };
    let start = window::fit(&past, whole, fixed, answer, alias.context_window(), truncation)?;
    Ok(past[start..].iter().map(|past| Arc::clone(&past.item)).collect())
}

/// What a model is shown of a past that a connection holds, before the turn's `own` input.
pub(super) fn paired(past: &[Arc<Item>], own: &[OwnItem]) -> Vec<Arc<Item>> {
    let mut past = past.to_vec();
    leave_out_unpaired(&mut past, |item| item, own.iter().map(|own| &*own.item));
    past
}

/// Tokens of the window that are kept for the answer: what the caller allows it, else the model's longest, but then no
/// more than a quarter.
fn kept_for_answer(request: &CreateResponse, alias: &Alias) -> u64 {
    let longest = u64::from(alias.max_output_tokens()).min(alias.context_window() / 4);
    request.max_output_tokens.map_or(longest, u64::from)
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
