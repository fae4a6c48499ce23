//! What time makes superfluous of conversations, turns and their logs.

use colloquy::database::retention::Whose;
use colloquy::database::turns::{self, Aside, Finish};
use colloquy::database::{respond, retention, threads};
use colloquy::openresponses::ResponseStatus;
use jiff::Timestamp;
use uuid::Uuid;

use super::ago;
use super::retention::MOST_BATCHES;
use crate::services::Services;

/// Days of logs kept ready, today included. A missing one is made by the first turn that needs it.
const DAYS_READY: u32 = 3;

/// Makes the partitions of the coming days' logs, and drops those of which no log is kept any more.
pub async fn turn_logs(services: &Services) -> anyhow::Result<usize> {
    let mut client = services.database.client().await?;
    let made = retention::ensure_log_partitions(&client, Timestamp::now(), DAYS_READY).await?;
    let dropped = retention::drop_old_logs(&mut client, ago(services.config.work.log_retention)).await?;
    Ok(made + usize::try_from(dropped).unwrap_or_default())
}

/// Ends turns of jobs that died: their conversations are free again. A replay of such a job asks anew.
pub async fn end_orphans(services: &Services) -> anyhow::Result<usize> {
    const INTERRUPTED: &str = r#"{"code":"interrupted","message":"The job that asked for it has ended."}"#;
    let client = services.database.client().await?;
    let batch = i64::from(services.config.work.maintain_batch);
    let orphans = respond::orphans(&client, batch, Uuid::now_v7(), services.config.server.lease).await?;
    for orphan in &orphans {
        let finish = Finish {
            held: orphan.held,
            state: ResponseStatus::Failed,
            output: &[],
            incomplete_reason: None,
            error: Some(INTERRUPTED),
            usage: None,
            title: None,
            keep_log: services.config.work.log_retention,
            drop_failed_input: orphan.in_conversation,
            trace_parent: None,
            aside: Aside::Nothing,
            parts: 0,
        };
        turns::finish(&client, &finish).await?;
    }
    Ok(orphans.len())
}

/// Deletes conversations whose owner's time for them, or everybody's, is over.
pub async fn expire(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    let batch = i64::from(services.config.work.maintain_batch);
    let kept = &services.config.app.retention;
    let owners = kept.conversations();
    let except: Vec<&str> = owners.iter().map(|(owner, _)| *owner).collect();
    let of_owners = owners.iter().map(|(owner, time)| (Whose::Of(owner), *time));
    let of_all = kept.all_conversations().map(|time| (Whose::Except(&except), time));
    let mut total = 0;
    for (whose, time) in of_owners.chain(of_all) {
        for _ in 0..MOST_BATCHES {
            let gone = retention::expire_conversations(&client, whose, ago(time), batch).await?;
            total += gone;
            if gone < batch.unsigned_abs() {
                break;
            }
        }
    }
    Ok(usize::try_from(total).unwrap_or(usize::MAX))
}

/// Deletes turns that are past their time, were deleted, or whose conversation was, the callbacks that told of them, and
/// then such conversations.
pub async fn delete_turns(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    let work = &services.config.work;
    let batch = i64::from(work.maintain_batch);
    let mut total = 0;
    let owners = services.config.app.retention.responses();
    let except: Vec<&str> = owners.iter().map(|(owner, _)| *owner).collect();
    let of_owners =
        owners.iter().map(|(owner, kept)| retention::Superfluous::OfOwner { owner, before: ago(*kept) });
    let of_all = [
        retention::Superfluous::BegunBefore { before: ago(work.response_retention), except: &except },
        retention::Superfluous::Deleted,
        retention::Superfluous::OfDeletedConversations,
    ];
    for which in of_owners.chain(of_all) {
        for _ in 0..MOST_BATCHES {
            let deleted = retention::delete_responses(&client, which, batch).await?;
            total += deleted;
            if deleted < work.maintain_batch.into() {
                break;
            }
        }
    }
    let of_owners = owners.iter().map(|(owner, kept)| (Whose::Of(owner), *kept));
    for (whose, kept) in of_owners.chain([(Whose::Except(&except), work.response_retention)]) {
        for _ in 0..MOST_BATCHES {
            let deleted = retention::delete_turn_callbacks(&client, whose, ago(kept), batch).await?;
            total += deleted;
            if deleted < work.maintain_batch.into() {
                break;
            }
        }
    }
    total += retention::delete_conversations(&client, batch).await?;
    Ok(usize::try_from(total).unwrap_or(usize::MAX))
}

/// Deletes items and threads that nothing stands on any more.
pub async fn trim_threads(services: &Services) -> anyhow::Result<usize> {
    let mut client = services.database.client().await?;
    let batch = services.config.work.maintain_batch;
    let mut total = 0;
    for _ in 0..MOST_BATCHES {
        let transaction = client.transaction().await?;
        let looked_at = threads::trim_flagged(&transaction, batch.into()).await?;
        transaction.commit().await?;
        total += looked_at;
        if looked_at == 0 {
            break;
        }
    }
    Ok(total)
}
