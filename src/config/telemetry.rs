//! Where logs, traces and metrics go.

use secrecy::SecretString;
use url::Url;

use super::host::AppEnvironment;
use super::reader::{Reader, Setting};

const LOG_LEVEL: Setting = Setting::new(
    "APP_LOG_LEVEL",
    "level, then target=level, comma-separated",
    "What is logged: a level for everything (off, error, warn, info, debug, trace), then others for single targets, such \
     as info,colloquy::jobs=debug.",
)
.default("info");
const OTLP: Setting = Setting::new(
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "URL",
    "OpenTelemetry collector that takes OTLP over HTTP (protobuf); /v1/traces, /v1/metrics and /v1/logs \
     are appended. Unset: nothing is exported.",
);
const OTLP_HEADERS: Setting = Setting::new(
    "OTEL_EXPORTER_OTLP_HEADERS",
    "name=value, comma-separated",
    "Headers sent to the collector, such as an API key.",
)
.secret();
const LOGS: Setting = Setting::new(
    "OTEL_LOGS_EXPORTER",
    "otlp, none",
    "Whether log lines are exported beside traces and metrics. otlp: to the collector, and the conversation server's to \
     Application Insights (the Functions host sends the handlers' stdout there itself). none: stdout alone.",
)
.default("otlp");
const INSIGHTS: Setting = Setting::new(
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "connection string",
    "Application Insights resource that takes traces, metrics and the server's log lines. Unset: none.",
)
.secret();
const INSIGHTS_AUTH: Setting = Setting::new(
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "Authorization=AAD, optionally ;ClientId=<id>",
    "Makes telemetry authenticate with the app's Microsoft Entra identity instead of the connection string's key.",
);
const SERVICE: Setting = Setting::new(
    "OTEL_SERVICE_NAME",
    "text",
    "Name of this process in traces and metrics. Unset: the binary's name.",
);
const SAMPLER: Setting = Setting::new(
    "OTEL_TRACES_SAMPLER",
    "microsoft.rate_limited, always_on, always_off, parentbased_always_on, traceidratio, parentbased_traceidratio",
    "Which traces are exported whole; of the others, those with an error. Unset: always_on in dev, else \
     microsoft.rate_limited. The Functions host marks traces it does not record as unsampled, so a parent-based sampler exports \
     nothing where the host has no telemetry of its own.",
);
const SAMPLER_ARG: Setting = Setting::new(
    "OTEL_TRACES_SAMPLER_ARG",
    "0 to 1, or traces a second",
    "Share of traces that a traceidratio sampler keeps (unset: all), or how many new traces a second each process keeps \
     with microsoft.rate_limited (unset: 5).",
);
const SITE_INSTANCE: Setting = Setting::new(
    "WEBSITE_INSTANCE_ID",
    "text",
    "Which instance this is, in traces and metrics. App Service sets it; unset: a random id.",
);

pub(super) const SETTINGS: &[Setting] = &[
    LOG_LEVEL,
    OTLP,
    OTLP_HEADERS,
    LOGS,
    INSIGHTS,
    INSIGHTS_AUTH,
    SERVICE,
    SAMPLER,
    SAMPLER_ARG,
    SITE_INSTANCE,
];

/// Which traces are exported whole. The names of the choice are the OpenTelemetry specification's, and
/// `microsoft.rate_limited` is that of Azure Monitor's own SDKs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    pub kept: Kept,
    /// Whether a caller's decision, where there is one, is followed instead.
    pub follow_parent: bool,
}

/// How many of the traces begun here are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    /// This share of them, 0 to 1, the same ones in every process.
    Share(f64),
    /// So many a second, in this process.
    PerSecond(f64),
}

/// How telemetry to Application Insights proves who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsightsAuth {
    /// By the key in the connection string.
    Key,
    /// By a Microsoft Entra token of the (user-assigned, if named) identity.
    Entra { client_id: Option<String> },
}

/// Where Application Insights takes telemetry.
#[derive(Clone, Debug)]
pub struct InsightsConfig {
    pub connection_string: SecretString,
    pub auth: InsightsAuth,
}

/// Where logs, traces and metrics go.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// `EnvFilter` directives, checked.
    pub log_level: String,
    pub otlp_endpoint: Option<Url>,
    /// Header names and values for the collector.
    pub otlp_headers: Vec<(String, SecretString)>,
    /// Whether log lines leave the process by other ways than stdout.
    pub export_logs: bool,
    pub insights: Option<InsightsConfig>,
    /// `None`: the binary's name.
    pub service_name: Option<String>,
    pub sampling: Sampling,
    /// `None`: a random id.
    pub instance_id: Option<String>,
    /// The word in `APP_ENV`.
    pub environment: &'static str,
}

impl Default for TelemetryConfig {
    /// What an empty environment gives: `info` on stdout, nothing exported.
    fn default() -> Self {
        Self::read(&Reader::new(&std::collections::BTreeMap::new()), AppEnvironment::Dev)
    }
}

impl TelemetryConfig {
    pub(super) fn read(reader: &Reader<'_>, app: AppEnvironment) -> Self {
        let insights_auth = reader.optional(&INSIGHTS_AUTH, INSIGHTS_AUTH.unit, insights_auth);
        let expected = "a connection string with InstrumentationKey=…";
        let insights = reader.optional(&INSIGHTS, expected, |text| {
            let has_key = text
                .split(';')
                .any(|part| part.trim().to_ascii_lowercase().starts_with("instrumentationkey="));
            has_key.then(|| SecretString::from(text))
        });
        Self {
            log_level: reader.required(&LOG_LEVEL, LEVELS, log_level),
            otlp_endpoint: reader.url(&OTLP),
            otlp_headers: reader.optional(&OTLP_HEADERS, OTLP_HEADERS.unit, headers).unwrap_or_default(),
            export_logs: reader.word(&LOGS, &[("otlp", true), ("none", false)]).unwrap_or(true),
            insights: insights.map(|connection_string| InsightsConfig {
                connection_string,
                auth: insights_auth.unwrap_or(InsightsAuth::Key),
            }),
            service_name: reader.text(&SERVICE),
            sampling: sampling(reader, app),
            instance_id: reader.text(&SITE_INSTANCE),
            environment: app.as_str(),
        }
    }
}

const LEVELS: &str = "a level for everything (off, error, warn, info, debug or trace), then target=level where another \
                      is wanted, such as info,colloquy::jobs=debug";

/// Directives that leave nothing unsaid. The filter itself takes any word that is no level for a target, and then logs
/// that target alone.
fn log_level(text: &str) -> Option<String> {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(word))
    };
    let mut for_everything = false;
    for directive in text.split(',').map(str::trim) {
        let good = match directive.rsplit_once('=') {
            None => {
                for_everything |= is_level(directive);
                is_level(directive)
            }
            Some((target, level)) => !target.trim().is_empty() && is_level(level.trim()),
        };
        if !good {
            return None;
        }
    }
    (for_everything && tracing_subscriber::EnvFilter::try_new(text).is_ok()).then(|| text.to_owned())
}

fn sampling(reader: &Reader<'_>, app: AppEnvironment) -> Sampling {
    const PER_SECOND: f64 = 5.0;
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        On,
        Off,
        Ratio,
        RateLimited,
    }
    let words = [
        ("microsoft.rate_limited", (Word::RateLimited, false)),
        ("always_on", (Word::On, false)),
        ("always_off", (Word::Off, false)),
        ("parentbased_always_on", (Word::On, true)),
        ("traceidratio", (Word::Ratio, false)),
        ("parentbased_traceidratio", (Word::Ratio, true)),
    ];
    let usual = if app.is_dev() { Word::On } else { Word::RateLimited };
    let (word, follow_parent) = reader.word(&SAMPLER, &words).unwrap_or((usual, false));
    let (most, expected) = match word {
        Word::RateLimited => (10_000.0, "a number of traces a second, from 0 to 10000"),
        _ => (1.0, "a share from 0 to 1"),
    };
    let argument = reader.optional(&SAMPLER_ARG, expected, |text| {
        text.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number))
    });
    let kept = match word {
        Word::On => Kept::Share(1.0),
        Word::Off => Kept::Share(0.0),
        Word::Ratio => Kept::Share(argument.unwrap_or(1.0)),
        Word::RateLimited => Kept::PerSecond(argument.unwrap_or(PER_SECOND)),
    };
    Sampling { kept, follow_parent }
}

fn headers(text: &str) -> Option<Vec<(String, SecretString)>> {
    text.split(',')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned();
            http::HeaderValue::from_str(&value).ok()?;
            Some((name, SecretString::from(value)))
        })
        .collect()
}

fn insights_auth(text: &str) -> Option<InsightsAuth> {
    let mut entra = false;
    let mut client_id = None;
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=')? {
            (name, "AAD") if name.eq_ignore_ascii_case("authorization") => entra = true,
            (name, id) if name.eq_ignore_ascii_case("clientid") && !id.is_empty() => {
                client_id = Some(id.to_owned())
            }
            _ => return None,
        }
    }
    entra.then_some(InsightsAuth::Entra { client_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_silences_nothing() {
        for good in [
            "info",
            "INFO",
            "off",
            "warn,colloquy::jobs=debug",
            "colloquy=trace, error",
            "info,a[b{c=d}]=debug",
        ] {
            assert_eq!(log_level(good).as_deref(), Some(good));
        }
        for bad in [
            "inf0",
            "loud",
            "5",
            "",
            "info,",
            "colloquy=debug",
            "info,colloquy",
            "info,colloquy=loud",
            "info,=debug",
            "a=1,info",
        ] {
            assert_eq!(log_level(bad), None, "{bad}");
        }
    }
}
