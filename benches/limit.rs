//! What the intake cannot go below: warp, one HMAC over the body, an answer. With a storage account also the message, put
//! by the client that the intake uses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colloquy::azure::{Queue, Storage, StorageSettings};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use warp::Filter;

/// Listens until it is killed.
#[derive(clap::Args)]
pub struct Limit {
    #[arg(long)]
    port: u16,
    /// What the sender signs with
    #[arg(long)]
    secret: String,
    /// Connection string of a storage account, whose queue `limit` gets the body
    #[arg(long)]
    storage: Option<String>,
}

impl Limit {
    pub async fn run(self) -> anyhow::Result<()> {
        let queue = self.storage.as_deref().map(|text| {
            anyhow::Ok(Storage::new(StorageSettings::from_connection_string(text)?)?.queue("limit"))
        });
        let (queue, secret) = (queue.transpose()?, Arc::<[u8]>::from(self.secret.as_bytes()));
        let route = warp::post()
            .and(warp::path!("api" / "webhooks" / "stripe"))
            .and(warp::header::<String>("stripe-signature"))
            .and(warp::body::bytes())
            .then(move |signature: String, body: Bytes| {
                let (secret, queue) = (Arc::clone(&secret), queue.clone());
                async move { answer(&secret, &signature, &body, queue.as_ref()).await }
            });
        warp::serve(route).run(([127, 0, 0, 1], self.port)).await;
        Ok(())
    }
}

async fn answer(secret: &[u8], signature: &str, body: &[u8], queue: Option<&Queue>) -> http::StatusCode {
    if !is_genuine(secret, signature, body) {
        return http::StatusCode::UNAUTHORIZED;
    }
    match (queue, std::str::from_utf8(body)) {
        (None, _) => http::StatusCode::OK,
        (Some(queue), Ok(text)) if queue.put(text, Duration::ZERO).await.is_ok() => http::StatusCode::OK,
        _ => http::StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `t=<unix seconds>,v1=<hex>`, as Stripe signs; nothing but the HMAC is looked at.
fn is_genuine(secret: &[u8], signature: &str, body: &[u8]) -> bool {
    let Some((at, sent)) = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")) else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut wanted = [0; 32];
    for (byte, digits) in wanted.iter_mut().zip(sent.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    mac.verify_slice(&wanted).is_ok()
}
