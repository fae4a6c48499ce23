//! What is an owner's: counted, read out, deleted.

use serde::Serialize;
use serde_json::json;

use super::{OperationError, Operations};
use crate::access::owners::{Erased, Erasure, data_of, pseudonym};
use crate::config::app::Stop;
use crate::database::audit::{self, Actor, Entry};
use crate::database::owners::{self, EXPORTS, Export, ExportPage, Held, Live};
use crate::switches::SwitchKind;
use jiff::Timestamp;

/// What there is of an owner, and so what deleting it would take.
#[derive(Clone, Debug, Serialize)]
pub struct OwnerShown {
    pub owner: String,
    /// Rows by table.
    pub held: Vec<Held>,
    /// What runs now.
    pub live: Live,
    /// How a switch over the owner stops it. Deleting leaves that as it is: it may be what keeps the owner out.
    pub switched: Option<Stop>,
}

impl OwnerShown {
    pub fn rows(&self) -> i64 {
        self.held.iter().map(|held| held.rows).sum()
    }
}

impl Operations {
    /// What there is of an owner. Changes nothing.
    pub async fn owner(&self, owner: &str) -> Result<OwnerShown, OperationError> {
        let data = data_of(owner, &self.app);
        let client = self.client().await?;
        let (held, live) = (owners::counts(&client, &data).await?, owners::live(&client, &data).await?);
        let switches = self.switches.current().await.unwrap_or_default();
        let switched = switches.stopped(SwitchKind::Owner, owner, Timestamp::now());
        Ok(OwnerShown { owner: owner.to_owned(), held, live, switched: switched.map(|stopped| stopped.stop) })
    }

    /// Deletes everything of an owner that may go. Cut anywhere, it is begun again and goes on with what is left.
    /// `cancel`: turns in progress are asked to stop, and waited for.
    pub async fn erase_owner(
        &self,
        owner: &str,
        cancel: bool,
        actor: Actor<'_>,
    ) -> Result<Erased, OperationError> {
        let container = self.storage.as_ref().map(|storage| storage.container(&self.container));
        let spooled = self.storage.as_ref().map(|storage| storage.queue(&self.queues.usage));
        let erasure = Erasure {
            database: &self.database,
            container: container.as_ref(),
            spooled: spooled.as_ref(),
            batch: self.batch,
        };
        Ok(erasure.run(&data_of(owner, &self.app), cancel, actor.name, actor.reason).await?)
    }

    /// A file of an export by its name.
    pub fn export(name: &str) -> Option<&'static Export> {
        EXPORTS.iter().find(|export| export.name == name)
    }

    /// Some lines of a file, behind the key of the last one given.
    pub async fn export_page(
        &self,
        owner: &str,
        export: &Export,
        after: Option<&str>,
        limit: i64,
    ) -> Result<ExportPage, OperationError> {
        let data = data_of(owner, &self.app);
        let after = after.unwrap_or(export.first());
        Ok(owners::page(&self.client().await?, &data, export, after, limit).await?)
    }

    /// The body of an event that stands in a blob, as an exported line names it. `None`: it is gone.
    pub async fn exported_body(&self, blob: &str) -> Result<Option<Vec<u8>>, OperationError> {
        Ok(self.container()?.get(blob).await?.map(|body| body.to_vec()))
    }

    /// Writes down that an owner's data was read out.
    pub async fn audit_export(
        &self,
        owner: &str,
        what: &impl Serialize,
        actor: Actor<'_>,
    ) -> Result<(), OperationError> {
        let entry = Entry {
            actor: actor.name.to_owned(),
            action: "owner.export",
            subject: pseudonym(owner),
            detail: Some(json!({ "reason": actor.reason, "lines": what })),
        };
        Ok(audit::write(&self.client().await?, &[entry]).await?)
    }
}
