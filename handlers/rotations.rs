//! Jobs `note-rotation`: what a key vault tells of secrets opens rotations; upkeep closes them.

use colloquy::config::UNLABELLED;
use colloquy::database::rotations::{self as stored, Announced};
use colloquy::database::work::{ClaimedEvent, ClaimedWork};
use colloquy::database::{Client, DatabaseError};
use colloquy::events::vault::{Happened, VaultEvent, proves};
use colloquy::jobs::state::Failure;
use colloquy::telemetry::metrics;

use crate::payload::{self, PayloadTrouble};
use crate::run_job::again;
use crate::services::Services;
use crate::work::{End, outage};

/// Writes down what a vault told. Told again, it changes nothing.
pub async fn note(services: &Services, claimed: &ClaimedWork, event: &ClaimedEvent) -> End {
    let body = match payload::of(services, event).await {
        Ok(body) => body,
        Err(PayloadTrouble::Gone(failure)) => return End::GiveUp(failure),
        Err(PayloadTrouble::Outage(failure)) => return outage(services, claimed, failure),
    };
    let told = match VaultEvent::read(&event.event_type, &body) {
        Ok(Some(told)) => told,
        // The route's pattern is wider than what there is to do.
        Ok(None) => return End::Done,
        Err(what) => return End::GiveUp(Failure::new("vault_event_malformed", what)),
    };
    let noted = async {
        let client = services.database.client().await?;
        if told.happened == Happened::NewVersion {
            return stored::renewed(&client, &told.vault, &told.secret, &told.version).await.map(|_| false);
        }
        let proof = proves(&told.secret, services.sources.keys().map(String::as_str), UNLABELLED);
        let label = proof.as_ref().map(|(source, label)| configured(services, source, label));
        let announced = Announced {
            vault: &told.vault,
            secret: &told.secret,
            version: &told.version,
            expires_at: told.expires_at,
            source: proof.as_ref().map(|(source, _)| *source),
            label: label.as_deref(),
            expired: told.happened == Happened::Expired,
        };
        stored::announce(&client, &announced).await
    };
    match noted.await {
        Ok(opened) => {
            if opened {
                tracing::warn!(
                    code = "rotation_opened",
                    secret = told.secret,
                    vault = told.vault,
                    expires_at = told.expires_at.map(|at| at.to_string()),
                    "a secret has to be replaced; see `function-handlers rotations list`"
                );
            }
            End::Done
        }
        Err(error) if error.is_outage() => {
            outage(services, claimed, Failure::new(error.code(), error.to_string()))
        }
        Err(error) => again(services, claimed, Failure::new(error.code(), error.to_string())),
    }
}

/// A label as the source's setting spells it: names in a vault know neither case nor `_`.
fn configured(services: &Services, source: &str, label: &str) -> String {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let known = services.config.webhook_secrets.of(source).iter().map(|secret| &secret.label);
    known.into_iter().find(|known| plain(known) == plain(label)).cloned().unwrap_or_else(|| label.to_owned())
}

/// Closes rotations whose old secret nobody uses any more.
pub async fn close_done(services: &Services) -> anyhow::Result<usize> {
    let client = services.database.client().await?;
    let work = &services.config.work;
    let closed = stored::close_done(&client, work.rotation_alone, work.maintain_batch.into()).await?;
    for rotation in &closed {
        tracing::info!(
            code = "rotation_closed",
            rotation = %rotation.id,
            secret = rotation.secret,
            outcome = rotation.outcome,
            "the old secret is not used any more; take its setting away and disable its version"
        );
    }
    Ok(closed.len())
}

/// Sets the gauges.
pub async fn measure(client: &Client) -> Result<(), DatabaseError> {
    let (near, over) = stored::open(client).await?;
    metrics::open_rotations("near", near.unsigned_abs());
    metrics::open_rotations("expired", over.unsigned_abs());
    Ok(())
}
