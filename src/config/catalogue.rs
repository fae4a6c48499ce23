//! Every setting there is, and the page that lists them.

use std::fmt::Write;

use super::reader::Setting;
use super::{
    access, console, database, host, load, models, respond, secrets, server, spend, storage, telemetry, work,
};

/// Every setting, by the heading it stands under in `docs/settings.md`.
pub fn catalogue() -> [(&'static str, &'static [Setting]); 13] {
    [
        ("Where it runs", host::SETTINGS),
        ("Structure", load::SETTINGS),
        ("Database", database::SETTINGS),
        ("Storage, queues and identity", storage::SETTINGS),
        ("Work", work::SETTINGS),
        ("Events that start model work", respond::SETTINGS),
        ("The conversation server", server::SETTINGS),
        ("The console", console::SETTINGS),
        ("Secrets by name", secrets::SETTINGS),
        ("Models", models::SETTINGS),
        ("Access", access::SETTINGS),
        ("Spend, and what instances share", spend::SETTINGS),
        ("Logs, traces, metrics", telemetry::SETTINGS),
    ]
}

/// Whether `name` is a setting, or one that the Functions host alone reads.
pub fn is_known(name: &str) -> bool {
    HOST_ONLY.contains(&name)
        || catalogue()
            .iter()
            .flat_map(|(_, settings)| settings.iter())
            .any(|setting| matches(setting.name, name))
}

/// Settings of the Functions host that stand beside ours in the same files.
const HOST_ONLY: &[&str] =
    &["FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION", "AzureWebJobsFeatureFlags"];

/// Whether `name` fits a pattern of fixed parts and `<PLACEHOLDERS>`, each standing for at least one character.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((fixed, rest)) = pattern.split_once('<') else { return pattern == name };
    let Some(name) = name.strip_prefix(fixed) else { return false };
    let rest = rest.split_once('>').map_or("", |(_, rest)| rest);
    (1..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
}

/// The text of `docs/settings.md`.
pub fn catalogue_markdown() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         <!-- Generated: `UPDATE_DOCS=1 cargo test --lib config::catalogue` writes this file from `src/config/`. -->\n\n\
         Every environment variable that Colloquy reads. Structure (sources, routes, callback targets) stands in \
         `colloquy.toml`, where any value may be `${ENV_NAME}`. A blank variable counts as unset. Times carry their \
         unit (`250ms`, `10s`, `5m`, `24h`, `90d`); a bare number other than 0 is refused. In Azure, secrets are Key \
         Vault references; one that the platform could not resolve is refused at start-up by name.\n",
    );
    for (heading, settings) in catalogue() {
        page.push_str("\n## ");
        page.push_str(heading);
        page.push_str("\n\n| variable | default | unit or form | meaning |\n|---|---|---|---|\n");
        for setting in settings {
            row(&mut page, setting);
        }
    }
    page
}

fn row(page: &mut String, setting: &Setting) {
    let default = setting.default.map(|text| format!("`{text}`")).unwrap_or_default();
    let mut meaning = cell(setting.meaning);
    if !setting.required_when.is_empty() {
        meaning.push_str(&format!(" **Required** when: {}.", cell(setting.required_when)));
    }
    if setting.secret {
        meaning.push_str(" *Secret.*");
    }
    // Writing to a String cannot fail.
    writeln!(page, "| `{}` | {default} | {} | {meaning} |", setting.name, cell(setting.unit))
        .unwrap_or_default();
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        crate::testing::assert_page("docs/settings.md", |_| catalogue_markdown(), "config::catalogue");
    }

    #[test]
    fn no_setting_is_declared_twice_or_without_words() {
        let mut seen = BTreeSet::new();
        for (_, settings) in catalogue() {
            for setting in settings {
                assert!(seen.insert(setting.name), "{} is declared twice", setting.name);
                assert!(!setting.meaning.is_empty() && !setting.unit.is_empty(), "{}", setting.name);
                assert!(
                    !(setting.secret && setting.default.is_some()),
                    "{} is secret and has a default",
                    setting.name
                );
            }
        }
    }

    #[test]
    fn the_example_settings_are_all_known() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("local.settings.example.json");
        let Ok(text) = std::fs::read_to_string(path) else { return };
        let example: serde_json::Value = serde_json::from_str(&text).unwrap();
        for name in example["Values"].as_object().unwrap().keys() {
            assert!(is_known(name), "{name} is in no catalogue");
        }
    }

    #[test]
    fn patterns_are_recognised() {
        for known in [
            "APP_ENV",
            "LLM_GPT_API_KEY",
            "WEBHOOK_SECRET_STRIPE",
            "WEBHOOK_SECRET_ESPOCRM__65a",
            "ENCRYPTION_KEY__2026",
        ] {
            assert!(is_known(known), "{known}");
        }
        for unknown in ["APP_ENVS", "WEBHOOK_SECRET_", "CALLBACK_SECRETS"] {
            assert!(!is_known(unknown), "{unknown}");
        }
    }
}
