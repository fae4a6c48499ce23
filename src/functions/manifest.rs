//! Comparing the registrations with `host.json` and the function folders, before the host finds out.

mod compare;
mod folder;
mod host;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

pub use host::HostFile;

use super::app::App;

/// What the function folders say and serving needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// From `host.json`.
    pub host: HostFile,
    /// The name of each function's trigger binding: the key of its data in an envelope.
    pub bindings: BTreeMap<String, String>,
}

/// The registrations and the folders do not describe the same app.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// Every one found, never empty.
    pub differences: Vec<Difference>,
}

/// One thing that differs, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// A file, or the registration.
    pub place: String,
    pub what: String,
    pub remedy: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, places) = match self.differences.len() {
            1 => (1, "place"),
            n => (n, "places"),
        };
        write!(f, "the function folders and the registrations differ in {count} {places}:")?;
        self.differences.iter().try_for_each(|difference| write!(f, "\n  - {difference}"))
    }
}

/// Collects differences.
#[derive(Default)]
struct Findings(Vec<Difference>);

impl Findings {
    fn add(&mut self, place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        let difference = Difference { place: place.into(), what: what.into(), remedy: remedy.into() };
        // A function registered twice is compared twice.
        if !self.0.contains(&difference) {
            self.0.push(difference);
        }
    }
}

pub(super) fn check(app: &App, root: &Path) -> Result<Manifest, ManifestError> {
    let mut findings = Findings(app.mistakes.clone());
    let host = host::read(app, root, &mut findings);
    let folders = match folder::read_all(root, &mut findings) {
        Ok(folders) => folders,
        Err(error) => {
            findings.add(
                root.display().to_string(),
                format!("cannot be listed: {error}"),
                "set FUNCTIONS_APP_ROOT_PATH to the folder that holds host.json",
            );
            BTreeMap::new()
        }
    };
    compare::functions(app, &folders, &mut findings);
    compare::reach(app, &host.route_prefix, &mut findings);
    if !findings.0.is_empty() {
        return Err(ManifestError { differences: findings.0 });
    }
    let bindings =
        folders.into_iter().filter_map(|(name, folder)| Some((name, folder.trigger_name()?))).collect();
    Ok(Manifest { host, bindings })
}

/// A member by its name, whose case the host does not regard.
fn member<'a>(
    members: &'a serde_json::Map<String, serde_json::Value>,
    name: &str,
) -> Option<&'a serde_json::Value> {
    members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A JSON file as the host reads it, `None` if it does not exist.
fn read_json(path: &Path) -> Result<Option<serde_json::Value>, String> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
            serde_json::from_slice(text).map(Some).map_err(|error| format!("is not JSON: {error}"))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}
