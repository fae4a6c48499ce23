//! Secrets by name: of webhook sources, of callback targets, and keys that seal what is stored.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::app::{AppConfig, AuthConfig, SourceKind};
use super::mistake::Mistake;
use super::reader::{Reader, Setting};

const WEBHOOK: Setting = Setting::new(
    "WEBHOOK_SECRET_<SOURCE>",
    "text",
    "Secret of a webhook source, as its sender shows it. <SOURCE> is the name in colloquy.toml in upper case with _ for -.",
)
.secret()
.required_when("the source is configured and proves itself by a secret");
const WEBHOOK_LABELLED: Setting = Setting::new(
    "WEBHOOK_SECRET_<SOURCE>__<LABEL>",
    "text",
    "A further secret of the source; any number are accepted at once. The label is recorded with each event \
     (EspoCRM: the webhook's id).",
)
.secret();
const CALLBACK: Setting = Setting::new(
    "CALLBACK_SECRET_<TARGET>",
    "base64 of 24 to 64 bytes, whsec_ before it or not",
    "Key that signs callbacks to a target.",
)
.secret()
.required_when("the target is configured");
const CALLBACK_LABELLED: Setting = Setting::new(
    "CALLBACK_SECRET_<TARGET>__<LABEL>",
    "base64 of 24 to 64 bytes, whsec_ before it or not",
    "A further signing key; every key present signs, so that a consumer can change over.",
)
.secret();
const ENCRYPTION: Setting = Setting::new(
    "ENCRYPTION_KEY",
    "base64 of 32 bytes",
    "Key that seals secrets we must keep, such as a SailPoint invocation's.",
)
.secret()
.required_when("a sailpoint source is configured");
const ENCRYPTION_LABELLED: Setting = Setting::new(
    "ENCRYPTION_KEY__<LABEL>",
    "base64 of 32 bytes",
    "A further sealing key. ENCRYPTION_KEY seals (without it, the label that sorts last); all of them open.",
)
.secret();

pub(super) const SETTINGS: &[Setting] =
    &[WEBHOOK, WEBHOOK_LABELLED, CALLBACK, CALLBACK_LABELLED, ENCRYPTION, ENCRYPTION_LABELLED];

const WEBHOOK_PREFIX: &str = "WEBHOOK_SECRET_";
const CALLBACK_PREFIX: &str = "CALLBACK_SECRET_";

/// The label of a secret that was set without one.
pub const UNLABELLED: &str = "default";

/// One secret and the name it goes by.
#[derive(Clone, Debug)]
pub struct LabelledSecret {
    /// What stands after `__` in the variable's name, or [`UNLABELLED`].
    pub label: String,
    pub value: SecretString,
}

/// Secrets of webhook sources.
#[derive(Clone, Debug, Default)]
pub struct WebhookSecrets(BySuffix);

/// Signing keys of callback targets, as text (`whsec_…` or bare base64), checked.
#[derive(Clone, Debug, Default)]
pub struct CallbackSecrets(BySuffix);

type BySuffix = BTreeMap<String, Vec<LabelledSecret>>;

/// How a source's or target's name stands in a variable's name: `event-grid` → `EVENT_GRID`.
pub fn suffix_of(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// Every variable under `prefix`, by suffix and label. A name cannot hold `__`, so the first one ends it.
fn read_all(reader: &Reader<'_>, prefix: &str, check: impl Fn(&str) -> Result<(), &'static str>) -> BySuffix {
    let mut all = BySuffix::new();
    for variable in reader.environment().names() {
        let Some(rest) = variable.strip_prefix(prefix) else { continue };
        let Some(text) = reader.named(&variable) else { continue };
        let (suffix, label) = rest.split_once("__").unwrap_or((rest, UNLABELLED));
        if suffix.is_empty() || label.is_empty() {
            reader.mistake(
                &variable,
                format!("expected a name like {prefix}<NAME> or {prefix}<NAME>__<LABEL>"),
            );
            continue;
        }
        if let Err(expected) = check(&text) {
            reader.mistake(&variable, format!("expected {expected}"));
        }
        let secrets = all.entry(suffix.to_owned()).or_default();
        if secrets.iter().any(|secret| secret.label == label) {
            reader.mistake(&variable, "its label is taken by another variable of the same name");
        }
        secrets.push(LabelledSecret { label: label.to_owned(), value: text.into() });
    }
    for secrets in all.values_mut() {
        secrets.sort_by(|a, b| (a.label != UNLABELLED, &a.label).cmp(&(b.label != UNLABELLED, &b.label)));
    }
    all
}

fn unused<'n>(secrets: &BySuffix, prefix: &str, names: impl Iterator<Item = &'n String>) -> Vec<String> {
    let known: Vec<String> = names.map(|name| suffix_of(name)).collect();
    secrets
        .keys()
        .filter(|suffix| !known.contains(suffix))
        .map(|suffix| format!("{prefix}{suffix}"))
        .collect()
}

impl WebhookSecrets {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        Self(read_all(reader, WEBHOOK_PREFIX, |_| Ok(())))
    }

    /// The secrets of the source called `name`, the unlabelled one first; empty if there are none.
    pub fn of(&self, name: &str) -> &[LabelledSecret] {
        self.0.get(&suffix_of(name)).map_or(&[], Vec::as_slice)
    }

    /// Variables that no source of `app` has use for: likely a misspelt name, worth a warning.
    pub fn unused(&self, app: &AppConfig) -> Vec<String> {
        unused(&self.0, WEBHOOK_PREFIX, app.sources.keys())
    }

    /// Sources of `app` that need a secret and have none.
    pub fn missing(&self, app: &AppConfig) -> Vec<Mistake> {
        let bare = app.sources.iter().filter(|(name, source)| {
            !matches!(source.auth, Some(AuthConfig::Entra { .. })) && self.of(name).is_empty()
        });
        bare.map(|(name, _)| {
            let variable = format!("{WEBHOOK_PREFIX}{}", suffix_of(name));
            Mistake::new(
                variable,
                format!("is not set; source {name} of colloquy.toml needs at least one secret"),
            )
        })
        .collect()
    }
}

impl CallbackSecrets {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        Self(read_all(reader, CALLBACK_PREFIX, |text| {
            let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text));
            match bytes {
                Ok(bytes) if (24..=64).contains(&bytes.len()) => Ok(()),
                _ => Err(CALLBACK.unit),
            }
        }))
    }

    /// The signing keys of the target called `name`; empty if there are none.
    pub fn of(&self, name: &str) -> &[LabelledSecret] {
        self.0.get(&suffix_of(name)).map_or(&[], Vec::as_slice)
    }

    /// Variables that no target of `app` has use for: likely a misspelt name, worth a warning.
    pub fn unused(&self, app: &AppConfig) -> Vec<String> {
        unused(&self.0, CALLBACK_PREFIX, app.targets.keys())
    }

    /// Targets of `app` that have no signing key.
    pub fn missing(&self, app: &AppConfig) -> Vec<Mistake> {
        let bare = app.targets.keys().filter(|name| self.of(name).is_empty());
        bare.map(|name| {
            let variable = format!("{CALLBACK_PREFIX}{}", suffix_of(name));
            Mistake::new(variable, format!("is not set; target {name} of colloquy.toml needs a signing key"))
        })
        .collect()
    }
}

/// Keys that seal secrets at rest, as checked base64 of 32 bytes: the first seals, all open.
#[derive(Clone, Debug, Default)]
pub struct EncryptionKeys(Vec<LabelledSecret>);

impl EncryptionKeys {
    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let mut keys: Vec<LabelledSecret> = Vec::new();
        for variable in reader.environment().names() {
            let label = match variable.strip_prefix(ENCRYPTION.name) {
                Some("") => UNLABELLED,
                Some(rest) if rest.starts_with("__") => &rest[2..],
                _ => continue,
            };
            let Some(text) = reader.named(&variable) else { continue };
            let in_label = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if label.is_empty() || !label.bytes().all(in_label) {
                reader.mistake(
                    &variable,
                    "expected a label of letters, digits, _ and - after ENCRYPTION_KEY__",
                );
            } else if !STANDARD.decode(&text).is_ok_and(|bytes| bytes.len() == 32) {
                reader.mistake(&variable, format!("expected {}", ENCRYPTION.unit));
            } else if keys.iter().any(|key| key.label == label) {
                reader.mistake(&variable, "its label is taken by another variable");
            } else {
                keys.push(LabelledSecret { label: label.to_owned(), value: text.into() });
            }
        }
        keys.sort_by(|a, b| (b.label == UNLABELLED, &b.label).cmp(&(a.label == UNLABELLED, &a.label)));
        Self(keys)
    }

    /// Every key, the sealing one first; empty if there are none.
    pub fn all(&self) -> &[LabelledSecret] {
        &self.0
    }

    /// A mistake if `app` has a source whose secrets must be sealed, and there is no key.
    pub fn missing(&self, app: &AppConfig) -> Vec<Mistake> {
        let needs = app.sources.iter().find(|(_, source)| source.kind == SourceKind::Sailpoint);
        match needs {
            Some((name, _)) if self.0.is_empty() => vec![Mistake::new(
                ENCRYPTION.name,
                format!("is not set; source {name} of colloquy.toml needs it; expected {}", ENCRYPTION.unit),
            )],
            _ => Vec::new(),
        }
    }
}

impl LabelledSecret {
    /// The secret's text, at the moment of use.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}
