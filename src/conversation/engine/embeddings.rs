//! Embeddings: no turn, but under the same roof as turns.

use super::Engine;
use crate::access::{Admitted, Principal};
use crate::llm::spend::Reason;
use crate::llm::{Embeddings, ErrorClass, OpenLimits};
use crate::openresponses::ApiError;
use crate::switches::Feature;

impl Engine {
    /// The provider's answer to an embeddings request. Whoever drops the future ends the call. `admitted`: the caller's
    /// room, which the call takes up until its end.
    ///
    /// Errors: as [`Engine::create`].
    pub async fn embed(
        &self,
        who: &Principal,
        request: Embeddings,
        admitted: Admitted,
    ) -> Result<Vec<u8>, ApiError> {
        let _counted = self.under_way()?;
        let name = request.model();
        let alias = self.alias(name.as_deref())?;
        if !alias.embeds() {
            let message = format!("The model '{}' gives no embeddings.", alias.name());
            return Err(ApiError::unsupported("model", message));
        }
        self.permit_feature(Feature::Embeddings).await?;
        self.permit(who, &alias).await?;
        self.room()?;
        let mut paying = self.reserve_embeddings(who, &alias, request.estimated_input()).await?;
        paying.admitted = Some(admitted);
        self.0.spend.open(&paying.first);
        let limits = OpenLimits { cancel: self.leaving(), ..paying.limits(&self.0.spend, false) };
        let (engine, left) = (self.clone(), limits.cancel.clone());
        // Its attempts may have been charged, whether or not somebody still listens.
        let embedding = self.outlive("embeddings", left, async move {
            let embedded = engine.0.router.embeddings(&alias, &request, limits).await;
            let (reason, usage) = match &embedded.result {
                Ok((_, usage)) => (Reason::Completed, *usage),
                Err(error) if error.class == ErrorClass::Cancelled => (Reason::Disconnected, None),
                Err(error) => {
                    tracing::warn!(code = error.code, %error, "embeddings failed");
                    (Reason::Failed, None)
                }
            };
            paying.embedded(embedded.attempts, reason == Reason::Completed, usage);
            let rows = paying.settlements(&[], reason);
            rows.iter().for_each(|row| engine.0.spend.settle(row.clone()));
            paying.charge(&rows);
            embedded.result.map(|(body, _)| body).map_err(|error| error.to_api())
        });
        self.or_restarting(embedding.await?)
    }
}
