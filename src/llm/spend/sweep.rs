//! What processes left behind that died.

use std::time::Duration;

use crate::database::{Client, DatabaseError, budgets, usage};

const HOLDERS: i64 = 16;
const ROWS: i64 = 500;

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes given up as dead.
    pub holders: usize,
    /// Attempts settled as estimated.
    pub rows: u64,
}

/// Settles the open attempts of processes whose lease lapsed `grace` ago as what was set aside for them, and closes
/// their slices. Any number of sweeps may run. The caller must itself have reached the database for one whole lease.
pub async fn settle_dead(client: &mut Client, grace: Duration) -> Result<Swept, DatabaseError> {
    let transaction = client.transaction().await?;
    let dead = budgets::dead(&transaction, grace, HOLDERS).await?;
    let mut swept = Swept { holders: dead.len(), rows: 0 };
    if dead.is_empty() {
        transaction.rollback().await?;
        return Ok(swept);
    }
    loop {
        let abandoned = usage::abandoned(&transaction, &dead, ROWS).await?;
        if abandoned.is_empty() {
            break;
        }
        swept.rows += usage::settle(&transaction, &abandoned, true).await?;
    }
    budgets::close(&transaction, &dead, None).await?;
    transaction.commit().await?;
    Ok(swept)
}
