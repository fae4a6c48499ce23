//! What is wrong with a configuration: every mistake of one run, none of them showing a value that may be secret.

use std::fmt;

/// One thing an operator has to correct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// An environment variable's name, or the path of a key in `colloquy.toml` (`sources.stripe.kind`).
    pub place: String,
    /// Line and column in `colloquy.toml`, from 1.
    pub position: Option<(usize, usize)>,
    /// What is wrong and what is expected instead.
    pub problem: String,
}

impl Mistake {
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), position: None, problem: problem.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some((line, column)) = self.position {
            write!(f, " (line {line}, column {column})")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Every mistake found in one run, in the order found. Code `config.invalid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Mistake>);

impl ConfigErrors {
    /// The stable code by which logs and alerts know this failure.
    pub const CODE: &'static str = "config.invalid";
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {noun} in the configuration; docs/settings.md lists every setting", self.0.len())?;
        for mistake in &self.0 {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
