//! Usage of past days as sums, and the rows behind them that need not be kept.

use colloquy::database::rollups;
use colloquy::llm::spend::today;
use jiff::ToSpan;
use jiff::civil::Date;

use super::retention::MOST_BATCHES;
use crate::services::Services;

/// Days that one tick sums: enough to catch up, and to look at every day once a day.
const MOST_DAYS: usize = 40;

/// The first day of which rows of usage are kept.
pub fn kept_from(services: &Services) -> Date {
    let days = services.config.work.usage_retention.as_secs().div_ceil(24 * 3600);
    today().saturating_sub(i32::try_from(days).unwrap_or(i32::MAX).days())
}

/// Sums days that are over, and those again whose rows may have come late.
pub async fn roll_up(services: &Services) -> anyhow::Result<usize> {
    let mut client = services.database.client().await?;
    let mut rolled = 0;
    while rolled < MOST_DAYS && rollups::roll_next(&mut client, today()).await?.is_some() {
        rolled += 1;
    }
    while rolled < MOST_DAYS && rollups::roll_again(&mut client, today()).await?.is_some() {
        rolled += 1;
    }
    Ok(rolled)
}

/// Deletes rows of usage past their time, and budgets of such days.
pub async fn delete_usage(services: &Services) -> anyhow::Result<usize> {
    let mut client = services.database.client().await?;
    let (before, batch) = (kept_from(services), i64::from(services.config.work.maintain_batch));
    let mut total = 0;
    for _ in 0..MOST_BATCHES {
        let gone = rollups::empty(&mut client, before, batch).await?;
        total += gone;
        if gone == 0 {
            break;
        }
    }
    total += rollups::delete_budgets(&client, before, batch).await?;
    Ok(usize::try_from(total).unwrap_or(usize::MAX))
}
