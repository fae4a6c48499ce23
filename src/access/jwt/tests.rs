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

fn by<'a>(kid: &str, algorithm: Algorithm, issuer: &'a JwtIssuerConfig) -> Presented<'a> {
    Presented { kid: kid.to_owned(), algorithm, issuer }
}

fn judged(claims: &Value) -> Result<Principal, TokenError> {
    let set = KeySet::parse(&jwks("k1")).unwrap();
    judge(&sign("k1", claims), &by("k1", Algorithm::ES256, &issuer()), &set, now())
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
    let issuer = issuer();
    let judged = |token: &str, kid: &str, algorithm| judge(token, &by(kid, algorithm, &issuer), &set, now());
    assert_eq!(judged(&forged, "k1", Algorithm::ES256), Err(TokenError::Signature));
    assert_eq!(judged(&good, "k2", Algorithm::ES256), Err(TokenError::Key));
    // A token does not choose what its key is used for.
    assert_eq!(judged(&good, "k1", Algorithm::RS256), Err(TokenError::Key));
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

/// A key of somebody's who signs for himself.
fn strangers_key() -> EncodingKey {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EncodingKey::from_ec_der(key.as_ref())
}

/// A token with any header, signed by anybody.
fn forged(header: &Value, signed: impl Fn(&str) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(&claims()));
    let signature = URL_SAFE_NO_PAD.encode(signed(&message));
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_token_chooses_neither_its_algorithm_nor_its_key() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("http://{}/keys", listener.local_addr().unwrap());
    let set = KeySet::parse(&jwks("k1")).unwrap();
    let configured = Issuers::new(&[issuer()]);
    let refused = |what: &str, token: &str| {
        let judged = configured.read(token).and_then(|presented| judge(token, &presented, &set, now()));
        let error = judged.expect_err(what);
        let expected = [TokenError::Malformed, TokenError::Key, TokenError::Signature];
        assert!(expected.contains(&error), "{what}: {error}");
    };
    // The public key as the secret of a MAC, in every form in which it is public.
    let document = String::from_utf8(jwks("k1")).unwrap();
    let raw: Vec<u8> = [X.trim(), Y.trim()].map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).concat();
    for secret in [document.as_bytes(), X.trim().as_bytes(), &raw[..], b""] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let header = json!({ "alg": algorithm, "typ": "JWT", "kid": "k1" });
            let mac = |message: &str| {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
                aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            };
            refused(algorithm, &forged(&header, mac));
        }
    }
    for none in ["none", "None", "NONE", "nOnE", "", "ES256K", "ES384", "EdDSA", "PS256"] {
        refused(none, &forged(&json!({ "alg": none, "kid": "k1" }), |_| Vec::new()));
    }
    // A signature of zeros, which careless verifiers of ECDSA believe.
    refused("zeros", &forged(&json!({ "alg": "ES256", "kid": "k1" }), |_| vec![0; 64]));

    let key = strangers_key();
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": X.trim(), "y": Y.trim() });
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!(elsewhere)),
        ("x5u", json!(elsewhere)),
        ("x5c", json!(["MII"])),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("k1' OR '1'='1")),
        ("kid", json!("k1\u{0}")),
        ("kid", json!("K1")),
        ("kid", json!("k".repeat(4_000))),
        ("kid", json!(elsewhere)),
        ("kid", json!("")),
        ("kid", json!(["k1"])),
        ("kid", json!(null)),
    ] {
        let mut header = json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" });
        header[name] = value;
        let signed = |message: &str| {
            let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
            URL_SAFE_NO_PAD.decode(signature).unwrap()
        };
        refused(name, &forged(&header, signed));
    }
    let asked = tokio::time::timeout(std::time::Duration::from_millis(50), listener.accept()).await;
    assert!(asked.is_err(), "a token says where its keys are, and nobody asks there");
}

#[tokio::test]
async fn a_flood_of_keys_that_never_were_is_one_question_to_the_issuer() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use warp::Filter;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let keys = warp::any().map(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        String::from_utf8(jwks("k1")).unwrap()
    });
    let server = tokio::spawn(warp::serve(keys).incoming(listener).run());
    let config = JwtIssuerConfig { issuer: name.clone(), jwks_url: Some(format!("{name}/keys")), ..issuer() };
    let (issuers, cache) = (Issuers::new(&[config]), JwksCache::new(std::time::Duration::from_secs(5)));
    let flood = (0..500).map(|number| {
        let token = sign(&format!("never-{number}"), &with(json!({ "iss": name })));
        let (issuers, cache) = (&issuers, &cache);
        async move { issuers.verify(&token, cache, now()).await }
    });
    for judged in futures_util::future::join_all(flood).await {
        assert_eq!(judged, Err(AccessError::Token(TokenError::Key)));
    }
    let good = sign("k1", &with(json!({ "iss": name })));
    issuers.verify(&good, &cache, now()).await.expect("the issuer's own tokens pass meanwhile");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    server.abort();
}

#[tokio::test]
async fn a_key_document_without_end_is_not_read_to_it() {
    use warp::Filter;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = format!("http://{}", listener.local_addr().unwrap());
    let keys = warp::any().map(|| vec![b' '; 8 * 1024 * 1024]);
    let server = tokio::spawn(warp::serve(keys).incoming(listener).run());
    let config = JwtIssuerConfig { issuer: name.clone(), jwks_url: Some(format!("{name}/keys")), ..issuer() };
    let (issuers, cache) = (Issuers::new(&[config]), JwksCache::new(std::time::Duration::from_secs(5)));
    let token = sign("k1", &with(json!({ "iss": name })));
    assert_eq!(issuers.verify(&token, &cache, now()).await, Err(AccessError::Unavailable));
    server.abort();
}
