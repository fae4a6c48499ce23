//! HTTP functions, as a proxying and as a forwarding host calls them.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::harness::{Running, options, read_answer, serve, serve_with};
use crate::functions::{
    App, BodyError, HttpRequest, HttpResponse, Invocation, Outcome, ProblemType, QueueMessage,
};

const PROXIED: &str =
    "User-Agent: Stripe/1.0\r\nX-Azure-Functions-InvocationId: 8d1f\r\nX-Forwarded-For: 203.0.113.9\r\n";

/// Answers with what it saw.
async fn echo(mut request: HttpRequest, invocation: Invocation) -> HttpResponse {
    let body = match request.bytes(1000).await {
        Ok(body) => body,
        Err(error) => {
            let problem = ProblemType::new("test.body", error.status(), "No body");
            return HttpResponse::refusal(&problem, Some(&error.to_string()));
        }
    };
    HttpResponse::json(
        StatusCode::CREATED,
        &serde_json::json!({
            "function": &*invocation.function,
            "id": invocation.id,
            "method": request.method.as_str(),
            "path": request.path,
            "query": request.query,
            "params": request.params,
            "length": request.content_length(),
            "chunked": request.is_chunked(),
            "body": body.to_vec(),
        }),
    )
}

fn app() -> Running {
    serve(
        App::new()
            .http("receive-webhook", "webhooks/{source}/{event?}", &[Method::POST, Method::OPTIONS], echo)
            .http("health", "health/{check?}", &[Method::GET], echo)
            .http("any", "any/{*rest}", &[], echo),
    )
}

#[tokio::test]
async fn a_proxied_request_arrives_as_it_was_sent() {
    let body = [0, 0xFF, b'{', b'\n'];
    let head = format!("POST /api/Webhooks/Stripe/invoice%20paid?b=2&a=%41&b=1 HTTP/1.1\r\n{PROXIED}");
    let answer = app().send(&head, &body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("x-request-id"), Some("8d1f"));
    assert_eq!(
        answer.json(),
        serde_json::json!({
            "function": "receive-webhook",
            "id": "8d1f",
            "method": "POST",
            "path": "/api/Webhooks/Stripe/invoice%20paid",
            "query": "b=2&a=%41&b=1",
            "params": {"source": "Stripe", "event": "invoice paid"},
            "length": 4,
            "chunked": false,
            "body": [0, 255, 123, 10],
        })
    );
}

#[tokio::test]
async fn a_forwarded_request_is_the_same_and_its_last_invocation_id_is_the_hosts() {
    let head = "POST /api/webhooks/stripe HTTP/1.1\r\n\
         User-Agent: Stripe/1.0 Azure-Functions-Host/4.1037.0\r\n\
         X-Azure-Functions-InvocationId: forged\r\n\
         X-Azure-Functions-InvocationId: also-forged, 8d1f\r\n";
    let answer = app().send(head, b"hi").await;
    assert_eq!(answer.status, 201);
    let saw = answer.json();
    assert_eq!((&saw["id"], &saw["params"]), (&"8d1f".into(), &serde_json::json!({"source": "stripe"})));
    assert_eq!(saw["body"], serde_json::json!(b"hi"));
}

#[tokio::test]
async fn routes_choose_by_path_then_method() {
    let running = app();
    for path in ["/api/health", "/api/health/", "/API/HEALTH/live"] {
        let answer = running.get(path).await;
        assert_eq!((answer.status, answer.json()["function"].as_str()), (201, Some("health")), "{path}");
    }
    let all = running.send("PATCH /api/any/a/b%2Fc HTTP/1.1\r\n", b"").await;
    assert_eq!(all.json()["params"], serde_json::json!({"rest": "a/b/c"}));

    let answer = running.get("/api/webhooks/stripe").await;
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    for path in [
        "/api",
        "/api/webhooks",
        "/health",
        "/nothing",
        "/api/webhooks/a/b/c",
        "/api//health",
        "/api/health/..",
    ] {
        let answer = running.get(path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"), "{path}");
        assert!(answer.header("x-request-id").is_some_and(|id| id.len() == 36), "{answer:?}");
    }
    let answer = running.get("/api/health/a%00b").await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed-path"));
    assert_eq!(running.send("OPTIONS * HTTP/1.1\r\n", b"").await.status, 404);
    assert_eq!(running.send("GET http://elsewhere/api/health HTTP/1.1\r\n", b"").await.status, 201);
}

#[tokio::test]
async fn two_functions_may_share_a_route_and_the_exact_one_wins() {
    let running = serve(
        App::new()
            .http("rest", "{*rest}", &[], echo)
            .http("item", "items/{id}", &[Method::GET], echo)
            .http("save", "items/{id}", &[Method::PUT], echo)
            .http("newest", "items/newest", &[Method::GET], echo),
    );
    for (request, function) in [
        ("GET /api/items/7", "item"),
        ("PUT /api/items/7", "save"),
        ("GET /api/items/newest", "newest"),
        ("PUT /api/items/newest", "save"),
        ("DELETE /api/items/7", "rest"),
        ("GET /api", "rest"),
    ] {
        let answer = running.send(&format!("{request} HTTP/1.1\r\n"), b"").await;
        assert_eq!(answer.json()["function"], function, "{request}");
    }
}

#[tokio::test]
async fn without_a_prefix_the_root_is_a_ping_or_a_users() {
    let mut options = options();
    options.route_prefix = String::new();
    let work = async |_: QueueMessage<String>, _| Outcome::Done;
    let running = serve_with(App::new().http("site", "{*rest}", &[], echo).queue("work", "q", work), options);
    let ping = running.get("/").await;
    assert_eq!((ping.status, ping.body.len()), (200, 0), "no invocation id: the host asks whether we live");
    let user = running.send(&format!("GET / HTTP/1.1\r\n{PROXIED}"), b"").await;
    assert_eq!((user.status, user.json()["function"].as_str()), (201, Some("site")));
    let user = running.send(&format!("POST /work HTTP/1.1\r\n{PROXIED}"), b"").await;
    assert_eq!(user.json()["function"], "site", "a user's path that is also a function's");
    running.envelope("work", br#"{"Data":{"m":"\"hi\""},"Metadata":{}}"#).await.done();
    let user = running.get("/about").await;
    assert_eq!(user.json()["params"], serde_json::json!({"rest": "about"}));
}

#[tokio::test]
async fn a_body_is_refused_one_byte_over_the_limit() {
    let running = app();
    let head = "POST /api/webhooks/stripe HTTP/1.1\r\n";
    let most = running.send(head, &[b'x'; 1000]).await;
    assert_eq!(most.json()["body"].as_array().map(Vec::len), Some(1000));
    let over = running.send(head, &[b'x'; 1001]).await;
    assert_eq!((over.status, over.problem().as_str()), (413, "test.body"));
    assert!(over.text().contains("longer than 1000 bytes"), "{over:?}");

    for (size, status) in [(1000, 201), (1001, 413)] {
        let mut stream = running.connect().await;
        let head = format!("{head}Host: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("head");
        for chunk in vec![b'x'; size].chunks(300) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.expect("size");
            stream.write_all(chunk).await.expect("chunk");
            stream.write_all(b"\r\n").await.expect("end of chunk");
        }
        stream.write_all(b"0\r\n\r\n").await.ok();
        let answer = read_answer(&mut stream).await;
        assert_eq!(answer.status, status, "{size} chunked bytes: {answer:?}");
        if status == 201 {
            assert_eq!(
                (&answer.json()["length"], &answer.json()["chunked"]),
                (&serde_json::Value::Null, &true.into())
            );
        }
    }
}

/// The client of the host sends a body to its end before it reads an answer, and reports a broken connection
/// instead.
#[tokio::test]
async fn a_refusal_is_answered_although_the_body_is_still_coming() {
    let running = app();
    let large = vec![b'x'; 20 * 1024 * 1024];
    for (path, status) in [("/api/webhooks/stripe", 413), ("/api/nowhere", 404), ("/api/health", 405)] {
        let mut stream = running.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            large.len()
        );
        stream.write_all(head.as_bytes()).await.expect("head");
        stream.write_all(&large).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(read_answer(&mut stream).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_a_stalled_body() {
    let mut options = options();
    options.discard_limit = Duration::from_millis(50);
    let running = serve_with(App::new(), options);
    let mut stream = running.connect().await;
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf")
        .await
        .expect("half sent");
    assert_eq!(read_answer(&mut stream).await.status, 404);
}

#[tokio::test]
async fn the_hosts_limit_is_below_every_other() {
    let mut options = options();
    options.request_body_limit = 10;
    let running = serve_with(App::new().http("f", "f", &[], echo), options);
    let answer = running.send("POST /api/f HTTP/1.1\r\n", b"12345678901").await;
    assert!(answer.text().contains("longer than 10 bytes"), "{answer:?}");
    assert_eq!(running.send("POST /api/f HTTP/1.1\r\n", b"1234567890").await.status, 201);
}

#[tokio::test]
async fn a_body_that_stops_half_way_never_reaches_the_handlers_end() {
    let (read, mut reads) = mpsc::unbounded_channel();
    let (gone, mut goes) = mpsc::channel::<()>(2);
    let app = App::new().http("f", "f", &[], move |mut request: HttpRequest, _| {
        let (read, leaving) = (read.clone(), Leaving(gone.clone()));
        async move {
            let body = request.bytes(100).await;
            read.send(body.is_ok()).expect("watched");
            drop(leaving);
            HttpResponse::new(StatusCode::OK)
        }
    });
    let running = serve(app);
    let mut stream = running.connect().await;
    stream
        .write_all(b"POST /api/f HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf")
        .await
        .expect("half sent");
    drop(stream);
    goes.recv().await.expect("the invocation ended");
    // Either the read failed or the whole invocation was dropped; in neither case was there a body.
    assert_ne!(reads.try_recv(), Ok(true));
    assert_eq!(running.send("POST /api/f HTTP/1.1\r\n", b"whole").await.status, 200);
    assert_eq!(reads.recv().await, Some(true));
}

#[tokio::test]
async fn a_panic_is_a_500_and_says_nothing() {
    let app = App::new()
        .http("built", "built", &[], |request: HttpRequest, _| {
            assert!(request.query.is_none(), "secret {:?}", request.query);
            async { HttpResponse::new(StatusCode::OK) }
        })
        .http("polled", "polled", &[], async |request: HttpRequest, _| -> HttpResponse {
            panic!("secret {:?}", request.query)
        });
    let running = serve(app);
    for path in ["/api/built?secret", "/api/polled?secret"] {
        let answer = running.get(path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (500, "internal"), "{path}");
        assert!(!answer.text().contains("secret"), "{answer:?}");
    }
    assert_eq!(running.get("/api/built").await.status, 200, "the process goes on");
}

#[tokio::test]
async fn a_slow_handler_is_a_503() {
    let (held, mut holds) = mpsc::channel::<()>(1);
    let app = App::new().http("slow", "slow", &[], move |_, _| {
        let held = held.clone();
        async move {
            pending::<()>().await;
            drop(held);
            HttpResponse::new(StatusCode::OK)
        }
    });
    let mut options = options();
    options.function_timeout = Some(Duration::from_millis(200));
    let running = serve_with(app, options);
    let answer = running.get("/api/slow").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "took-too-long"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(holds.try_recv().is_err());
}

#[tokio::test]
async fn whoever_answers_the_callers_own_request_id_is_in_it() {
    let app = App::new()
        .http("slow", "slow", &[], async |_: HttpRequest, _| -> HttpResponse { pending().await })
        .http("broken", "broken", &[Method::GET], async |_: HttpRequest, _| -> HttpResponse {
            panic!("broken")
        })
        .http("named", "named", &[], async |_: HttpRequest, invocation: Invocation| {
            HttpResponse::text(StatusCode::OK, invocation.request_id)
        });
    let mut options = options();
    options.function_timeout = Some(Duration::from_millis(200));
    let running = serve_with(app, options);
    let cases = [
        ("GET /api/slow", 503),
        ("GET /api/broken", 500),
        ("POST /api/broken", 405),
        ("GET /api/nothing", 404),
        ("GET /api/%00", 400),
        ("GET /api/named", 200),
    ];
    for (request, status) in cases {
        let head = |id: &str| format!("{request} HTTP/1.1\r\n{PROXIED}X-Request-Id: {id}\r\n");
        let answer = running.send(&head("a-callers-own-id"), b"").await;
        assert_eq!(
            (answer.status, answer.header("x-request-id")),
            (status, Some("a-callers-own-id")),
            "{request}"
        );
        if status >= 400 {
            answer.problem();
        }
        let unfit = running.send(&head("not fit for a log"), b"").await;
        assert_eq!(unfit.header("x-request-id"), Some("8d1f"), "{request}: the invocation's");
    }
}

#[tokio::test]
async fn a_body_is_read_until_a_deadline_and_as_far_as_there_is_room() {
    let app = App::new().http("f", "f", &[], async |mut request: HttpRequest, _| {
        let deadline = Instant::now() + Duration::from_millis(200);
        let mut room: usize = 100;
        let take = |more: usize| {
            let left = room.checked_sub(more);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let (status, text) = match request.bytes_within(1_000, deadline, take).await {
            Ok(body) => (StatusCode::OK, body.len().to_string()),
            Err(error @ (BodyError::TooSlow | BodyError::NoRoom)) => (error.status(), error.to_string()),
            Err(error) => (StatusCode::IM_A_TEAPOT, error.to_string()),
        };
        HttpResponse::text(status, text)
    });
    let running = serve(app);
    let head = "POST /api/f HTTP/1.1\r\n";
    assert_eq!(running.send(head, &[b'x'; 100]).await.text(), "100");
    let full = running.send(head, &[b'x'; 101]).await;
    assert_eq!((full.status, full.text()), (503, "there is no room for the body now"));
    let mut stream = running.connect().await;
    let began = Instant::now();
    stream
        .write_all(b"POST /api/f HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nten bytes.")
        .await
        .expect("sent");
    let slow = read_answer(&mut stream).await;
    assert_eq!((slow.status, slow.text()), (503, "the body was not complete in time"));
    assert!(began.elapsed() < Duration::from_secs(3), "nobody waits for the rest: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_caller_that_leaves_cuts_the_handler() {
    let (began, mut begins) = mpsc::unbounded_channel();
    let held = Arc::new(());
    let watched = Arc::downgrade(&held);
    let (gone, mut goes) = mpsc::channel::<()>(1);
    let app = App::new().http("f", "f", &[], move |_, _| {
        let (gone, held) = (gone.clone(), Arc::clone(&held));
        began.send(()).expect("watched");
        async move {
            let _both = (Leaving(gone), held);
            pending().await
        }
    });
    let running = serve(app);
    let mut stream = running.connect().await;
    stream.write_all(b"GET /api/f HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    begins.recv().await.expect("called");
    assert_eq!(watched.strong_count(), 2);
    drop(stream);
    goes.recv().await.expect("dropped");
}

struct Leaving(mpsc::Sender<()>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.try_send(()).ok();
    }
}

#[tokio::test]
async fn a_handlers_own_request_id_and_headers_stay() {
    let app = App::new().http("f", "f", &[], async |_: HttpRequest, _: Invocation| {
        HttpResponse::text(StatusCode::ACCEPTED, "ok")
            .header(http::HeaderName::from_static("x-request-id"), http::HeaderValue::from_static("mine"))
    });
    let answer = serve(app).send(&format!("GET /api/f HTTP/1.1\r\n{PROXIED}"), b"").await;
    assert_eq!((answer.status, answer.text()), (202, "ok"));
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
}
