//! The router against fake providers: real HTTP, every oddity, every way to fail.

mod failing;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use colloquy::config::{AppConfig, LlmConfig, fixed};
use colloquy::llm::{
    Chunk, Finish, LlmError, ModelRequest, OpenLimits, OpenStream, Opened, Router, TokenUsage, Upstream,
};
use colloquy::openresponses::{ContentPart, CreateResponse, Item, ItemStatus, Message, Role};

use crate::support::providers::FakeProvider;

/// Impatient, so that nothing takes long.
fn settings() -> LlmConfig {
    LlmConfig { retry_base: Duration::from_millis(20), ..LlmConfig::default() }
}

/// An alias `it` over these deployments, with these further keys.
fn router(providers: &[&FakeProvider], alias: &str, config: LlmConfig) -> Router {
    let mut text = String::new();
    let mut names = Vec::new();
    for (at, provider) in providers.iter().enumerate() {
        text += &provider.deployment(&format!("d{at}"), "requests_per_minute = 0\ntokens_per_minute = 0");
        names.push(format!("\"d{at}\""));
    }
    text += &format!("[models.it]\ndeployments = [{}]\n{alias}\n", names.join(", "));
    router_of(&text, config)
}

fn router_of(text: &str, config: LlmConfig) -> Router {
    let app =
        AppConfig::parse(text, Some(&fixed([])), &[]).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"));
    Router::new(&app, config, None).unwrap()
}

fn request(text: &str) -> ModelRequest {
    let message = Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role: Role::User,
        content: vec![ContentPart::InputText { text: text.to_owned() }],
        phase: None,
    };
    let params = CreateResponse { stream: Some(true), ..CreateResponse::default() };
    ModelRequest { params: Arc::new(params), items: vec![Arc::new(Item::Message(message))] }
}

async fn opened(router: &Router) -> Opened {
    router.open(router.alias("it").unwrap(), &request("Hi"), OpenLimits::default()).await
}

/// Outcomes of the attempts, in order.
fn outcomes(opened: &Opened) -> Vec<&'static str> {
    opened.attempts.iter().map(|report| report.outcome).collect()
}

/// Everything that is said, and how it ends.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    chunks: Vec<Chunk>,
    usage: Option<TokenUsage>,
    tier: Option<String>,
    finish: Option<Finish>,
    error: Option<LlmError>,
}

async fn heard(mut stream: OpenStream) -> Heard {
    let mut heard = Heard::default();
    while let Some(next) = stream.next().await {
        match next {
            Ok(Upstream::Chunk(chunk)) => {
                if let Chunk::Text(text) = &chunk {
                    heard.text += text;
                }
                heard.chunks.push(chunk);
            }
            Ok(Upstream::Usage(usage)) => heard.usage = Some(usage),
            Ok(Upstream::RawUsage(_)) => {}
            Ok(Upstream::Tier(tier)) => heard.tier = Some(tier.to_string()),
            Ok(Upstream::Finish(finish)) => heard.finish = Some(finish),
            Err(error) => heard.error = Some(error),
        }
    }
    assert!(stream.next().await.is_none());
    heard
}

async fn answer(router: &Router) -> Heard {
    heard(opened(router).await.result.unwrap()).await
}
