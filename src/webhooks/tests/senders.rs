//! Signatures by the senders' own libraries, and what those libraries say of ours.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

use super::support::{post, source};
use crate::config::{Environment, ProcessEnvironment};
use crate::ids::CallbackId;
use crate::jobs::callback::Signer;
use crate::webhooks::{Problem, ProblemKind};

const VARIABLE: &str = "COLLOQUY_TEST_SENDERS";
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw";

/// What `tests/senders/generate` wrote.
fn requests() -> PathBuf {
    let Some(path) = ProcessEnvironment.get(VARIABLE) else {
        panic!(
            "{VARIABLE} is not set. Run scripts/test, or tests/senders/generate FILE and set {VARIABLE} to FILE \
             (an absolute path)."
        );
    };
    path.into()
}

#[derive(Deserialize)]
struct Request {
    library: String,
    scheme: String,
    secret: String,
    headers: BTreeMap<String, String>,
    body_base64: String,
    now: i64,
    expect: String,
}

#[test]
fn what_the_senders_libraries_sign_gets_its_verdict() {
    let lines = std::fs::read_to_string(requests()).unwrap();
    let mut accepted = BTreeSet::new();
    for line in lines.lines() {
        let request: Request = serde_json::from_str(line).unwrap();
        let source = source(&format!("kind = \"{}\"", request.scheme), &request.secret);
        let delivery = post(STANDARD.decode(request.body_base64).unwrap()).at(request.now);
        let delivery = request.headers.iter().fold(delivery, |post, (name, value)| post.header(name, value));
        let verdict = match delivery.verify(&source) {
            Ok(_) => "ok",
            Err(error) if Problem::from(&error).kind == ProblemKind::StaleSignature => "stale",
            Err(_) => "bad_signature",
        };
        assert_eq!(verdict, request.expect, "{} {:?} at {}", request.library, request.headers, request.now);
        if verdict == "ok" {
            accepted.insert(request.library);
        }
    }
    let libraries = [
        "@octokit/webhooks-methods",
        "standardwebhooks for JavaScript",
        "standardwebhooks for Python",
        "stripe for JavaScript",
        "stripe for Python",
        "svix for JavaScript",
        "svix for Python",
    ];
    assert_eq!(accepted.into_iter().collect::<Vec<_>>(), libraries);
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Verdict {
    name: String,
    library: String,
    verdict: String,
}

fn ask(name: &str, scheme: &str, secret: &str, headers: &[(String, String)], body: &[u8]) -> String {
    let headers: BTreeMap<_, _> = headers.iter().cloned().collect();
    let body_base64 = STANDARD.encode(body);
    serde_json::json!({
        "name": name, "scheme": scheme, "secret": secret, "headers": headers, "body_base64": body_base64,
    })
    .to_string()
}

/// Headers of a callback as `send-callback` sets them.
fn callback(secrets: &[&str], body: &[u8], at: Timestamp) -> Vec<(String, String)> {
    let secrets: Vec<SecretString> = secrets.iter().map(|secret| (*secret).to_owned().into()).collect();
    let id = CallbackId::new();
    let signature = Signer::new(&secrets).unwrap().sign(id, at, body);
    [
        ("webhook-id", id.to_string()),
        ("webhook-timestamp", at.as_second().to_string()),
        ("webhook-signature", signature),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[test]
fn the_senders_libraries_verify_what_we_sign() {
    // The libraries look at the clock.
    requests();
    let now = Timestamp::now();
    let body = "{\"name\":\"M\u{fc}ller \\/ \\u00e9\",\"n\":1.10}".as_bytes();
    let mut lines = Vec::new();
    for (scheme, secret) in
        [("stripe", "whsec_test"), ("github", "secret"), ("standard-webhooks", STANDARD_SECRET)]
    {
        let signed = source(&format!("kind = \"{scheme}\""), secret).sign(body, now, None).unwrap();
        lines.push(ask("signed", scheme, secret, &signed.headers, body));
    }
    let both = callback(&[OTHER_SECRET, STANDARD_SECRET], body, now);
    for secret in [STANDARD_SECRET, OTHER_SECRET] {
        lines.push(ask("callback", "standard-webhooks", secret, &both, body));
    }
    let alone = callback(&[OTHER_SECRET], body, now);
    lines.push(ask("forged", "standard-webhooks", STANDARD_SECRET, &alone, body));

    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/senders/generate"))
        .arg("--verify")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success());
    let verdicts: Vec<Verdict> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    // Stripe and Standard Webhooks by two and four libraries, GitHub by one.
    let count = |name: &str| verdicts.iter().filter(|verdict| verdict.name == name).count();
    assert_eq!([count("signed"), count("callback"), count("forged")], [2 + 1 + 4, 2 * 4, 4]);
    for verdict in verdicts {
        assert_eq!(verdict.verdict == "ok", verdict.name != "forged", "{verdict:?}");
    }
}
