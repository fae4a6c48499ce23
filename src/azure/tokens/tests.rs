use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::future::{join, join_all};
use secrecy::ExposeSecret as _;
use tokio::sync::Semaphore;
use url::Url;

use super::*;
use crate::azure::testing::{Logged, Reply, Seen, StandIn, answer, nowhere};
use crate::azure::{Storage, StorageError, StorageSettings};

const SCOPE: &str = "https://storage.azure.com/.default";
const START: i64 = 1_800_000_000;
const HOUR: i64 = 3600;

/// A time of day that the test moves.
#[derive(Clone, Debug)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(START)))
    }

    fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    fn source(&self, endpoint: &Url, client_id: Option<&str>) -> TokenSource {
        let time = self.clone();
        let clock = move || Timestamp::from_second(time.0.load(Ordering::SeqCst)).unwrap();
        TokenSource::with_clock(identity(endpoint, client_id), Arc::new(clock))
    }
}

fn identity(endpoint: &Url, client_id: Option<&str>) -> Credential {
    Credential::ManagedIdentity(ManagedIdentity {
        endpoint: endpoint.join("/msi/token").unwrap(),
        header: SecretString::from("the-header"),
        client_id: client_id.map(str::to_owned),
    })
}

/// An answer as App Service gives it: the expiry as text.
fn granted(token: &str, expires_on: i64) -> Reply {
    Reply::status(200, body(token, expires_on))
}

fn body(token: &str, expires_on: i64) -> String {
    let body = serde_json::json!({
        "access_token": token, "expires_on": expires_on.to_string(), "resource": "r", "token_type": "Bearer",
        "client_id": "c",
    });
    body.to_string()
}

fn text(token: &Token) -> &str {
    token.secret.expose_secret()
}

#[tokio::test]
async fn the_request_is_the_one_app_service_expects() {
    let server = StandIn::start(|number, _| granted(&format!("t{number}"), START + HOUR)).await;
    let named = Time::new().source(&server.url, Some("client id"));
    let token = named.token(SCOPE).await.unwrap();
    assert_eq!((text(&token), token.expires_at.as_second()), ("t0", START + HOUR));
    Time::new()
        .source(&server.url, None)
        .token("https://ossrdbms-aad.database.windows.net/.default")
        .await
        .unwrap();

    let seen = server.seen();
    assert_eq!(
        seen[0].uri,
        "/msi/token?resource=https%3A%2F%2Fstorage.azure.com&api-version=2019-08-01&client_id=client+id"
    );
    assert_eq!(
        seen[1].uri,
        "/msi/token?resource=https%3A%2F%2Fossrdbms-aad.database.windows.net&api-version=2019-08-01"
    );
    for Seen { method, headers, .. } in &seen {
        assert_eq!(
            (method, headers["x-identity-header"].to_str().unwrap()),
            (&http::Method::GET, "the-header")
        );
    }
}

#[tokio::test]
async fn a_token_serves_until_two_minutes_before_its_end() {
    let server =
        StandIn::start(|number, _| granted(&format!("t{number}"), START + HOUR * (number as i64 + 1))).await;
    let time = Time::new();
    let source = time.source(&server.url, None);
    for moment in [0, 1, HOUR - 121] {
        time.set(START + moment);
        assert_eq!(text(&source.token(SCOPE).await.unwrap()), "t0", "after {moment} s");
    }
    time.set(START + HOUR - 120);
    assert_eq!(text(&source.token(SCOPE).await.unwrap()), "t1");
    assert_eq!(text(&source.clone().token(SCOPE).await.unwrap()), "t1");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn scopes_have_their_own_tokens() {
    let server = StandIn::start(|number, _| granted(&format!("t{number}"), START + HOUR)).await;
    let source = Time::new().source(&server.url, None);
    assert_eq!(text(&source.token(SCOPE).await.unwrap()), "t0");
    assert_eq!(text(&source.token("https://other/.default").await.unwrap()), "t1");
    assert_eq!(text(&source.token(SCOPE).await.unwrap()), "t0");
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_request() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let reply = move |number, _: &Seen| {
        Reply::When(Arc::clone(&gate), answer(200, body(&format!("t{number}"), START + HOUR)))
    };
    let server = StandIn::start(reply).await;
    let source = Time::new().source(&server.url, None);
    let callers = join_all((0..100).map(|_| source.token(SCOPE)));
    let opening = async {
        server.reached(1).await;
        permits.add_permits(100);
    };
    let (tokens, ()) = join(callers, opening).await;
    assert_eq!(tokens.len(), 100);
    assert!(tokens.iter().all(|token| text(token.as_ref().unwrap()) == "t0"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn many_who_wait_for_a_failure_share_it_and_the_next_asks_anew() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let server = StandIn::start(move |number, _| match number {
        0 => Reply::When(Arc::clone(&gate), answer(500, "")),
        _ => granted("good", START + HOUR),
    })
    .await;
    let source = Time::new().source(&server.url, None);
    let callers = join_all((0..20).map(|_| source.token(SCOPE)));
    let opening = async {
        server.reached(1).await;
        permits.add_permits(1);
    };
    let (tokens, ()) = join(callers, opening).await;
    assert!(tokens.iter().all(|token| matches!(token, Err(TokenError::Refused { status: 500, .. }))));
    assert_eq!(server.seen().len(), 1);
    assert_eq!(text(&source.token(SCOPE).await.unwrap()), "good", "the failure was kept");
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_strand_the_others() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let server =
        StandIn::start(move |_, _| Reply::When(Arc::clone(&gate), answer(200, body("t", START + HOUR))))
            .await;
    let source = Time::new().source(&server.url, None);
    let opening = async {
        server.reached(1).await;
        permits.add_permits(1);
    };
    // The first to ask, who started the request, gives up while it is under way.
    let leaving = async {
        tokio::select! {
            token = source.token(SCOPE) => panic!("the gate is closed, yet {token:?}"),
            () = server.reached(1) => {}
        }
    };
    let ((), (token, ())) = join(leaving, join(source.token(SCOPE), opening)).await;
    assert_eq!(text(&token.unwrap()), "t");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn after_all_have_left_the_next_starts_over() {
    let server = StandIn::start(|number, _| match number {
        0 => Reply::Stall,
        _ => granted("t", START + HOUR),
    })
    .await;
    let source = Time::new().source(&server.url, None);
    tokio::select! {
        token = source.token(SCOPE) => panic!("the server stalls, yet {token:?}"),
        () = server.reached(1) => {}
    }
    assert_eq!(text(&source.token(SCOPE).await.unwrap()), "t");
}

#[tokio::test]
async fn a_slow_endpoint_is_given_up_after_the_timeout() {
    let server = StandIn::start(|_, _| Reply::Stall).await;
    let limit = Duration::from_millis(100);
    let source = Time::new().source(&server.url, None).with_timeout(limit);
    let error = source.token(SCOPE).await.unwrap_err();
    assert_eq!(error, TokenError::Timeout { after: limit });
    assert!(error.to_string().contains("100ms"), "{error}");
}

#[tokio::test]
async fn a_token_that_still_holds_outlives_the_endpoint() {
    let server = StandIn::start(|number, _| match number {
        0 => granted("old", START + HOUR),
        1 | 2 => Reply::status(500, ""),
        3 => Reply::Stall,
        _ => granted("new", START + 3 * HOUR),
    })
    .await;
    let time = Time::new();
    let source = time.source(&server.url, None).with_timeout(Duration::from_millis(100));
    let token = async || source.token(SCOPE).await.map(|token| text(&token).to_owned());
    assert_eq!(token().await.unwrap(), "old");
    time.set(START + HOUR - 100);
    assert_eq!(token().await.unwrap(), "old");
    assert_eq!(token().await.unwrap(), "old");
    assert_eq!(server.seen().len(), 2, "a failed refresh is not repeated by the very next call");
    time.set(START + HOUR - 80);
    assert_eq!(token().await.unwrap(), "old");
    time.set(START + HOUR - 60);
    assert_eq!(token().await.unwrap(), "old", "a stalled refresh is not noticed either");
    assert_eq!(server.seen().len(), 4);
    time.set(START + HOUR - 40);
    assert_eq!(token().await.unwrap(), "new");
}

#[tokio::test]
async fn only_one_waits_for_an_early_refresh_and_its_failure_is_logged_once() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let server = StandIn::start(move |number, _| match number {
        0 => granted("the-token", START + HOUR),
        _ => Reply::When(Arc::clone(&gate), answer(500, "")),
    })
    .await;
    let time = Time::new();
    let source = time.source(&server.url, None);
    source.token(SCOPE).await.unwrap();
    time.set(START + HOUR - 100);
    let logged = Logged::start();
    let opening = async {
        server.reached(2).await;
        let others = join_all((0..20).map(|_| source.token(SCOPE))).await;
        assert!(others.iter().all(|token| text(token.as_ref().unwrap()) == "the-token"));
        permits.add_permits(1);
    };
    let (token, ()) = join(source.token(SCOPE), opening).await;
    assert_eq!(text(&token.unwrap()), "the-token");
    assert_eq!(server.seen().len(), 2);
    let shown = logged.finish();
    assert_eq!(shown.matches("could not be replaced").count(), 1, "{shown}");
    assert!(shown.contains("error.code=\"token_refused\"") && !shown.contains("the-token"), "{shown}");
}

#[tokio::test]
async fn an_expired_token_is_never_used() {
    let server = StandIn::start(|number, _| match number {
        0 => granted("old", START + HOUR),
        _ => Reply::status(500, ""),
    })
    .await;
    let time = Time::new();
    let source = time.source(&server.url, None);
    source.token(SCOPE).await.unwrap();
    time.set(START + HOUR);
    let error = source.token(SCOPE).await.unwrap_err();
    assert!(matches!(error, TokenError::Refused { status: 500, .. }), "{error:?}");

    let server = StandIn::start(|_, _| granted("stale", START - 1)).await;
    let error = Time::new().source(&server.url, None).token(SCOPE).await.unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
}

#[tokio::test]
async fn failures_say_what_to_do_and_hold_no_secret() {
    let shown = |error: &TokenError| format!("{error} {error:?}");
    for (status, client_id, advice) in [
        (400, Some("the-client"), "AZURE_CLIENT_ID names is assigned"),
        (400, None, "set AZURE_CLIENT_ID"),
        (403, None, "IDENTITY_HEADER"),
        (503, None, "asked again"),
    ] {
        let server =
            StandIn::start(move |_, seen| Reply::status(status, format!("the-header {}", seen.uri))).await;
        let error = Time::new().source(&server.url, client_id).token(SCOPE).await.unwrap_err();
        assert_eq!(error.code(), "token_refused");
        assert!(error.to_string().contains(advice), "{error}");
        assert!(!shown(&error).contains("the-header"), "{error:?}");
    }
    for answered in [
        "",
        "not json secret",
        "{\"access_token\":\"secret\"}",
        "{\"access_token\":\"secret\",\"expires_on\":\"soon\"}",
    ] {
        let server = StandIn::start(move |_, _| Reply::status(200, answered)).await;
        let error = Time::new().source(&server.url, None).token(SCOPE).await.unwrap_err();
        assert_eq!(error.code(), "token_malformed", "{answered}");
        assert!(!shown(&error).contains("secret"), "{error:?}");
    }
    let error = Time::new().source(&nowhere().await, None).token(SCOPE).await.unwrap_err();
    assert_eq!(error.code(), "token_unreachable");
    assert!(error.to_string().contains("AZURE_CREDENTIAL=developer") && !shown(&error).contains("127.0.0.1"));
}

#[tokio::test]
async fn expiry_may_be_a_number_and_debug_output_hides_the_token() {
    let server = StandIn::start(|_, _| {
        Reply::status(200, format!("{{\"access_token\":\"the-token\",\"expires_on\":{}}}", START + HOUR))
    })
    .await;
    let source = Time::new().source(&server.url, None);
    let token = source.token(SCOPE).await.unwrap();
    assert_eq!(token.expires_at.as_second(), START + HOUR);
    let shown = format!("{token:?} {source:?} {:?}", source.credential());
    assert!(!shown.contains("the-token") && !shown.contains("the-header"), "{shown}");
}

#[tokio::test]
async fn storage_without_a_token_says_so_and_sends_nothing() {
    let identity_endpoint = StandIn::start(|_, _| Reply::status(400, "")).await;
    let account = StandIn::start(|_, _| Reply::Stall).await;
    let tokens = TokenSource::new(identity(&identity_endpoint.url, Some("the-client")));
    let secure = account.url.as_str().replace("http://", "https://");
    let settings = StorageSettings::from_service_uris(&secure, &secure, tokens.clone()).unwrap();
    let error = Storage::new(settings).unwrap().queue("events").put("x", Duration::ZERO).await.unwrap_err();
    let StorageError::NoToken { reason: source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.code(), "token_refused");
    assert!(error.is_outage());
    assert!(error.to_string().contains("AZURE_CLIENT_ID"), "{error}");
    assert_eq!(identity_endpoint.seen().len(), 1);
    assert_eq!(account.seen().len(), 0);
}

#[tokio::test]
async fn the_sdk_gets_our_cached_token() {
    let server = StandIn::start(|number, _| granted(&format!("t{number}"), START + HOUR)).await;
    let source = Time::new().source(&server.url, None);
    let credential = source.credential();
    for _ in 0..3 {
        let token = credential.get_token(&[SCOPE], None).await.unwrap();
        assert_eq!((token.token.secret(), token.expires_on.unix_timestamp()), ("t0", START + HOUR));
    }
    source.token(SCOPE).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}
