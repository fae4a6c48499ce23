//! Where this process runs and what its host told it.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Reader, Setting};
use super::values;

const APP_ENV: Setting = Setting::new(
    "APP_ENV",
    "dev, staging, production",
    "Which environment this is. Staging and production refuse what is only safe on one machine.",
)
.default("dev");
const PORT: Setting = Setting::new(
    "FUNCTIONS_CUSTOMHANDLER_PORT",
    "port",
    "Port the function handlers listen on, on 127.0.0.1. The Functions host sets it; 0 takes any free port.",
)
.default("0");
const ROOT: Setting = Setting::new(
    "FUNCTIONS_APP_ROOT_PATH",
    "path",
    "Folder with host.json and the function folders. The Functions host sets it.",
)
.default(".");
const TIMEOUT: Setting = Setting::new(
    "AzureFunctionsJobHost__functionTimeout",
    "hh:mm:ss, or -1 for none",
    "Overrides functionTimeout of host.json, for the host and for our own deadlines alike.",
);
const BODY_LIMIT: Setting = Setting::new(
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT",
    "bytes",
    "Largest HTTP body the host passes on. A source's max_body_bytes lies below it.",
)
.default("104857600");

pub(super) const SETTINGS: &[Setting] = &[APP_ENV, PORT, ROOT, TIMEOUT, BODY_LIMIT];

/// Which environment this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppEnvironment {
    #[default]
    Dev,
    Staging,
    Production,
}

impl AppEnvironment {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let words = [("dev", Self::Dev), ("staging", Self::Staging), ("production", Self::Production)];
        reader.word(&APP_ENV, &words).unwrap_or_default()
    }

    /// The word in `APP_ENV`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// Whether this is one developer's machine.
    pub fn is_dev(self) -> bool {
        self == Self::Dev
    }
}

/// `functionTimeout` as the environment overrides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionTimeout {
    Unlimited,
    After(Duration),
}

/// What the Functions host sets.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// 0: any free port.
    pub port: u16,
    /// Folder with `host.json` and the function folders.
    pub root: PathBuf,
    /// `None`: `host.json` decides.
    pub function_timeout: Option<FunctionTimeout>,
    /// Bytes.
    pub max_body_bytes: u64,
}

impl HostSettings {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        Self {
            port: reader.required(&PORT, "a port number from 0 to 65535", |text| text.parse().ok()),
            root: PathBuf::from(reader.text(&ROOT).unwrap_or_default()),
            function_timeout: reader.optional(&TIMEOUT, "hh:mm:ss or -1", |text| match text {
                "-1" => Some(FunctionTimeout::Unlimited),
                text => values::time_span(text).map(FunctionTimeout::After),
            }),
            max_body_bytes: reader.number(&BODY_LIMIT, 1, u64::from(u32::MAX)),
        }
    }
}
