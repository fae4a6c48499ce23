//! Attacks on a running server that no other test makes; `docs/attacks.md` has all of them.

mod bodies;
mod heads;
mod schemathesis;
mod words;

use serde_json::Value;

use crate::support::repository;

/// An operation of `docs/openapi.json` that is the server's.
struct Operation {
    method: http::Method,
    /// As it stands there: `/v1/responses/{id}`.
    path: String,
    takes_body: bool,
    /// Whether it answers without a key.
    open: bool,
}

impl Operation {
    /// All of them, so that a new route is attacked as soon as it is described.
    fn all() -> Vec<Self> {
        let text = std::fs::read_to_string(repository().join("docs/openapi.json")).expect("the document");
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let paths = document["paths"].as_object().expect("paths").iter();
        let each = paths.filter(|(path, _)| !path.starts_with("/api/")).flat_map(|(path, operations)| {
            operations.as_object().expect("operations").iter().map(|(method, of)| Self {
                method: method.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                takes_body: of.get("requestBody").is_some(),
                open: of["security"].as_array().is_some_and(Vec::is_empty),
            })
        });
        each.collect()
    }

    /// With something in the place of every parameter.
    fn address(&self) -> String {
        let segment = |segment: &str| match segment {
            "{kind}" => "owner".to_owned(),
            "{conversation}" => "conv_0193aaaabbbb7ccc8dddeeeeeeeeeeee".to_owned(),
            named if named.starts_with('{') => "somebody".to_owned(),
            literal => literal.to_owned(),
        };
        self.path.split('/').map(segment).collect::<Vec<_>>().join("/")
    }
}
