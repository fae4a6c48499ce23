//! How queues and blobs are reached, in the Functions host's own notation, and which identity is used.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::host::AppEnvironment;
use super::mistake::Mistake;
use super::reader::{Reader, Setting};

const CONNECTION: Setting = Setting::new(
    "AzureWebJobsStorage",
    "connection string, or UseDevelopmentStorage=true",
    "Storage account of queues and blobs by connection string. Refused in production (identity there), and development \
     storage and plain http in staging too. The conversation server works without any: usage that the database does not \
     take then waits in memory, and callbacks wait for the next sweep of maintain.",
)
.secret()
.required_when("none of the AzureWebJobsStorage__… settings is set, for function-handlers");
const ACCOUNT: Setting = Setting::new(
    "AzureWebJobsStorage__accountName",
    "name",
    "Storage account by name, with an identity; stands for the two addresses of the public cloud.",
);
const QUEUE_URI: Setting = Setting::new(
    "AzureWebJobsStorage__queueServiceUri",
    "URL",
    "Address of the queue service, with an identity.",
)
.required_when("AzureWebJobsStorage__blobServiceUri is set");
const BLOB_URI: Setting = Setting::new(
    "AzureWebJobsStorage__blobServiceUri",
    "URL",
    "Address of the blob service, with an identity.",
)
.required_when("AzureWebJobsStorage__queueServiceUri is set");
const CREDENTIAL: Setting = Setting::new(
    "AzureWebJobsStorage__credential",
    "managedidentity",
    "Makes the Functions host use a managed identity; ours is chosen by AZURE_CREDENTIAL.",
);
const STORAGE_CLIENT: Setting = Setting::new(
    "AzureWebJobsStorage__clientId",
    "client id",
    "User-assigned identity for storage. Unset: AZURE_CLIENT_ID.",
);
const TIMEOUT: Setting =
    Setting::new("STORAGE_TIMEOUT", "time", "How long one call to a queue or a blob may take.")
        .default("10s");
const AZURE_CREDENTIAL: Setting = Setting::new(
    "AZURE_CREDENTIAL",
    "managed-identity, developer",
    "Whose tokens are used for Azure: the app's identity, or the developer signed in to the az command. \
     Unset: developer in dev, else managed-identity.",
);
const AZURE_CLIENT: Setting =
    Setting::new("AZURE_CLIENT_ID", "client id", "User-assigned identity. Unset: the system-assigned one.");
const IDENTITY_ENDPOINT: Setting = Setting::new(
    "IDENTITY_ENDPOINT",
    "URL",
    "Where the platform gives out tokens of the managed identity. The platform sets it.",
)
.required_when("anything is reached with a managed identity");
const IDENTITY_HEADER: Setting = Setting::new(
    "IDENTITY_HEADER",
    "text",
    "Proof that a token request comes from this app. The platform sets it.",
)
.secret()
.required_when("IDENTITY_ENDPOINT is set");
const QUEUE_EVENTS: Setting =
    Setting::new("QUEUE_EVENTS", "queue name", "Queue of accepted deliveries.").default("events");
const QUEUE_JOBS: Setting =
    Setting::new("QUEUE_JOBS", "queue name", "Queue of hints that a job is due.").default("jobs");
const QUEUE_CALLBACKS: Setting =
    Setting::new("QUEUE_CALLBACKS", "queue name", "Queue of hints that a callback is due.")
        .default("callbacks");
const QUEUE_USAGE: Setting = Setting::new(
    "QUEUE_USAGE",
    "queue name",
    "Usage that could not be written to the database; upkeep brings it home.",
)
.default("usage");
const BLOB_CONTAINER: Setting =
    Setting::new("BLOB_CONTAINER", "container name", "Container of large bodies and of the stop switches.")
        .default("colloquy");

pub(super) const SETTINGS: &[Setting] = &[
    CONNECTION,
    ACCOUNT,
    QUEUE_URI,
    BLOB_URI,
    CREDENTIAL,
    STORAGE_CLIENT,
    TIMEOUT,
    QUEUE_EVENTS,
    QUEUE_JOBS,
    QUEUE_CALLBACKS,
    QUEUE_USAGE,
    BLOB_CONTAINER,
    AZURE_CREDENTIAL,
    AZURE_CLIENT,
    IDENTITY_ENDPOINT,
    IDENTITY_HEADER,
];

/// How the storage account is named.
#[derive(Clone, Debug)]
pub enum StorageAccess {
    /// With an account key or shared access signature, or `UseDevelopmentStorage=true`.
    ConnectionString(SecretString),
    /// With a Microsoft Entra identity.
    Identity {
        queue_endpoint: Url,
        blob_endpoint: Url,
        /// A user-assigned identity.
        client_id: Option<String>,
    },
    /// There is none.
    Absent,
}

/// How queues and blobs are reached. Plain data: nothing here connects.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    pub access: StorageAccess,
    /// Limit of one call.
    pub timeout: Duration,
    /// Container of large bodies and of the stop switches.
    pub container: String,
}

/// Whose tokens are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    ManagedIdentity,
    Developer,
}

/// Which Microsoft Entra identity this process has.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    pub credential: CredentialKind,
    /// A user-assigned identity.
    pub client_id: Option<String>,
    /// `IDENTITY_ENDPOINT`, set by the platform.
    pub endpoint: Option<Url>,
    /// `IDENTITY_HEADER`, set by the platform.
    pub header: Option<SecretString>,
}

/// Names of the queues; each poison queue is named `{queue}-poison` by the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueNames {
    pub events: String,
    pub jobs: String,
    pub callbacks: String,
    /// Usage that the database did not take.
    pub usage: String,
}

impl StorageConfig {
    /// `needed`: without storage there is nothing to do.
    pub(super) fn read(reader: &Reader<'_>, app: AppEnvironment, needed: bool) -> Self {
        Self {
            access: StorageAccess::read(reader, app, needed),
            timeout: reader.positive_duration(&TIMEOUT),
            container: reader.required(&BLOB_CONTAINER, STORAGE_NAME, storage_name),
        }
    }
}

impl StorageAccess {
    fn read(reader: &Reader<'_>, app: AppEnvironment, needed: bool) -> Self {
        let connection = reader.secret(&CONNECTION);
        let account = reader.optional(&ACCOUNT, "3 to 24 lower-case letters and digits", account_name);
        let queue = reader.url(&QUEUE_URI);
        let blob = reader.url(&BLOB_URI);
        let client_id = reader.text(&STORAGE_CLIENT).or_else(|| reader.text(&AZURE_CLIENT));
        if let Some(given) = reader.text(&CREDENTIAL)
            && !given.eq_ignore_ascii_case("managedidentity")
        {
            reader.mistake(CREDENTIAL.name, "expected managedidentity");
        }
        let of_account = |service: &str| {
            account
                .as_ref()
                .and_then(|name| Url::parse(&format!("https://{name}.{service}.core.windows.net")).ok())
        };
        let (queue, blob) = (queue.or_else(|| of_account("queue")), blob.or_else(|| of_account("blob")));
        match (queue, blob, connection) {
            (Some(queue_endpoint), Some(blob_endpoint), None) => {
                for (name, url) in [(QUEUE_URI.name, &queue_endpoint), (BLOB_URI.name, &blob_endpoint)] {
                    if !app.is_dev() && url.scheme() != "https" {
                        reader.mistake(name, format!("plain http is refused with APP_ENV={}", app.as_str()));
                    }
                }
                Self::Identity { queue_endpoint, blob_endpoint, client_id }
            }
            (None, None, Some(text)) => {
                refuse_unsafe(reader, app, text.expose_secret());
                Self::ConnectionString(text)
            }
            (None, None, None) => {
                let unset =
                    reader.environment().get(CONNECTION.name).is_none_or(|text| text.trim().is_empty());
                if unset && needed {
                    reader.mistake(
                        CONNECTION.name,
                        "is not set; expected a connection string, or AzureWebJobsStorage__accountName for an identity",
                    );
                }
                Self::Absent
            }
            (queue, _, Some(text)) => {
                let other = match (account.is_some(), queue.is_some()) {
                    (true, _) => ACCOUNT.name,
                    (false, true) => QUEUE_URI.name,
                    (false, false) => BLOB_URI.name,
                };
                reader.mistake(CONNECTION.name, format!("is set together with {other}; keep one of them"));
                Self::ConnectionString(text)
            }
            (queue, _, None) => {
                let (missing, present) = if queue.is_some() {
                    (BLOB_URI.name, QUEUE_URI.name)
                } else {
                    (QUEUE_URI.name, BLOB_URI.name)
                };
                reader.mistake(missing, format!("is not set although {present} is; both are needed"));
                Self::ConnectionString(SecretString::default())
            }
        }
    }
}

/// What a connection string may not hold outside a developer's machine. Its form is the storage client's to check.
fn refuse_unsafe(reader: &Reader<'_>, app: AppEnvironment, text: &str) {
    if app.is_dev() {
        return;
    }
    let text = text.to_ascii_lowercase();
    let mut parts = text.split(';').filter_map(|part| part.trim().split_once('='));
    let has =
        |name: &str, fits: fn(&str) -> bool| parts.clone().any(|(key, value)| key == name && fits(value));
    let environment = app.as_str();
    if has("usedevelopmentstorage", |value| value == "true") {
        reader.mistake(CONNECTION.name, format!("development storage is refused with APP_ENV={environment}"));
    } else if has("defaultendpointsprotocol", |value| value == "http")
        || parts.any(|(_, value)| value.starts_with("http://"))
    {
        reader.mistake(CONNECTION.name, format!("plain http is refused with APP_ENV={environment}"));
    } else if app == AppEnvironment::Production {
        reader.mistake(
            CONNECTION.name,
            "an account key is refused with APP_ENV=production; set AzureWebJobsStorage__accountName and use an \
             identity",
        );
    }
}

impl IdentityConfig {
    pub(super) fn read(reader: &Reader<'_>, app: AppEnvironment) -> Self {
        let words =
            [("managed-identity", CredentialKind::ManagedIdentity), ("developer", CredentialKind::Developer)];
        let credential = match reader.word(&AZURE_CREDENTIAL, &words) {
            Some(credential) => credential,
            None if app.is_dev() => CredentialKind::Developer,
            None => CredentialKind::ManagedIdentity,
        };
        if app == AppEnvironment::Production && credential == CredentialKind::Developer {
            reader.mistake(
                AZURE_CREDENTIAL.name,
                "developer is refused with APP_ENV=production; use managed-identity",
            );
        }
        Self {
            credential,
            client_id: reader.text(&AZURE_CLIENT),
            endpoint: reader.url(&IDENTITY_ENDPOINT),
            header: reader.secret(&IDENTITY_HEADER),
        }
    }

    /// Mistakes if `user`, a setting, wants tokens of a managed identity that the platform does not offer.
    pub(super) fn missing_for(&self, user: &str) -> Option<Mistake> {
        let (name, present) = match (&self.endpoint, &self.header) {
            (None, _) => (IDENTITY_ENDPOINT.name, false),
            (Some(_), None) => (IDENTITY_HEADER.name, false),
            (Some(_), Some(_)) => (IDENTITY_ENDPOINT.name, true),
        };
        let wanted = self.credential == CredentialKind::ManagedIdentity && !present;
        wanted.then(|| {
            let problem = format!(
                "is not set, and {user} needs a managed identity's tokens; the platform sets it once the app has an \
                 identity (on a developer's machine, set AZURE_CREDENTIAL=developer)"
            );
            Mistake::new(name, problem)
        })
    }
}

impl QueueNames {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let name = |setting| reader.required(setting, STORAGE_NAME, storage_name);
        let names = Self {
            events: name(&QUEUE_EVENTS),
            jobs: name(&QUEUE_JOBS),
            callbacks: name(&QUEUE_CALLBACKS),
            usage: name(&QUEUE_USAGE),
        };
        if names.jobs == names.events {
            reader.mistake(QUEUE_JOBS.name, "names the same queue as QUEUE_EVENTS");
        }
        if names.callbacks == names.events || names.callbacks == names.jobs {
            reader.mistake(QUEUE_CALLBACKS.name, "names the same queue as QUEUE_EVENTS or QUEUE_JOBS");
        }
        if [&names.events, &names.jobs, &names.callbacks].contains(&&names.usage) {
            reader.mistake(QUEUE_USAGE.name, "names the same queue as another QUEUE_ setting");
        }
        names
    }
}

const STORAGE_NAME: &str =
    "3 to 56 lower-case letters, digits and single hyphens, beginning and ending with a letter or digit";

/// The rule of Azure Storage for queue and container names, seven short of its 63 so that `-poison` still fits.
fn storage_name(text: &str) -> Option<String> {
    let good = (3..=56).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--");
    good.then(|| text.to_owned())
}

fn account_name(text: &str) -> Option<String> {
    let good =
        (3..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    good.then(|| text.to_owned())
}
