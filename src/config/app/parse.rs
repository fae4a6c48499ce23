//! Parsing of `colloquy.toml`.

use super::{AppConfig, Environment, Mistake};

pub(super) fn parse(
    text: &str,
    environment: Option<&dyn Environment>,
    job_kinds: &[&str],
) -> Result<AppConfig, Vec<Mistake>> {
    let _unused = (environment, job_kinds);
    toml::from_str::<toml::Table>(text)
        .map(|_| AppConfig::default())
        .map_err(|error| vec![Mistake::new("colloquy.toml", error.message())])
}
