//! Embeddings: the caller's body with the deployment's model in it, the provider's answer as it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::TokenUsage;
use super::super::demo;
use super::super::deployment::Deployment;
use super::super::error::{ErrorClass, LlmError};
use super::super::json::Json;
use super::attempts::{Done, Work};
use super::{Alias, AttemptReport, OpenLimits, Router};
use crate::openresponses::{ApiError, parse};
use crate::telemetry::metrics::{Metric, record};

/// The body of `POST /v1/embeddings`; only `model` is looked at, the rest goes on as it is.
#[derive(Clone, Debug)]
pub struct Embeddings {
    fields: BTreeMap<String, Box<RawValue>>,
}

/// An answer to it.
#[derive(Debug)]
pub struct Embedded {
    /// The provider's body, and the tokens if it told them; or why there is none.
    pub result: Result<(Vec<u8>, Option<TokenUsage>), LlmError>,
    pub attempts: Vec<AttemptReport>,
}

#[derive(Deserialize)]
struct Answer {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
}

impl Embeddings {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let fields: BTreeMap<String, Box<RawValue>> = parse(body)?;
        if !fields.contains_key("input") {
            return Err(ApiError::missing("input"));
        }
        Ok(Self { fields })
    }

    /// The value of `model`.
    pub fn model(&self) -> Option<String> {
        serde_json::from_str(self.fields.get("model")?.get()).ok()
    }

    /// Tokens of the input, roughly.
    pub fn estimated_input(&self) -> u64 {
        self.fields.get("input").map_or(0, |input| (input.get().len() as u64).div_ceil(3))
    }

    pub(super) fn body(&self, deployment: &Deployment) -> Vec<u8> {
        let mut json = Json::with_capacity(1_024);
        json.open(b'{').pair("model", &*deployment.model);
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != "model") {
            json.pair(name, value);
        }
        json.close(b'}');
        json.finish()
    }

    pub(super) fn demo(&self) -> Result<Vec<u8>, LlmError> {
        let field = |name: &str| self.fields.get(name).map(|value| value.get());
        demo::embeddings(field("input").unwrap_or("\"\""), field("dimensions"), field("encoding_format"))
    }
}

impl Router {
    /// Embeddings from the alias's deployments, with the same failover as answers.
    pub async fn embeddings(&self, alias: &Alias, request: &Embeddings, limits: OpenLimits) -> Embedded {
        let mut attempts = Vec::new();
        let work = Work::Embeddings(request);
        let result = match Box::pin(self.travel(alias, work, &limits, &mut attempts)).await {
            Ok(Done::Embedded(body)) => match serde_json::from_slice::<Answer>(&body) {
                Ok(answer) => {
                    let told = answer.usage.and_then(|usage| usage.prompt_tokens);
                    if let (Some(report), Some(input)) = (attempts.last(), told) {
                        let attributes = ["embeddings", report.provider, &*report.model, "input"];
                        record(Metric::GenAiTokens, input, &attributes);
                    }
                    Ok((body, told.map(|input| TokenUsage { input, ..TokenUsage::default() })))
                }
                Err(_) => Err(LlmError::new(ErrorClass::Protocol).charged(true)),
            },
            Ok(Done::Begun(_)) => Err(LlmError::new(ErrorClass::Protocol)),
            Err(error) => Err(error),
        };
        Embedded { result, attempts }
    }
}
