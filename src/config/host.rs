//! Which environment this is, and what the Functions host sets.

use super::reader::{Reader, Setting};

const APP_ENV: Setting = Setting::new(
    "APP_ENV",
    "dev, staging, production",
    "Which environment this is. Staging and production refuse what is only safe on one machine.",
)
.default("dev");
const URL: Setting = Setting::new(
    "COLLOQUY_URL",
    "URL",
    "Where `webhooks send` finds the function app. scripts/dev writes it to .local/env.",
)
.default("http://localhost:7071");
// What follows is read by the SDK (`functions::HostSettings`), which knows the host's notation; declared here, where
// every setting is.
const PORT: Setting = Setting::new(
    "FUNCTIONS_CUSTOMHANDLER_PORT",
    "port",
    "Port the function handlers listen on, on 127.0.0.1. The Functions host sets it.",
)
.required_when("function-handlers is started without a command");
const ROOT: Setting = Setting::new(
    "FUNCTIONS_APP_ROOT_PATH",
    "path",
    "Folder with host.json, colloquy.toml and the function folders. The Functions host sets it.",
)
.default(".");
const TIMEOUT: Setting = Setting::new(
    "AzureFunctionsJobHost__functionTimeout",
    "hh:mm:ss, or -1 for none",
    "Overrides functionTimeout of host.json, for the host and for our own deadlines alike.",
);
const INITIALIZATION: Setting = Setting::new(
    "AzureFunctionsJobHost__customHandler__initializationTimeout",
    "hh:mm:ss",
    "Overrides customHandler.initializationTimeout of host.json; our deadlines allow for it while the process is young.",
);
const ROUTE_PREFIX: Setting = Setting::new(
    "AzureFunctionsJobHost__extensions__http__routePrefix",
    "path segments, may be empty",
    "Overrides extensions.http.routePrefix of host.json: what every HTTP path begins with.",
);
const BODY_LIMIT: Setting = Setting::new(
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT",
    "bytes",
    "Largest HTTP body the host passes on. A source's max_body_bytes lies below it.",
)
.default("104857600");

pub(super) const SETTINGS: &[Setting] =
    &[APP_ENV, URL, PORT, ROOT, TIMEOUT, INITIALIZATION, ROUTE_PREFIX, BODY_LIMIT];

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

/// Where this app answers, as commands call it: `COLLOQUY_URL`, else where `devhost` and Core Tools listen.
pub fn app_url(environment: &dyn super::Environment) -> String {
    let text = environment.get(URL.name).unwrap_or_default();
    let text = text.trim();
    URL.default.filter(|_| text.is_empty()).unwrap_or(text).to_owned()
}

/// Which environment `environment` says this is; where it says nothing sensible, `dev`.
pub fn app_environment(environment: &dyn super::Environment) -> AppEnvironment {
    AppEnvironment::read(&Reader::new(environment))
}

/// The name of the setting behind [`root`].
pub const ROOT_SETTING: &str = ROOT.name;

/// The folder with `host.json`, `colloquy.toml` and the function folders.
pub fn root(environment: &dyn super::Environment) -> std::path::PathBuf {
    let text = environment.get(ROOT.name).unwrap_or_default();
    std::path::PathBuf::from(if text.trim().is_empty() { "." } else { text.trim() })
}
