//! What chat completions can ask for and responses cannot.

/// The rest of a chat completion's request. It is not stored, so it has no form on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnlyChat {
    /// The answer ends before any of these, at most four.
    pub stop: Vec<String>,
    /// For providers that then try to answer alike.
    pub seed: Option<i64>,
}
