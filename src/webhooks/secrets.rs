//! The secrets of one source, each with the label it is reported under.

use crate::config::{LabelledSecret, UNLABELLED};

/// All secrets of a source, in order of preference: the first signs, any is accepted.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<LabelledSecret>);

impl Secrets {
    /// Takes the secrets as given; whether a scheme can use them is decided by [`Source::new`](super::Source::new).
    pub fn new(secrets: Vec<LabelledSecret>) -> Self {
        Self(secrets)
    }

    /// One secret under [`UNLABELLED`].
    pub fn one(value: impl Into<String>) -> Self {
        Self(vec![LabelledSecret { label: UNLABELLED.to_owned(), value: value.into().into() }])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &LabelledSecret> {
        self.0.iter()
    }

    pub fn first(&self) -> Option<&LabelledSecret> {
        self.0.first()
    }
}

/// The environment variable that holds the secret `label` of `source`: upper case, `-` as `_`; the label as it is.
pub fn variable(source: &str, label: &str) -> String {
    let mut name = format!("WEBHOOK_SECRET_{}", source.to_ascii_uppercase().replace('-', "_"));
    if label != UNLABELLED {
        name.push_str("__");
        name.push_str(label);
    }
    name
}
