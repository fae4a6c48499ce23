//! A function folder: its `function.json`, read as leniently as the host reads it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Findings, read_json};

/// The bindings of one `function.json`.
pub(super) struct Folder {
    pub(super) bindings: Vec<Binding>,
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
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
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
        let bindings = match read_json(&entry.path().join("function.json")) {
            Ok(None) => continue,
            Ok(Some(file)) => bindings_of(file, &place, findings),
            Err(error) => {
                findings.add(place, error, "correct it; comments are not taken here");
                Vec::new()
            }
        };
        folders.insert(name, Folder { bindings });
    }
    Ok(folders)
}

fn bindings_of(mut file: Value, place: &str, findings: &mut Findings) -> Vec<Binding> {
    let Some(Value::Array(bindings)) = file.get_mut("bindings").map(Value::take) else {
        findings.add(place, "has no list `bindings`", "add the trigger");
        return Vec::new();
    };
    bindings
        .into_iter()
        .filter_map(|binding| match binding {
            Value::Object(members) => Some(Binding(members)),
            _ => {
                findings.add(place, "has a binding that is not an object", "remove it");
                None
            }
        })
        .collect()
}
