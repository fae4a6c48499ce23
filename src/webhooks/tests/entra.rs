//! Tokens signed with a key made here, read with a key set as Entra publishes it.

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::support::{NOW, code, fixture, post, source, try_source};
use crate::webhooks::{KeySet, Source, VerifyError};

const TENANT: &str = "8a1f7b9e-2c3d-4e5f-8091-a2b3c4d5e6f7";

static KEY: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static OTHER: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent out of `SEQUENCE { INTEGER, INTEGER }`.
fn numbers(key: &RsaKeyPair) -> [String; 2] {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (header, length) = match der[1] {
            short @ 0..=127 => (2, usize::from(short)),
            0x81 => (3, usize::from(der[2])),
            _ => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        };
        der[header..].split_at(length)
    }
    let (sequence, _) = element(key.public_key().as_ref());
    let (modulus, rest) = element(sequence);
    let (exponent, _) = element(rest);
    [b64(modulus.strip_prefix(&[0]).unwrap_or(modulus)), b64(exponent)]
}

fn keys(kid: &str) -> KeySet {
    let [n, e] = numbers(&KEY);
    let set = json!({ "keys": [
        { "kty": "EC", "kid": "ec", "crv": "P-256", "x": "AA", "y": "AA" },
        { "kty": "RSA", "use": "sig", "kid": kid, "n": n, "e": e, "x5c": ["MII"], "issuer": "https://login.microsoftonline.com/x/v2.0" },
    ]});
    KeySet::parse(set.to_string().as_bytes()).unwrap()
}

fn token_by(key: &RsaKeyPair, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", b64(signature))
}

fn token(claims: &Value) -> String {
    token_by(&KEY, &json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }), claims)
}

/// What Event Grid's tokens say, with some claims replaced; null removes one.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "aud": "api://colloquy",
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "iat": NOW - 100, "nbf": NOW - 100, "exp": NOW + 3500,
        "tid": TENANT, "azp": "4962773b-9cdb-44cf-a8bf-237846a00ab7",
        "roles": ["AzureEventGridSecureWebhookSubscriber"],
    });
    let all = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        all.insert(name.clone(), value.clone());
    }
    all.retain(|_, value| !value.is_null());
    claims
}

fn table(kind: &str, more: &str) -> String {
    format!(
        "kind = \"{kind}\"\nauth.entra = {{ tenant = \"{TENANT}\", audience = \"api://colloquy\"{more} }}"
    )
}

fn grid() -> Source {
    try_source(&table("event-grid", ""), &[]).unwrap()
}

fn verdict_of(source: &Source, token: &str) -> &'static str {
    let request = post(fixture("event-grid")).header("authorization", &format!("Bearer {token}"));
    code(request.verify_with(source, &keys("k1")))
}

fn verdict(changes: Value) -> &'static str {
    verdict_of(&grid(), &token(&claims(changes)))
}

#[test]
fn a_token_of_the_tenant_is_taken_in_both_versions() {
    assert_eq!(verdict(json!({})), "ok");
    let v1 = json!({
        "iss": format!("https://sts.windows.net/{TENANT}/"), "azp": null,
        "appid": "4962773b-9cdb-44cf-a8bf-237846a00ab7",
    });
    assert_eq!(verdict(v1), "ok");
    assert_eq!(verdict(json!({ "aud": ["x", "api://colloquy"], "tid": null, "nbf": null })), "ok");
    let request = post("{}").header("authorization", &format!("bearer {}", token(&claims(json!({})))));
    let verified = request.verify_with(&grid(), &keys("k1")).unwrap();
    assert_eq!((verified.secret_label(), verified.signed_at()), (None, None));
    assert_eq!(grid().scheme_name(), "entra");
}

#[test]
fn every_claim_counts() {
    let wrong = [
        json!({ "aud": "api://other" }),
        json!({ "aud": [] }),
        json!({ "aud": null }),
        json!({ "iss": "https://login.microsoftonline.com/other/v2.0" }),
        json!({ "iss": format!("https://evil.example/{TENANT}/v2.0") }),
        json!({ "iss": null }),
        json!({ "tid": "00000000-0000-0000-0000-000000000000" }),
        json!({ "roles": [] }),
        json!({ "roles": null }),
        json!({ "roles": ["azureeventgridsecurewebhooksubscriber"] }),
        json!({ "exp": null }),
        json!({ "exp": "soon" }),
    ];
    for changes in wrong {
        assert_eq!(verdict(changes.clone()), "bad_signature", "{changes}");
    }
}

#[test]
fn a_token_is_judged_at_arrival_with_the_usual_tolerance() {
    for (changes, expected) in [
        (json!({ "exp": NOW - 300 }), "ok"),
        (json!({ "exp": NOW - 301 }), "stale"),
        (json!({ "nbf": NOW + 300 }), "ok"),
        (json!({ "nbf": NOW + 301 }), "stale"),
        (json!({ "exp": i64::MIN }), "stale"),
        (json!({ "nbf": i64::MAX }), "stale"),
    ] {
        assert_eq!(verdict(changes.clone()), expected, "{changes}");
    }
}

#[test]
fn only_the_tenants_key_and_rs256_sign() {
    let good = claims(json!({}));
    let header = json!({ "alg": "RS256", "kid": "k1" });
    assert_eq!(verdict_of(&grid(), &token_by(&OTHER, &header, &good)), "bad_signature");
    let [n, _] = numbers(&KEY);
    for alg in ["none", "HS256", "PS256", "RS384", "rs256", "ES256"] {
        let forged = token_by(&KEY, &json!({ "alg": alg, "kid": "k1" }), &good);
        assert_eq!(verdict_of(&grid(), &forged), "bad_signature", "{alg}");
    }
    // The classic confusion: the public key as an HMAC secret.
    let message = format!("{}.{}", b64(r#"{"alg":"HS256","kid":"k1"}"#), b64(good.to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, n.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    assert_eq!(verdict_of(&grid(), &format!("{message}.{}", b64(tag))), "bad_signature");
    let whole = token(&good);
    let (head, signature) = whole.rsplit_once('.').unwrap();
    for broken in [
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{signature}A"),
        format!("{whole}.x"),
        String::new(),
    ] {
        assert_eq!(verdict_of(&grid(), &broken), "bad_signature", "{broken}");
    }
    assert_eq!(code(post("{}").verify_with(&grid(), &keys("k1"))), "not_signed");
}

#[test]
fn an_unknown_key_asks_for_fresh_keys() {
    let request = post("{}").header("authorization", &format!("Bearer {}", token(&claims(json!({})))));
    assert_eq!(request.verify(&grid()).unwrap_err(), VerifyError::NeedKeys);
    assert_eq!(request.verify_with(&grid(), &keys("k0")).unwrap_err(), VerifyError::NeedKeys);
    let refused = grid().verify(request.0.clone(), Some(&keys("k0"))).unwrap_err();
    assert!(grid().verify(*refused.delivery, Some(&keys("k1"))).is_ok());
    // A token without a key's name can name none.
    let nameless = token_by(&KEY, &json!({ "alg": "RS256" }), &claims(json!({})));
    assert_eq!(verdict_of(&grid(), &nameless), "bad_signature");
}

#[test]
fn azure_monitor_demands_its_role_and_its_caller() {
    let monitor = try_source(&table("azure-monitor", ""), &[]).unwrap();
    let of = |changes: Value| verdict_of(&monitor, &token(&claims(changes)));
    let right =
        json!({ "roles": ["ActionGroupsSecureWebhook"], "azp": "461E8683-5575-4561-AC7F-899CC907D62A" });
    assert_eq!(of(right), "ok");
    assert_eq!(of(json!({ "roles": ["ActionGroupsSecureWebhook"] })), "bad_signature");
    assert_eq!(of(json!({ "azp": "461e8683-5575-4561-ac7f-899cc907d62a" })), "bad_signature");
}

#[test]
fn letting_in_a_whole_tenant_is_refused_at_start() {
    let errors = try_source(&table("runpod", ""), &[]).unwrap_err();
    assert!(errors[0].to_string().contains("`role` or `caller`"));
    assert!(try_source(&table("runpod", ", caller = \"461e8683-5575-4561-ac7f-899cc907d62a\""), &[]).is_ok());
    let named = "kind = \"event-grid\"\nauth.entra = { tenant = \"contoso.com\", audience = \"a\" }";
    assert!(try_source(named, &[]).unwrap_err()[0].to_string().contains("GUID"));
}

#[test]
fn keys_are_fetched_from_the_tenant_unless_told_otherwise() {
    let expected = format!("https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys");
    assert_eq!(grid().jwks_url(), Some(expected.as_str()));
    let own = try_source(&table("event-grid", ", jwks_url = \"http://127.0.0.1:9/keys\""), &[]).unwrap();
    assert_eq!(own.jwks_url(), Some("http://127.0.0.1:9/keys"));
    assert_eq!(source("kind = \"event-grid\"", "s").jwks_url(), None);
    for set in
        ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA","kid":"k1"}]}"#, r#"{"keys":[1]}"#]
    {
        assert!(KeySet::parse(set.as_bytes()).is_err(), "{set}");
    }
}

#[test]
fn nothing_here_can_sign_for_entra_and_its_tokens_are_not_kept() {
    assert!(grid().sign(b"{}", jiff::Timestamp::UNIX_EPOCH, None).is_err());
    let whole = token(&claims(json!({})));
    let request = post(fixture("event-grid")).header("authorization", &format!("Bearer {whole}"));
    let verified = request.verify_with(&grid(), &keys("k1")).unwrap();
    let crate::webhooks::Outcome::Keep(kept) = grid().receive(&verified).unwrap() else {
        panic!("an event is kept")
    };
    assert!(kept.headers.contains(&("authorization".to_owned(), "[redacted]".to_owned())));
}
