//! A function folder: its `function.json`, read as leniently as the host reads it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Findings, member, read_json};

/// One `function.json`.
pub(super) struct Folder {
    pub(super) bindings: Vec<Binding>,
    /// Whether the host is told, in any way, not to run it.
    pub(super) disabled: bool,
    /// Whether the host is told to retry it.
    pub(super) retried: bool,
}

/// One binding; member names are compared without regard to case, as the host does.
pub(super) struct Binding(Map<String, Value>);

impl Folder {
    /// The name of the only trigger.
    pub(super) fn trigger_name(&self) -> Option<String> {
        self.bindings.iter().find(|b| b.is_trigger()).map(|b| b.text("name").to_owned())
    }
}

impl Binding {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        member(&self.0, name)
    }

    /// A string member, empty if it is missing or no string.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or("")
    }

    pub(super) fn is_trigger(&self) -> bool {
        self.text("type").to_ascii_lowercase().ends_with("trigger")
    }

    pub(super) fn is(&self, kind: &str, direction: &str) -> bool {
        self.text("type").eq_ignore_ascii_case(kind) && self.text("direction").eq_ignore_ascii_case(direction)
    }
}

/// Every folder directly under `root` with a `function.json`, by name. One that cannot be read is a finding,
/// and present without bindings.
pub(super) fn read_all(root: &Path, findings: &mut Findings) -> io::Result<BTreeMap<String, Folder>> {
    let mut folders = BTreeMap::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let place = format!("{name}/function.json");
        let folder = match read_json(&entry.path().join("function.json")) {
            Ok(None) => continue,
            Ok(Some(file)) => folder_of(file, &place, findings),
            Err(error) => {
                findings.add(place, error, "correct it; comments are not taken here");
                Folder { bindings: Vec::new(), disabled: false, retried: false }
            }
        };
        folders.insert(name, folder);
    }
    Ok(folders)
}

fn folder_of(file: Value, place: &str, findings: &mut Findings) -> Folder {
    let members = match file {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    Folder {
        // A name instead of `true` is that of a setting which may say so.
        disabled: member(&members, "disabled").is_some_and(|disabled| *disabled != Value::Bool(false)),
        retried: member(&members, "retry").is_some_and(|retry| !retry.is_null()),
        bindings: bindings_of(member(&members, "bindings"), place, findings),
    }
}

fn bindings_of(list: Option<&Value>, place: &str, findings: &mut Findings) -> Vec<Binding> {
    let Some(Value::Array(bindings)) = list else {
        findings.add(place, "has no list `bindings`", "add the trigger");
        return Vec::new();
    };
    bindings
        .iter()
        .filter_map(|binding| match binding {
            Value::Object(members) => Some(Binding(members.clone())),
            _ => {
                findings.add(place, "has a binding that is not an object", "remove it");
                None
            }
        })
        .collect()
}
