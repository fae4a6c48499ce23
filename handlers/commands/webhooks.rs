//! `webhooks send`: what a sender would do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use colloquy::config::app::{SourceConfig, SourceKind};
use colloquy::config::{self, Config, ProcessEnvironment};
use colloquy::webhooks::Source;
use colloquy::wiring;
use jiff::Timestamp;
use url::{Host, Url};
use uuid::Uuid;

use super::output::{self, Output};
use super::samples;

#[derive(Subcommand)]
pub enum Webhooks {
    /// Sign a body with a source's first secret and post it to a running app.
    Send(Send),
}

#[derive(Args)]
pub struct Send {
    /// A source of colloquy.toml.
    source: String,
    /// A file with the body, sent as it is. Default: a sample of the source's kind, under an id of its own.
    fixture: Option<PathBuf>,
    /// What follows the source in the URL, for senders that put the event's name there.
    #[arg(long)]
    event: Option<String>,
    /// Where the app listens. Default: COLLOQUY_URL, which .local/env sets, else http://localhost:7071.
    #[arg(long)]
    url: Option<String>,
    /// Send the same delivery so many times: it has its effect once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
    #[command(flatten)]
    output: Output,
}

pub async fn run(command: Webhooks) -> anyhow::Result<ExitCode> {
    let Webhooks::Send(send) = command;
    let config = crate::load(&ProcessEnvironment)?;
    let (source_config, source) = source(&config, &send.source)?;
    let body = match &send.fixture {
        Some(path) => read(path)?,
        None => sample(source_config)?,
    };
    let base = send.url.clone().unwrap_or_else(|| config::host::app_url(&ProcessEnvironment));
    let event =
        send.event.as_deref().or((source_config.kind == SourceKind::Espocrm).then_some("feedback.create"));
    let url = address(&base, &send.source, event)?;
    let mut client = reqwest::Client::builder().timeout(Duration::from_secs(30));
    if is_on_this_machine(&url) {
        // A proxy has this machine's own address for itself.
        client = client.no_proxy();
    }
    let client = client.build()?;
    let mut accepted = true;
    for _ in 0..send.times {
        accepted &= post(&client, &source, &url, &body, event, send.output).await?;
    }
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where deliveries of a source go. What an event is called may hold anything, and is one segment of the path.
fn address(base: &str, source: &str, event: Option<&str>) -> anyhow::Result<Url> {
    let mut url = Url::parse(base).with_context(|| format!("--url `{base}` is no URL"))?;
    url.path_segments_mut()
        .map_err(|()| anyhow!("--url `{base}` is no address of an app"))?
        .pop_if_empty()
        .extend(["api", "webhooks", source])
        .extend(event);
    Ok(url)
}

fn is_on_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn source<'a>(config: &'a Config, name: &str) -> anyhow::Result<(&'a SourceConfig, Source)> {
    let Some(source_config) = config.app.sources.get(name) else {
        let names: Vec<&str> = config.app.sources.keys().map(String::as_str).collect();
        bail!("there is no source `{name}` in colloquy.toml; there is {}", names.join(", "));
    };
    let source = Source::new(name, source_config, wiring::webhook_secrets(config, name))
        .map_err(|errors| anyhow!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    Ok((source_config, source))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

async fn post(
    client: &reqwest::Client,
    source: &Source,
    url: &Url,
    body: &[u8],
    event: Option<&str>,
    output: Output,
) -> anyhow::Result<bool> {
    let signed = source.sign(body, Timestamp::now(), event)?;
    let mut url = url.clone();
    url.set_query(signed.query.as_deref());
    let mut request = client.post(url).body(body.to_vec());
    for (name, value) in &signed.headers {
        request = request.header(name, value);
    }
    let started = Instant::now();
    let response = request
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .context("the app did not answer; is it running? `scripts/dev` starts it")?;
    let status = response.status();
    let request_id =
        response.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let answer = response.text().await?;
    let elapsed = started.elapsed();
    if output.json {
        output::json_line(&serde_json::json!({
            "status": status.as_u16(), "request_id": request_id, "answer": answer, "millis": elapsed.as_millis(),
        }))?;
    } else {
        say!("{status} in {elapsed:.1?}, request id {}", request_id.as_deref().unwrap_or("none"));
        if !answer.is_empty() {
            say!("{answer}");
        }
    }
    Ok(status.is_success())
}

/// A sample of the kind, under an id of its own so that it is not taken for an earlier one.
fn sample(config: &SourceConfig) -> anyhow::Result<Vec<u8>> {
    let (text, id) = samples::of(config);
    let mut value: serde_json::Value = serde_json::from_str(text)?;
    if let Some(id) = value.pointer_mut(id) {
        *id = Uuid::now_v7().simple().to_string().into();
    }
    Ok(serde_json::to_vec(&value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_name_is_one_segment_whatever_it_holds() {
        let to = |base, event| address(base, "crm", event).unwrap().to_string();
        let odd = Some("a b/é?x#y");
        assert_eq!(
            to("http://localhost:7071", odd),
            "http://localhost:7071/api/webhooks/crm/a%20b%2F%C3%A9%3Fx%23y"
        );
        assert_eq!(to("https://example.com/behind/", None), "https://example.com/behind/api/webhooks/crm");
        assert!(address("localhost:7071", "crm", None).is_err());
    }
}
