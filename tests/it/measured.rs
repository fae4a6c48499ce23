//! Figures: printed as they are, and held against bounds. The issue's own (first answer within 20 ms of `exec`, under
//! 20 MiB idle) are for the release build: `scripts/measure` makes one and runs these tests on it. On a debug build the
//! bounds are wider, and of memory only what does not depend on the build is held.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    Consumer, FunctionApp, Port, Surroundings, TestDatabase, TestStorage, eventually, handlers_program,
    is_release_build, report, repository,
};

/// From before `exec` until the last byte of the answer to `GET /`.
fn first_answer(port: u16, start: Instant) -> Duration {
    loop {
        assert!(start.elapsed() < Duration::from_secs(20), "no answer");
        let Ok(mut connection) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        if connection.write_all(request).is_ok() && connection.read_to_end(&mut answer).is_ok() {
            assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
            return start.elapsed();
        }
    }
}

/// What the kernel says a process holds, in KiB.
struct Memory {
    resident: u64,
    /// Of it, what is no file's: heap and stacks. Hardly differs between builds, as the pages of the program do.
    anonymous: u64,
}

impl Memory {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let kib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("its memory");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
        };
        Self { resident: kib("VmRSS:"), anonymous: kib("RssAnon:") }
    }

    /// The issue's bound on the release build. A debug build has three times the program, so of it the rest is held to
    /// what the release build leaves it (20 MiB less 11 MiB of program and libraries) and 2.5 MiB for relocations: `.got`
    /// and `.data.rel.ro` of the debug build are 2.1 MiB since it links what answers events.
    fn is_small(&self) -> bool {
        if is_release_build() { self.resident < 20 * 1024 } else { self.anonymous < 11 * 1024 + 512 }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let build = if is_release_build() { "release" } else { "debug" };
        write!(f, "{} KiB resident, {} KiB of it anonymous ({build} build)", self.resident, self.anonymous)
    }
}

/// From `exec` to the first answer; a debug build gets a second.
fn longest_start() -> Duration {
    if is_release_build() { Duration::from_millis(20) } else { Duration::from_secs(1) }
}

#[tokio::test]
async fn the_first_request_is_answered_at_once_and_a_new_handler_is_small() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).start_without_waiting();
    let port = Port::claim(&Surroundings::read());
    let mut times = Vec::new();
    let mut memory = None;
    for _ in 0..5 {
        let mut command = Command::new(handlers_program());
        command.env_clear().envs(app.settings()).current_dir(app.root());
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", port.number().to_string());
        let start = Instant::now();
        let mut child = command.stdout(Stdio::null()).spawn().expect("function-handlers");
        times.push(first_answer(port.number(), start));
        memory = Some(Memory::of(child.id()));
        child.kill().and_then(|()| child.wait()).expect("its end");
    }
    times.sort();
    let (best, median) = (times[0], times[times.len() / 2]);
    let memory = memory.expect("measured");
    report("start", &format!("first answer after exec: best {best:.1?}, median {median:.1?}; then {memory}"));
    // The best: what the others lack, the machine did meanwhile.
    assert!(best < longest_start(), "{best:?}");
    assert!(memory.is_small(), "{memory}");
}

/// How often a function ran, by the handler's own metrics.
async fn runs(app: &FunctionApp, function: &str) -> u64 {
    let metrics = app.get("/api/health/metrics").await.text().await.expect("text");
    let line = metrics.lines().find(|line| {
        line.starts_with("colloquy_invocations") && line.contains(&format!("function=\"{function}\""))
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map_or(0, |count| count as u64)
}

/// Idle is not only new: after the timers have run, after deliveries, and after a batch, memory comes back.
#[tokio::test]
async fn an_idle_handler_is_small_whatever_it_did_before() {
    const STILL: Duration = Duration::from_secs(60);
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).consumer(&consumer).hurried().start().await;
    let pid = app.handler_pid().await;

    eventually("timers to have run", STILL, async || runs(&app, "maintain").await >= 12).await;
    let memory = Memory::of(pid);
    println!("idle after 12 ticks of maintain: {memory}");
    assert!(memory.is_small(), "after timers: {memory}");

    for n in 0..100 {
        let body = format!(r#"{{"id":"evt_{n}","type":"invoice.paid","data":"{}"}}"#, "x".repeat(10_000));
        assert_eq!(app.deliver_stripe(&body).await.status(), 200);
    }
    eventually("100 callbacks", STILL, async || consumer.accepted_by_id().len() == 100).await;
    idle_again("100 deliveries with their callbacks", pid).await;

    let event = std::fs::read_to_string(repository().join("tests/fixtures/events/event-grid.json")).unwrap();
    let [event]: [serde_json::Value; 1] = serde_json::from_str(&event).expect("one event");
    let batch: Vec<_> = (0..3_000)
        .map(|n| {
            let mut event = event.clone();
            event["id"] = format!("batch-{n}").into();
            // Of a type without work behind it: memory is looked at when all is done.
            event["eventType"] = "Contoso.Nothing".into();
            event
        })
        .collect();
    let body = serde_json::to_string(&batch).expect("JSON");
    let secret = app.setting("WEBHOOK_SECRET_EVENT_GRID").to_owned();
    let answer = app.deliver("event-grid", &[("x-webhook-secret", &secret)], body).await;
    assert_eq!(answer.status(), 200);
    eventually("3,000 events", STILL, async || {
        database.count("SELECT count(*) FROM events WHERE source = 'event-grid'").await == 3_000
    })
    .await;
    idle_again("a batch of 3,000 events", pid).await;
    assert_eq!(app.handler_pid().await, pid, "it was the same process all along");
}

/// Memory goes back within seconds of the work, while the timers tick on.
async fn idle_again(what: &str, pid: u32) {
    let (peak, start) = (Memory::of(pid), Instant::now());
    if is_release_build() {
        // Where it is the figure that counts, it is taken after free pages went back.
        tokio::time::sleep(Duration::from_secs(12)).await;
    }
    let mut memory = None;
    while start.elapsed() < Duration::from_secs(30) && !memory.as_ref().is_some_and(Memory::is_small) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        memory = Some(Memory::of(pid));
    }
    let memory = memory.expect("measured");
    println!("at the end of {what}: {peak}");
    println!("idle {:.1?} after it: {memory}", start.elapsed());
    assert!(memory.is_small(), "after {what}: {memory}");
}

#[tokio::test]
async fn a_delivery_is_answered_without_delay() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let handler = FunctionApp::of(&database, &storage).start_handler().await;
    let mut times = Vec::new();
    for n in 0..50 {
        let body = format!(r#"{{"id":"evt_{n}","type":"a"}}"#);
        let start = Instant::now();
        assert_eq!(handler.deliver_stripe(&body).await.status(), 200);
        times.push(start.elapsed());
    }
    times.sort();
    report(
        "delivery",
        &format!(
            "a delivery, signed and queued (debug build): median {:.1?}, slowest {:.1?}",
            times[25], times[49]
        ),
    );
    assert!(times[25] < Duration::from_secs(1), "{:?}", times[25]);
}
