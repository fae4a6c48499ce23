//! Embeddings: no turn, but under the same roof as turns.

use tokio::sync::oneshot;

use super::Engine;
use crate::access::Principal;
use crate::llm::{Embeddings, OpenLimits};
use crate::openresponses::ApiError;

impl Engine {
    /// The provider's answer to an embeddings request. Whoever drops the future ends the call.
    ///
    /// Errors: as [`Engine::create`].
    pub async fn embed(&self, _: &Principal, request: Embeddings) -> Result<Vec<u8>, ApiError> {
        let alias = self.alias(request.model().as_deref())?;
        if !alias.embeds() {
            let message = format!("The model '{}' gives no embeddings.", alias.name());
            return Err(ApiError::unsupported("model", message));
        }
        self.room()?;
        let limits = OpenLimits::default();
        let _leaving = limits.cancel.clone().drop_guard();
        let (sender, receiver) = oneshot::channel();
        let engine = self.clone();
        // In a task of its own: its attempts may have been charged, whether or not somebody still listens.
        self.0.tasks.spawn("embeddings", async move {
            let embedded = engine.0.router.embeddings(&alias, &request, limits).await;
            let result = embedded.result.map(|(body, _)| body).map_err(|error| {
                tracing::warn!(code = error.code, %error, "embeddings failed");
                error.to_api()
            });
            if sender.send(result).is_err() {
                tracing::debug!("nobody waits for these embeddings any more");
            }
        });
        receiver.await.unwrap_or_else(|_| Err(ApiError::internal()))
    }
}
