//! Which deployments take a request, and the request in their formats.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;

use super::super::deployment::Deployment;
use super::super::error::{ErrorClass, LlmError};
use super::super::providers::{self, Call};
use super::super::{ModelRequest, fields};
use super::attempts::{Journey, Work};
use crate::config::app::ProviderKind;
use crate::openresponses::{ContentPart, Item};
use crate::switches::SwitchKind;

/// One deployment that takes the request, with the body for it once it was needed.
pub(super) struct Candidate {
    pub deployment: Arc<Deployment>,
    body: OnceLock<Bytes>,
}

impl Journey<'_> {
    /// Deployments that take the request's fields; the refusal if none does.
    pub(super) fn candidates(&self) -> Result<Vec<Candidate>, LlmError> {
        let mut refusal = None;
        let mut found = Vec::new();
        let (switches, now) = (self.router.switches.known(), Timestamp::now());
        let mut stopped = false;
        for deployment in &self.alias.deployments {
            let switch = switches
                .as_ref()
                .and_then(|switches| switches.stopped(SwitchKind::Deployment, &deployment.name, now));
            if switch.is_some() {
                stopped = true;
                continue;
            }
            match self.check(deployment) {
                Ok(()) => found.push(Candidate { deployment: Arc::clone(deployment), body: OnceLock::new() }),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        match refusal {
            Some(refusal) if found.is_empty() => Err(refusal),
            None if found.is_empty() && stopped => Err(LlmError::new(ErrorClass::Unavailable)),
            None if found.is_empty() => Err(LlmError::new(ErrorClass::NotFound)),
            _ => Ok(found),
        }
    }

    fn check(&self, deployment: &Deployment) -> Result<(), LlmError> {
        let config = &deployment.config;
        let request = match self.work {
            Work::Embeddings(_) if deployment.embeds() => return Ok(()),
            Work::Embeddings(_) => {
                return Err(LlmError::refused("model", "This model gives no embeddings."));
            }
            Work::Answer(request) => request,
        };
        fields::check(&request.params, config.provider).map_err(|refused| {
            LlmError::refused(refused.param.as_deref().unwrap_or_default(), refused.message)
        })?;
        if !config.vision && has(request, |part| matches!(part, ContentPart::InputImage { .. })) {
            return Err(LlmError::refused("input", "This model takes no images."));
        }
        if !config.files && has(request, |part| matches!(part, ContentPart::InputFile { .. })) {
            return Err(LlmError::refused("input", "This model takes no files."));
        }
        Ok(())
    }

    /// The body in the deployment's format, made when it is first needed.
    pub(super) fn body(&self, candidate: &Candidate) -> Result<Bytes, LlmError> {
        if let Some(body) = candidate.body.get() {
            return Ok(body.clone());
        }
        let deployment = &candidate.deployment;
        let config = &deployment.config;
        let body = match self.work {
            Work::Embeddings(embeddings) => embeddings.body(deployment),
            Work::Answer(_) if config.provider == ProviderKind::Demo => Vec::new(),
            Work::Answer(request) => {
                let reasoning = self.alias.config.reasoning;
                providers::body(&Call { deployment: &deployment.name, config, reasoning, request })?
            }
        };
        Ok(candidate.body.get_or_init(|| body.into()).clone())
    }
}

fn has(request: &ModelRequest, wanted: impl Fn(&ContentPart) -> bool) -> bool {
    request.items.iter().any(|item| match &**item {
        Item::Message(message) => message.content.iter().any(&wanted),
        _ => false,
    })
}
