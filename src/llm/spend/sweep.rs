//! What processes left behind that died.

use std::time::Duration;

use uuid::Uuid;

use crate::database::{Client, DatabaseError, Statements, budgets, usage};

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
    if dead.is_empty() {
        transaction.rollback().await?;
        return Ok(Swept::default());
    }
    let rows = settle(&transaction, &dead).await?;
    transaction.commit().await?;
    Ok(Swept { holders: dead.len(), rows })
}

/// The same for this process, which ends: turns that it could not store in time have open rows still. Takes it off the
/// list.
pub(super) async fn settle_own(client: &mut Client, holder: Uuid) -> Result<(), DatabaseError> {
    let transaction = client.transaction().await?;
    settle(&transaction, &[holder]).await?;
    budgets::retire(&transaction, holder).await?;
    transaction.commit().await
}

async fn settle(transaction: &impl Statements, holders: &[Uuid]) -> Result<u64, DatabaseError> {
    let mut rows = 0;
    loop {
        let abandoned = usage::abandoned(transaction, holders, ROWS).await?;
        if abandoned.is_empty() {
            break;
        }
        rows += usage::settle(transaction, &abandoned, true).await?;
    }
    budgets::close(transaction, holders, None).await?;
    Ok(rows)
}
