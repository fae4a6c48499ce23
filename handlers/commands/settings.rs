//! `settings`: the catalogue.

use std::process::ExitCode;

use clap::Args;
use colloquy::config::{catalogue, catalogue_markdown};

use super::output;

#[derive(Args)]
pub struct Settings {
    /// As docs/settings.md has it.
    #[arg(long)]
    markdown: bool,
}

pub fn run(command: &Settings) -> ExitCode {
    if command.markdown {
        say!("{}", catalogue_markdown().trim_end());
        return ExitCode::SUCCESS;
    }
    for (group, settings) in catalogue() {
        say!("\n{group}");
        output::table(
            ["SETTING", "DEFAULT", "MEANING"],
            settings.iter().map(|setting| {
                [
                    setting.name.to_owned(),
                    setting.default.unwrap_or_default().to_owned(),
                    setting.meaning.to_owned(),
                ]
            }),
            "",
        );
    }
    ExitCode::SUCCESS
}
