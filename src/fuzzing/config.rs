//! What operators write: `colloquy.toml` and the environment.

use std::collections::BTreeMap;

use crate::config::{AppConfig, Config, Environment, catalogue, fixed};

const KINDS: &[&str] = &["count"];

/// `colloquy.toml`: with an environment and without, every mistake has a place in the file or a name.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = fixed([("HOST", "crm.example.com"), ("KEY", SECRET)]);
    for environment in [Some(&environment as &dyn Environment), None] {
        let Err(mistakes) = AppConfig::parse(text, environment, KINDS) else { continue };
        assert!(!mistakes.is_empty());
        for mistake in mistakes {
            assert!(!mistake.place.is_empty() && !mistake.problem.is_empty(), "{mistake:?}");
            assert!(!mistake.to_string().contains(SECRET), "a mistake tells a value: {mistake}");
            let lines = text.split('\n').count();
            if let Some((line, column)) = mistake.position {
                assert!((1..=lines).contains(&line) && column >= 1, "{mistake}");
            }
        }
    }
}

/// In every value that may be secret.
const SECRET: &str = "Nn3zq1Ow6t8yKc5b";
/// Names of files that are read.
const FILES: &[&str] = &["COLLOQUY_CONFIG", "FUNCTIONS_APP_ROOT_PATH", "AzureWebJobsScriptRoot"];

/// The environment, a setting a line: mistakes are told by name, and no value that may be secret is told.
pub fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut environment = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once('=')
            && !FILES.contains(&name)
        {
            let value = if is_secret(name) { value.replace("SECRET", SECRET) } else { value.to_owned() };
            environment.insert(name.to_owned(), value);
        }
    }
    let told = [
        Config::load(&environment, KINDS).map(drop),
        Config::load_with_models(&environment, KINDS).map(drop),
        Config::load_with_models_of_jobs(&environment, KINDS).map(drop),
    ];
    for errors in told.into_iter().filter_map(Result::err) {
        assert!(!errors.0.is_empty());
        assert!(errors.0.iter().all(|mistake| !mistake.place.is_empty() && !mistake.problem.is_empty()));
        assert!(!errors.to_string().contains(SECRET), "{errors}");
    }
}

fn is_secret(name: &str) -> bool {
    let mut settings = catalogue().into_iter().flat_map(|(_, settings)| settings);
    settings.any(|setting| match setting.name.split_once('<') {
        Some((fixed, _)) => setting.secret && name.starts_with(fixed),
        None => setting.secret && setting.name == name,
    })
}
