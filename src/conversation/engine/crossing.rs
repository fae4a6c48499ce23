//! What is another owner's is answered like what never was. Operators are told that somebody asked for it.

use std::sync::Arc;

use super::Engine;
use crate::access::OWNER_CROSSED;
use crate::database::grants;
use crate::ids::{ConversationId, ResponseId};
use crate::telemetry::metrics;

/// Looks at once. Beyond, crossings are not told of one by one; a flood of them shows all the same.
pub(super) const LOOKS: usize = 4;

impl Engine {
    /// Says so if what a caller was told is not there is another owner's. Behind the answer, which must not take longer
    /// for it.
    pub fn look_whose(&self, caller: &str, id: &str) {
        let prefixes = [ConversationId::PREFIX, ResponseId::PREFIX];
        let named = id.split_once('_').filter(|(prefix, _)| prefixes.contains(prefix));
        let Some(wanted) = named.and_then(|(_, id)| id.parse().ok()) else { return };
        let Ok(look) = Arc::clone(&self.0.looks).try_acquire_owned() else { return };
        let (engine, caller, id) = (self.clone(), caller.to_owned(), id.to_owned());
        self.0.tasks.spawn("owner crossed", async move {
            let _look = look;
            let asked =
                async { grants::is_anothers(&engine.0.database.client().await?, &caller, wanted).await };
            match asked.await {
                Ok(true) => {
                    metrics::access_refused(OWNER_CROSSED);
                    tracing::warn!(code = OWNER_CROSSED, id, "a caller asked for what is another owner's");
                }
                Ok(false) => {}
                Err(error) => metrics::database_error(error.code()),
            }
        });
    }
}
