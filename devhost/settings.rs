//! The app settings in force: the environment, over an env file, over `Values` of local.settings.json.
//!
//! The one place of devhost that reads the process environment. Precedence as in Core Tools
//! (functions-host.md §7): a variable that is already set is not replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("cannot read {path}: {cause}")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not valid: {cause}. Compare it with local.settings.example.json")]
    Malformed { path: PathBuf, cause: serde_json::Error },
    #[error("{path}:{line}: expected NAME=value")]
    NotAnAssignment { path: PathBuf, line: usize },
    #[error("%{0}% names no app setting; set it in local.settings.json (Values) or in the environment")]
    Unresolved(String),
}

/// App settings by name, and what local.settings.json says about the host itself.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// `Host.LocalHttpPort`.
    pub local_port: Option<u16>,
    /// `Host.CORS` is present.
    pub wants_cors: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct LocalSettings {
    values: BTreeMap<String, String>,
    host: LocalHost,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LocalHost {
    #[serde(rename = "LocalHttpPort")]
    local_http_port: Option<u16>,
    #[serde(rename = "CORS")]
    cors: Option<String>,
}

impl Settings {
    /// Reads `local.settings.json` of `root` (absent is fine), `env_file`, and the process environment.
    pub fn load(root: &Path, env_file: Option<&Path>) -> Result<Self, SettingsError> {
        let local_path = root.join("local.settings.json");
        let local = match std::fs::read(&local_path) {
            Ok(bytes) => serde_json::from_slice(strip_bom(&bytes))
                .map_err(|cause| SettingsError::Malformed { path: local_path, cause })?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => LocalSettings::default(),
            Err(cause) => return Err(SettingsError::Unreadable { path: local_path, cause }),
        };
        let mut values = local.values;
        if let Some(path) = env_file {
            let text = std::fs::read_to_string(path)
                .map_err(|cause| SettingsError::Unreadable { path: path.to_owned(), cause })?;
            values.extend(parse_env_file(path, &text)?);
        }
        // Names or values that are not UTF-8 cannot be app settings; the handler still inherits them.
        #[expect(clippy::disallowed_methods, reason = "the host's environment is the app's settings")]
        let inherited = std::env::vars_os();
        values.extend(
            inherited.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        Ok(Settings { values, local_port: local.host.local_http_port, wants_cors: local.host.cors.is_some() })
    }

    #[cfg(test)]
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let values = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings { values, ..Settings::default() }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Resolves every `%NAME%`; a name without a setting is an error (function.json).
    pub fn resolve(&self, text: &str) -> Result<String, SettingsError> {
        self.replace(text, |name| Err(SettingsError::Unresolved(name.to_owned())))
    }

    /// Resolves every `%NAME%`; a name without a setting disappears (customHandler arguments).
    pub fn resolve_or_delete(&self, text: &str) -> String {
        self.replace(text, |_| Ok::<_, std::convert::Infallible>(String::new()))
            .unwrap_or_else(|never| match never {})
    }

    fn replace<E>(&self, text: &str, unresolved: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
        let mut resolved = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            let Some(length) = rest[start + 1..].find('%') else { break };
            let name = &rest[start + 1..start + 1 + length];
            resolved.push_str(&rest[..start]);
            match self.get(name) {
                Some(value) => resolved.push_str(value),
                None => resolved.push_str(&unresolved(name)?),
            }
            rest = &rest[start + length + 2..];
        }
        resolved.push_str(rest);
        Ok(resolved)
    }
}

/// Whether a setting's text means true, as .NET reads booleans (and `1`).
pub fn is_true(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text == "1"
}

/// Editors on Windows put a byte-order mark in front; JSON has no place for it.
pub fn strip_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn parse_env_file(path: &Path, text: &str) -> Result<Vec<(String, String)>, SettingsError> {
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            return Err(SettingsError::NotAnAssignment { path: path.to_owned(), line: index + 1 });
        };
        pairs.push((name.trim().to_owned(), unquote(value.trim()).to_owned()));
    }
    Ok(pairs)
}

fn unquote(value: &str) -> &str {
    ['\'', '"'].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_names_resolve_and_unknown_ones_are_named() {
        let settings = Settings::from_pairs(&[("QUEUE_EVENTS", "events")]);
        assert_eq!(settings.resolve("%QUEUE_EVENTS%-x").unwrap(), "events-x");
        assert_eq!(settings.resolve("100%").unwrap(), "100%");
        let message = settings.resolve("%QUEUE_JOBS%").unwrap_err().to_string();
        assert!(message.starts_with("%QUEUE_JOBS% names no app setting"), "{message}");
        assert_eq!(settings.resolve_or_delete("a%NOPE%b"), "ab");
    }

    #[test]
    fn env_files_take_exports_quotes_and_comments() {
        let text = "# made by a script\n\nexport A='x y'\nB=\"z=1\"\nC=\n";
        let pairs = parse_env_file(Path::new("env"), text).unwrap();
        let expected = [("A", "x y"), ("B", "z=1"), ("C", "")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(pairs, expected);
        assert!(
            parse_env_file(Path::new("env"), "A=1\nnonsense").unwrap_err().to_string().starts_with("env:2:")
        );
    }

    #[test]
    fn local_settings_lose_to_the_environment() {
        let root = std::env::temp_dir().join(format!("devhost-settings-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&root).unwrap();
        let json = r#"{"IsEncrypted":false,"Values":{"PATH":"/from/file","ONLY_IN_FILE":"1"},"Host":{"LocalHttpPort":7099,"CORS":"*"}}"#;
        std::fs::write(root.join("local.settings.json"), json).unwrap();
        let settings = Settings::load(&root, None);
        std::fs::remove_dir_all(&root).unwrap();
        let settings = settings.unwrap();
        assert_eq!(settings.get("ONLY_IN_FILE"), Some("1"));
        assert_ne!(settings.get("PATH"), Some("/from/file"));
        assert_eq!((settings.local_port, settings.wants_cors), (Some(7099), true));
    }
}
