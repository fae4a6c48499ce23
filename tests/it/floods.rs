//! Strangers who send much, slowly, or never to the end, and callers whose own request id must be in every answer.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{FunctionApp, FunctionAppBuilder, Handler, SOON, TestDatabase, TestStorage, eventually};

const MIB: usize = 1024 * 1024;
const CONFIG: &str = "
    [sources.stripe]
    kind = \"stripe\"
    [sources.github]
    kind = \"github\"
    max_body_bytes = 4194304
";

fn hurried(database: &TestDatabase, storage: &TestStorage, timeout: &str) -> FunctionAppBuilder {
    FunctionApp::of(database, storage).config(CONFIG).set("INGRESS_TIMEOUT", timeout)
}

/// Begins a delivery to `github` of so many bytes; `proof` is a header line or nothing.
async fn begin(handler: &Handler, proof: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", handler.port())).await.expect("a connection");
    let head = format!(
        "POST /api/webhooks/github HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\nx-request-id: of-a-slow-caller\r\n{proof}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream
}

fn forged() -> String {
    format!("x-hub-signature-256: sha256={}\r\n", "0".repeat(64))
}

async fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // Reset, where the rest of a body was not wanted: what was answered before counts.
    tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("an answer").ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The most that a process ever held, in MiB, without what is a file's.
fn peak(handler: &mut Handler) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", handler.process().pid())).expect("a process");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect("its memory");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    (kib("VmHWM:") - kib("RssFile:")) / 1024
}

#[tokio::test]
async fn bodies_that_nobody_signed_take_no_more_than_their_room_and_leave_some_to_others() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let builder = hurried(&database, &storage, "5s").set("INGRESS_MAX_BYTES", (8 * MIB).to_string());
    let mut handler = builder.start_handler().await;
    let before = peak(&mut handler);
    let length = 4 * MIB;
    let floods = (0..40).map(|_| async {
        let mut stream = begin(&handler, &forged(), length).await;
        // All but the end, so that it is held. Who is refused on the way may find the connection closed.
        stream.write_all(&vec![b' '; length - 1]).await.ok();
        stream
    });
    let floods = futures_util::future::join_all(floods).await;
    let genuine = handler.deliver_stripe(r#"{"id":"evt_meanwhile","type":"invoice.paid"}"#).await;
    assert_eq!(genuine.status(), 200, "a small one is taken meanwhile");
    let answers = futures_util::future::join_all(floods.into_iter().map(answer)).await;
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    }
    let of =
        |slug: &str| answers.iter().filter(|answer| answer.contains(&format!("/problems/{slug}\""))).count();
    // There is room for one of them at a time; on a slow machine another gets it once the first was given up.
    let (held, refused) = (of("took-too-long"), of("overloaded"));
    assert!((1..=3).contains(&held) && held + refused == 40, "{answers:?}");
    let grown = peak(&mut handler) - before;
    assert!(grown < 40, "{grown} MiB for 160 MiB that came");
    eventually("room again", SOON, async || {
        let body = "x".repeat(MIB);
        let answer = handler.deliver("github", &[("x-hub-signature-256", "sha256=0")], body).await;
        answer.status() == 401
    })
    .await;
}

#[tokio::test]
async fn a_body_that_stops_is_not_waited_for_and_one_without_proof_is_not_read() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let handler = hurried(&database, &storage, "1s").start_handler().await;
    let began = Instant::now();
    let stopped = async {
        let mut stream = begin(&handler, &forged(), MIB).await;
        stream.write_all(b"{\"zen\": 10").await.expect("ten bytes");
        let answer = answer(stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        for part in ["/problems/took-too-long", "retry-after: ", "x-request-id: of-a-slow-caller"] {
            assert!(answer.contains(part), "{part} is not in {answer}");
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    };
    let unsigned = async {
        // Long before its body could have come: it never does.
        let answer = answer(begin(&handler, "", MIB).await).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("X-Hub-Signature-256"), "{answer}");
    };
    tokio::join!(stopped, unsigned);
    let log = handler.log();
    let line = log.iter().find(|line| line.contains(r#""code":"body_too_slow""#)).expect("it is logged");
    assert!(line.contains("of-a-slow-caller"), "{line}");
}

#[tokio::test]
async fn a_request_that_is_cut_at_the_deadline_is_counted_and_keeps_its_callers_id() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let builder =
        hurried(&database, &storage, "60s").set("AzureFunctionsJobHost__functionTimeout", "00:00:02");
    let handler = builder.start_handler().await;
    let answer = answer(begin(&handler, &forged(), MIB).await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("/problems/took-too-long"), "{answer}");
    assert!(answer.contains("x-request-id: of-a-slow-caller"), "{answer}");
    assert!(answer.contains(r#""request_id":"of-a-slow-caller""#), "{answer}");
    let overran = |line: &String| {
        line.contains(r#""code":"handler.overran""#) && line.contains(r#""request_id":"of-a-slow-caller""#)
    };
    eventually("its log line", SOON, async || handler.log().iter().any(overran)).await;
    let metrics = handler.get("/api/health/metrics").await.text().await.expect("text");
    let counted = metrics.lines().any(|line| {
        line.starts_with("colloquy_webhook_requests")
            && line.contains(r#"source="github""#)
            && line.contains(r#"outcome="cut""#)
    });
    assert!(counted, "{metrics}");
}
