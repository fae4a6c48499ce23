//! What the host's environment variables say. Values come through a closure; nothing here reads the
//! environment.

use std::path::PathBuf;
use std::time::Duration;

use super::timespan;

const PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";
const APP_ROOT: &str = "FUNCTIONS_APP_ROOT_PATH";
const BODY_LIMIT: &str = "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT";
const FUNCTION_TIMEOUT: &str = "AzureFunctionsJobHost__functionTimeout";
const INITIALIZATION_TIMEOUT: &str = "AzureFunctionsJobHost__customHandler__initializationTimeout";
const ROUTE_PREFIX: &str = "AzureFunctionsJobHost__extensions__http__routePrefix";

/// The host's default: 100 MiB.
pub(super) const DEFAULT_BODY_LIMIT: u64 = 100 * 1024 * 1024;

/// The variables the host sets, or obeys itself.
///
/// | variable | default | meaning |
/// |---|---|---|
/// | `FUNCTIONS_CUSTOMHANDLER_PORT` | none | port to listen on, set by the host |
/// | `FUNCTIONS_APP_ROOT_PATH` | `.` | where `host.json` and the function folders are, set by the host |
/// | `FUNCTIONS_REQUEST_BODY_SIZE_LIMIT` | 104857600 | largest request body, in bytes |
/// | `AzureFunctionsJobHost__functionTimeout` | `host.json` | `hh:mm:ss`, `d.hh:mm:ss` or `-1` |
/// | `AzureFunctionsJobHost__customHandler__initializationTimeout` | `host.json` | `hh:mm:ss` |
/// | `AzureFunctionsJobHost__extensions__http__routePrefix` | `host.json` | first segments of every HTTP path |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    pub app_root: PathBuf,
    /// In bytes.
    pub request_body_limit: u64,
    /// `Some(None)`: unlimited. `None`: as in `host.json`.
    pub function_timeout: Option<Option<Duration>>,
    pub initialization_timeout: Option<Duration>,
    pub route_prefix: Option<String>,
    port: Option<u16>,
}

/// Variables that are not what they should be, all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SettingsError(pub Vec<String>);

impl HostSettings {
    /// `lookup` gives a variable's value; an empty one counts as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let get = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let mut mistakes = Vec::new();
        let mut whole = |name: &str, max: u64, what: &str| {
            let text = get(name)?;
            let value = text.parse::<u64>().ok().filter(|n| (1..=max).contains(n));
            if value.is_none() {
                mistakes.push(format!("{name}: `{text}` is not {what}"));
            }
            value
        };
        let port =
            whole(PORT, u64::from(u16::MAX), "a port (1 to 65535)").and_then(|n| u16::try_from(n).ok());
        let limit = whole(BODY_LIMIT, u64::MAX, "a number of bytes above 0");
        let mut read = |name: &str, parsed: Result<Option<Duration>, String>| {
            parsed.map_err(|error| mistakes.push(format!("{name}: {error}"))).ok()
        };
        let function_timeout =
            get(FUNCTION_TIMEOUT).and_then(|text| read(FUNCTION_TIMEOUT, timespan::parse_timeout(&text)));
        let initialization_timeout = get(INITIALIZATION_TIMEOUT)
            .and_then(|text| read(INITIALIZATION_TIMEOUT, timespan::parse(&text).map(Some)))
            .flatten();
        if !mistakes.is_empty() {
            return Err(SettingsError(mistakes));
        }
        Ok(Self {
            app_root: get(APP_ROOT).map_or_else(|| PathBuf::from("."), PathBuf::from),
            request_body_limit: limit.unwrap_or(DEFAULT_BODY_LIMIT),
            function_timeout,
            initialization_timeout,
            // Set and empty means no prefix, so this one is read as it is.
            route_prefix: lookup(ROUTE_PREFIX).map(|prefix| prefix.trim_matches(['/', ' ']).to_owned()),
            port,
        })
    }

    /// The port to listen on; an error if nobody set it.
    pub fn port(&self) -> Result<u16, SettingsError> {
        self.port.ok_or_else(|| {
            SettingsError(vec![format!(
                "{PORT} is not set: the Functions host sets it when it starts this process; to run without a host, set it to a free port"
            )])
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<HostSettings, SettingsError> {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        HostSettings::from_lookup(|name| map.get(name).cloned())
    }

    #[test]
    fn everything_has_a_default_but_the_port() {
        let none = settings(&[]).expect("defaults");
        assert_eq!(none.app_root, PathBuf::from("."));
        assert_eq!(none.request_body_limit, 104_857_600);
        assert_eq!(
            (none.function_timeout, none.initialization_timeout, none.route_prefix.clone()),
            (None, None, None)
        );
        let error = none.port().expect_err("no port").to_string();
        assert!(error.contains(PORT) && error.contains("set it to a free port"), "{error}");
    }

    #[test]
    fn values_are_read() {
        let set = settings(&[
            (PORT, "7072"),
            (APP_ROOT, "/app"),
            (BODY_LIMIT, "1024"),
            (FUNCTION_TIMEOUT, "-1"),
            (INITIALIZATION_TIMEOUT, "00:01:00"),
            (ROUTE_PREFIX, ""),
        ])
        .expect("good values");
        assert_eq!(set.port(), Ok(7072));
        assert_eq!(set.app_root, PathBuf::from("/app"));
        assert_eq!(set.request_body_limit, 1024);
        assert_eq!(set.function_timeout, Some(None));
        assert_eq!(set.initialization_timeout, Some(Duration::from_secs(60)));
        assert_eq!(set.route_prefix.as_deref(), Some(""));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let error = settings(&[
            (PORT, "0"),
            (BODY_LIMIT, "1MB"),
            (FUNCTION_TIMEOUT, "5"),
            (INITIALIZATION_TIMEOUT, "x"),
        ])
        .expect_err("four mistakes");
        assert_eq!(error.0.len(), 4, "{error}");
        for name in [PORT, BODY_LIMIT, FUNCTION_TIMEOUT, INITIALIZATION_TIMEOUT] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
