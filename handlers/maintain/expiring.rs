//! What the sweeps of retention would delete now, and in how many rows.

use colloquy::database::expiring::{self, Expiring};
use colloquy::database::maintenance;
use colloquy::database::retention::Whose;

use super::retention::{KEY_GRACE, kept};
use super::{ago, spending};
use crate::services::Services;

/// Everything whose time is over, by table, and by source or owner.
pub async fn expiring(services: &Services) -> anyhow::Result<Vec<Expiring>> {
    let client = services.database.client().await?;
    let work = &services.config.work;
    let mut found = Vec::new();
    for source in maintenance::sources_with_deliveries(&client).await? {
        found.extend(expiring::deliveries(&client, &source, ago(kept(services, &source))).await?);
    }
    found.extend(expiring::keys(&client, ago(KEY_GRACE)).await?);
    found.extend(expiring::letters(&client, ago(work.dead_letter_retention)).await?);

    let times = &services.config.app.retention;
    let owners = times.conversations();
    let except: Vec<&str> = owners.iter().map(|(owner, _)| *owner).collect();
    let of_all = times.all_conversations().map(|time| (Whose::Except(&except), time));
    for (whose, time) in owners.iter().map(|(owner, time)| (Whose::Of(owner), *time)).chain(of_all) {
        found.extend(expiring::conversations(&client, whose, ago(time)).await?);
    }
    let owners = times.responses();
    let except: Vec<&str> = owners.iter().map(|(owner, _)| *owner).collect();
    let of_all = [(Whose::Except(&except), work.response_retention)];
    for (whose, time) in owners.iter().map(|(owner, time)| (Whose::Of(owner), *time)).chain(of_all) {
        found.extend(expiring::responses(&client, whose, ago(time)).await?);
        found.extend(expiring::turn_callbacks(&client, whose, ago(time)).await?);
    }
    found.extend(expiring::logs(&client, ago(work.log_retention)).await?);
    found.extend(expiring::deleted(&client).await?);
    found.extend(expiring::usage(&client, spending::kept_from(services)).await?);
    Ok(found)
}
