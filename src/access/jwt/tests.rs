use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

// Made for this test: openssl ecparam -name prime256v1 -genkey | openssl pkcs8 -topk8 -nocrypt
const KEY: &str = include_str!("../../../tests/fixtures/keys/ec-p256.pem");
const X: &str = include_str!("../../../tests/fixtures/keys/ec-p256.x");
const Y: &str = include_str!("../../../tests/fixtures/keys/ec-p256.y");
const ISSUER: &str = "https://clerk.example";
const NOW: i64 = 1_790_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn jwks(kid: &str) -> Vec<u8> {
    let key = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": X.trim(), "y": Y.trim()});
    json!({ "keys": [key] }).to_string().into_bytes()
}

fn sign(kid: &str, claims: &Value) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    encode(&header, claims, &EncodingKey::from_ec_pem(KEY.as_bytes()).unwrap()).unwrap()
}

fn issuer() -> JwtIssuerConfig {
    serde_json::from_value(json!({
        "issuer": ISSUER, "audience": ["api://colloquy", "other"], "authorized_parties": ["web"],
        "operator_role": "Operator",
    }))
    .unwrap()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "api://colloquy", "azp": "web", "sub": "user_1", "exp": NOW + 300, "nbf": NOW})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn judged(claims: &Value) -> Result<Principal, TokenError> {
    let set = KeySet::parse(&jwks("k1")).unwrap();
    judge(&sign("k1", claims), "k1", Algorithm::ES256, &set, &issuer(), now())
}

#[test]
fn a_good_token_names_its_owner() {
    let principal = judged(&claims()).unwrap();
    assert_eq!(principal.owner, "https://clerk.example|user_1");
    assert!(principal.is_token && principal.scopes.is_empty());
    assert_eq!(principal.who().key, None, "no key's budget applies");
    assert_eq!(principal.expires_at.unwrap().as_second(), NOW + 300 + 60);
    let entra = judged(&with(json!({"tid": "t", "oid": "o", "roles": ["Operator"]}))).unwrap();
    assert_eq!((entra.owner.as_str(), entra.may(Scope::Operator)), ("https://clerk.example|t|o", true));
    assert!(judged(&with(json!({"aud": ["x", "other"]}))).is_ok());
    assert!(judged(&with(json!({"azp": null, "appid": "web"}))).is_ok());
    assert!(judged(&with(json!({"exp": NOW - 59, "nbf": NOW + 59}))).is_ok(), "clocks differ");
}

#[test]
fn each_wrong_claim_has_its_reason() {
    for (changes, reason) in [
        (json!({"iss": "https://evil.example"}), TokenError::Issuer),
        (json!({"aud": "elsewhere"}), TokenError::Audience),
        (json!({"aud": null}), TokenError::Audience),
        (json!({"azp": "phone"}), TokenError::Party),
        (json!({"azp": null}), TokenError::Party),
        (json!({"exp": NOW - 60}), TokenError::Expired),
        (json!({"nbf": NOW + 61}), TokenError::Early),
        (json!({"sub": ""}), TokenError::Subject),
        (json!({"exp": null}), TokenError::Signature),
    ] {
        assert_eq!(judged(&with(changes.clone())), Err(reason), "{changes}");
    }
}

#[test]
fn signatures_and_algorithms_are_checked() {
    let set = KeySet::parse(&jwks("k1")).unwrap();
    let good = sign("k1", &claims());
    let forged = {
        let (head, _) = good.rsplit_once('.').unwrap();
        format!("{head}.{}", URL_SAFE_NO_PAD.encode([1; 64]))
    };
    assert_eq!(judge(&forged, "k1", Algorithm::ES256, &set, &issuer(), now()), Err(TokenError::Signature));
    assert_eq!(judge(&good, "k2", Algorithm::ES256, &set, &issuer(), now()), Err(TokenError::Key));
    // A token does not choose what its key is used for.
    assert_eq!(judge(&good, "k1", Algorithm::RS256, &set, &issuer(), now()), Err(TokenError::Key));
}

#[tokio::test]
async fn keys_are_discovered_fetched_anew_and_outlive_their_issuer() {
    use warp::Filter;
    let (listener, address) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let name = format!("http://{address}");
    let kid = std::sync::Arc::new(std::sync::Mutex::new("k1".to_owned()));
    let fetched = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let discovery = {
        let document = json!({"issuer": name, "jwks_uri": format!("{name}/keys")});
        warp::path!(".well-known" / "openid-configuration").map(move || warp::reply::json(&document))
    };
    let (served, counted) = (kid.clone(), fetched.clone());
    let keys = warp::path!("keys").map(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        String::from_utf8(jwks(&served.lock().unwrap())).unwrap()
    });
    let server = tokio::spawn(warp::serve(discovery.or(keys)).incoming(listener).run());

    let config = JwtIssuerConfig { issuer: name.clone(), ..issuer() };
    let issuers = Issuers::new(&[config]);
    let cache = JwksCache::new(std::time::Duration::from_secs(5));
    let good = sign("k1", &with(json!({"iss": name})));
    for _ in 0..3 {
        issuers.verify(&good, &cache, now()).await.unwrap();
    }
    assert_eq!(fetched.load(std::sync::atomic::Ordering::Relaxed), 1);
    // An unknown key asks again, but not each time.
    let rolled = sign("k2", &with(json!({"iss": name})));
    *kid.lock().unwrap() = "k2".to_owned();
    for _ in 0..5 {
        let refused = issuers.verify(&rolled, &cache, now()).await.unwrap_err();
        assert_eq!(refused, AccessError::Token(TokenError::Key));
    }
    assert_eq!(fetched.load(std::sync::atomic::Ordering::Relaxed), 1, "fetched a moment ago");
    server.abort();
    issuers.verify(&good, &cache, now()).await.expect("known keys serve on");
    let unknown = issuers.verify(&sign("k1", &claims()), &cache, now()).await.unwrap_err();
    assert_eq!(unknown, AccessError::Token(TokenError::Issuer));
    for broken in ["a.b.c", "", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(issuers.verify(broken, &cache, now()).await.is_err(), "{broken}");
    }
    let nobody = JwksCache::new(std::time::Duration::from_secs(1));
    assert_eq!(issuers.verify(&good, &nobody, now()).await, Err(AccessError::Unavailable));
}
