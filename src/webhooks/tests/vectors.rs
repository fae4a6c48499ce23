//! `tests/fixtures/webhooks.json`: signatures computed elsewhere, good and bad.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::support::{NOW, post, try_source};
use crate::webhooks::{Problem, ProblemKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    scheme: String,
    name: String,
    secrets: Vec<String>,
    now: Option<i64>,
    body: String,
    headers: BTreeMap<String, String>,
    expect: String,
    webhook_id: Option<String>,
}

#[test]
fn every_vector_gets_its_verdict() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/webhooks.json");
    let vectors: Vec<Vector> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(vectors.len() >= 18);
    for vector in vectors {
        // An EspoCRM secret is labelled with the id of its webhook.
        let label = vector.webhook_id.as_deref().unwrap_or("default");
        let secrets: Vec<_> = vector.secrets.iter().map(|secret| (label, secret.as_str())).collect();
        let source = try_source(&format!("kind = \"{}\"", vector.scheme), &secrets).unwrap();
        let request = post(vector.body).at(vector.now.unwrap_or(NOW));
        let request =
            vector.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let verdict = match request.verify(&source) {
            Ok(verified) => {
                assert_eq!(verified.secret_label(), Some(label), "{}", vector.name);
                "ok"
            }
            Err(error) => match Problem::from(&error).kind {
                ProblemKind::BadSignature => "bad_signature",
                ProblemKind::StaleSignature => "stale",
                other => panic!("{}: {other:?}", vector.name),
            },
        };
        assert_eq!(verdict, vector.expect, "{} {}", vector.scheme, vector.name);
        assert_eq!(source.scheme_name(), vector.scheme);
    }
}
