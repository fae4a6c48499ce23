//! What operators look at: lists and single rows, shaped for tables and for JSON.

mod audit;
mod dead_letters;
mod events;
mod turns;
mod work;

pub use audit::{AuditFilter, AuditLine, audit};
pub use dead_letters::{DeadLetter, DeadLetterFilter, dead_letter, dead_letters};
pub(super) use dead_letters::{FILTER as DEAD_LETTERS_THAT_MATCH, params as dead_letter_params};
pub use events::{EventDetail, EventFilter, EventLine, event, events};
pub use turns::{TurnFilter, TurnLine, TurnOfEvent, owner_of_turn, turns, turns_of_event};
pub use work::{WorkFilter, WorkLine, work, work_of, work_of_event};
pub(super) use work::{awaits, public_id};

use super::DatabaseError;
use super::responses::{Order, Page, PageOf, paged};

/// How a list by id goes on behind `after`: the comparison, and the order's direction.
const fn direction(order: Order) -> (&'static str, &'static str) {
    match order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    }
}

/// What is read to know whether there is more.
fn one_more<C>(page: &PageOf<C>) -> i64 {
    i64::from(page.limit) + 1
}

/// A part of a list out of rows of which one may be too many.
fn page_of<T>(
    entries: impl Iterator<Item = Result<T, DatabaseError>>,
    limit: u32,
) -> Result<Page<T>, DatabaseError> {
    Ok(paged(entries.collect::<Result<_, _>>()?, limit))
}
