//! Every setting there is, and the page that lists them.

use std::fmt::Write;

use super::reader::Setting;
use super::{access, database, host, load, secrets, storage, telemetry, work};

/// Every setting, by the heading it stands under in `docs/settings.md`.
pub fn catalogue() -> [(&'static str, &'static [Setting]); 8] {
    [
        ("Where it runs", host::SETTINGS),
        ("Structure", load::SETTINGS),
        ("Database", database::SETTINGS),
        ("Storage, queues and identity", storage::SETTINGS),
        ("Work", work::SETTINGS),
        ("Secrets by name", secrets::SETTINGS),
        ("Access", access::SETTINGS),
        ("Logs, traces, metrics", telemetry::SETTINGS),
    ]
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
    write!(page, "| `{}` | {default} | {} | {meaning} |\n", setting.name, cell(setting.unit)).unwrap_or_default();
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}

