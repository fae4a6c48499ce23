//! Access tokens and key documents, for `scripts/fuzz`.

#![expect(clippy::expect_used, reason = "what is fixed here is known to be right")]

use std::sync::LazyLock;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_790_000_000;
const ISSUER: &str = "https://clerk.example";
const AUDIENCE: &str = "api://colloquy";

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    KeySet::parse(include_bytes!("../../../tests/fixtures/keys/jwks.json")).expect("a set of keys")
});
static ISSUERS: LazyLock<Issuers> = LazyLock::new(|| {
    let issuer = json!({
        "issuer": ISSUER, "audience": [AUDIENCE], "authorized_parties": ["web"], "operator_role": "Operator",
    });
    Issuers::new(&[serde_json::from_value(issuer).expect("an issuer")])
});
static SIGNING: LazyLock<EncodingKey> = LazyLock::new(|| {
    let pem = include_bytes!("../../../tests/fixtures/keys/ec-p256.pem");
    EncodingKey::from_ec_pem(pem).expect("a key")
});

/// As a token nothing is believed, for nothing here was signed; as a key document it is taken or refused; and as claims
/// that are signed by the right key it is judged by what it says.
pub fn tokens(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let now = Timestamp::from_second(NOW).expect("a time");
        if let Ok(presented) = ISSUERS.read(text) {
            let judged = judge(text, &presented, &KEYS, now);
            assert!(judged.is_err(), "a token that nobody signed is {judged:?}");
        }
    }
    if let Ok(keys) = KeySet::parse(data) {
        assert!(keys.key("", Algorithm::HS256).is_none());
    }
    let Ok(claims) = serde_json::from_slice::<Value>(data) else { return };
    let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
    let token = encode(&header, &claims, &SIGNING).expect("a token");
    let Ok(presented) = ISSUERS.read(&token) else { return };
    let now = Timestamp::from_second(NOW).expect("a time");
    if let Ok(principal) = judge(&token, &presented, &KEYS, now) {
        assert_eq!(claims["iss"], ISSUER);
        let named = |audience: &Value| *audience == AUDIENCE;
        assert!(named(&claims["aud"]) || claims["aud"].as_array().is_some_and(|all| all.iter().any(named)));
        assert!(claims["azp"] == "web" || claims["appid"] == "web", "another party's token");
        assert!(
            claims["exp"].as_i64().is_some_and(|ends| ends.saturating_add(LEEWAY_SECONDS) > NOW),
            "an old token"
        );
        assert!(principal.owner.len() > ISSUER.len() + 1, "a token of nobody");
        let operator = claims["roles"].as_array().is_some_and(|roles| roles.contains(&json!("Operator")));
        assert_eq!(principal.may(Scope::Operator), operator);
    }
}
