//! `devhost invoke`: one invocation of a function of a running devhost.
//!
//! HTTP functions that are proxied or forwarded are called by their address. All others get an envelope through
//! the running host's control endpoint, so that the same code encodes, times and judges it as in an app that runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use http::Method;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::args::InvokeArgs;
use crate::front::admin::INVOKE_PATH;
use crate::log;

/// A request of an HTTP fixture.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct HttpFixture {
    method: Option<String>,
    /// Route parameters by name.
    params: std::collections::BTreeMap<String, String>,
    /// The raw query, without `?`.
    query: Option<String>,
    headers: std::collections::BTreeMap<String, String>,
    /// Text is sent as it is, anything else as JSON.
    body: Option<Value>,
}

/// Invokes and prints the answer; failure is a non-zero exit.
pub async fn run(args: InvokeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::builder().no_proxy().http1_only().build()?;
    let base = format!("http://127.0.0.1:{}", args.port);
    let described = client.get(format!("{base}/admin/functions/{}", args.function)).send().await;
    let described = described.with_context(|| {
        format!("no devhost answers on port {}; run `devhost start`, or name its port with --port", args.port)
    })?;
    if !described.status().is_success() {
        bail!("the app has no function {}; its names are the folders with a function.json", args.function);
    }
    let described: Value = described.json().await?;
    let fixture = read_fixture(&args)?;
    let by_address = described["invoke_url_template"]
        .as_str()
        .filter(|_| fixture.as_ref().is_none_or(|text| !is_envelope(text)));
    match by_address {
        Some(template) => call(&client, &base, template, &described, fixture.as_deref()).await,
        None => envelope(&client, &base, &args.function, &described, fixture).await,
    }
}

fn read_fixture(args: &InvokeArgs) -> anyhow::Result<Option<String>> {
    let default = Path::new("tests/fixtures/invoke").join(format!("{}.json", args.function));
    let path: PathBuf = match &args.fixture {
        Some(path) => path.clone(),
        None if default.exists() => default,
        None => return Ok(None),
    };
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read fixture {}", path.display()))?;
    let json = path.extension().is_some_and(|extension| extension == "json");
    if json && let Err(error) = serde_json::from_str::<Value>(&text) {
        bail!("fixture {} is not JSON: {error}", path.display());
    }
    Ok(Some(text))
}

fn is_envelope(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.get("Data").is_some())
}

async fn envelope(
    client: &Client,
    base: &str,
    function: &str,
    described: &Value,
    fixture: Option<String>,
) -> anyhow::Result<ExitCode> {
    let kinds = described["config"]["bindings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let timer = kinds.iter().any(|binding| {
        binding["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("timerTrigger"))
    });
    let body = match fixture {
        Some(text) if is_envelope(&text) => text,
        None if timer => json!({}).to_string(),
        Some(_) if timer => bail!("a timer takes no fixture but a whole envelope: a JSON object with Data"),
        Some(text) => json!({"text": text.trim_end_matches('\n')}).to_string(),
        None => bail!("name a fixture: a whole envelope (with Data), or the text of the queue message"),
    };
    let request = client
        .post(format!("{base}{INVOKE_PATH}{function}"))
        .header("content-type", "application/json")
        .body(body);
    let response = request.send().await?;
    let status = response.status();
    if !status.is_success() {
        bail!("devhost answered {status}; its log says why");
    }
    let outcome: Value = response.json().await?;
    if outcome["succeeded"] == true {
        log::plain(serde_json::to_string_pretty(&outcome["answer"])?);
        return Ok(ExitCode::SUCCESS);
    }
    log::plain(format!("failed: {}", outcome["error"].as_str().unwrap_or("no reason given")));
    Ok(ExitCode::FAILURE)
}

async fn call(
    client: &Client,
    base: &str,
    template: &str,
    described: &Value,
    fixture: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let fixture: HttpFixture = match fixture {
        Some(text) => serde_json::from_str(text)
            .context("the fixture of an HTTP function holds method, params, query, headers, body")?,
        None => HttpFixture::default(),
    };
    let declared = described["config"]["bindings"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|binding| binding["methods"][0].as_str());
    let method: Method =
        fixture.method.as_deref().or(declared).unwrap_or("GET").to_ascii_uppercase().parse()?;
    let path = template.splitn(4, '/').nth(3).unwrap_or_default();
    let mut url = format!("{base}/{}", fill(path, &fixture.params)?);
    if let Some(query) = &fixture.query {
        url = format!("{url}?{query}");
    }
    let mut request = client.request(method, url);
    for (name, value) in &fixture.headers {
        request = request.header(name, value);
    }
    request = match fixture.body {
        None => request,
        Some(Value::String(text)) => request.body(text),
        Some(value) => request.header("content-type", "application/json").body(value.to_string()),
    };
    let response = request.send().await?;
    let status = response.status();
    log::plain(format!("{status}"));
    for (name, value) in response.headers() {
        log::plain(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    log::plain(format!("\n{}", response.text().await?));
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Puts parameters into a route template; optional ones may be missing.
fn fill(template: &str, params: &std::collections::BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut segments = Vec::new();
    for segment in template.split('/') {
        let Some(inner) = segment.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            segments.push(segment.to_owned());
            continue;
        };
        let optional = inner.ends_with('?') || inner.starts_with('*');
        let name = inner.trim_start_matches('*').trim_end_matches('?').split(':').next().unwrap_or_default();
        match params.get(name) {
            Some(value) if inner.starts_with('*') => segments.push(value.clone()),
            Some(value) => segments.push(
                percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string(),
            ),
            None if optional => {}
            None => bail!("the route needs {name}: give it in the fixture, {{\"params\":{{\"{name}\":…}}}}"),
        }
    }
    Ok(segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_filled_from_params() {
        let params = [("source".to_owned(), "a b".to_owned())].into();
        assert_eq!(fill("api/webhooks/{source}/{event?}", &params).unwrap(), "api/webhooks/a%20b");
        assert!(fill("api/webhooks/{other}", &params).unwrap_err().to_string().contains("needs other"));
    }

    #[test]
    fn only_an_object_with_data_is_a_whole_envelope() {
        assert!(is_envelope(r#"{"Data":{},"Metadata":{}}"#));
        for text in ["v1 {}", "[1]", r#"{"a":1}"#] {
            assert!(!is_envelope(text), "{text}");
        }
    }
}
