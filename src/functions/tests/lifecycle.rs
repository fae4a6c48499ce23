//! From the first ping to the last answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use super::harness::{options, read_answer, serve, serve_with};
use crate::functions::{App, HttpResponse, Outcome, ServeError, bind};

#[tokio::test]
async fn a_ping_is_answered_in_under_a_millisecond() {
    let running = serve(App::new());
    let mut stream = running.connect().await;
    let mut buffer = [0; 512];
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let began = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.expect("sent");
        let read = stream.read(&mut buffer).await.expect("answered");
        best = best.min(began.elapsed());
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "on one kept connection");
    }
    // The best of many, so that a busy machine does not fail what is being measured.
    assert!(best < Duration::from_millis(1), "{best:?}");
}

#[tokio::test]
async fn only_loopback_ipv4_is_listened_on_and_the_port_can_be_had_again() {
    let running = serve(App::new());
    assert_eq!(running.address.ip(), std::net::Ipv4Addr::LOCALHOST);
    let port = running.address.port();
    let error = bind(port).expect_err("one listener a port");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");

    // A connection that the server closed first leaves the port in TIME_WAIT.
    let mut running = running;
    assert_eq!(running.get("/").await.status, 200);
    running.stop();
    running.ended().await.expect("stopped");
    let again = bind(port).expect("the same port at once");
    assert_eq!(again.local_addr().expect("bound").port(), port);
}

#[tokio::test]
async fn stopping_lets_what_runs_finish_and_takes_nothing_new() {
    let (began, mut begins) = mpsc::unbounded_channel();
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let app = App::new().http("f", "f", &[Method::GET], move |_, _| {
        let held = Arc::clone(&held);
        began.send(()).expect("watched");
        async move {
            held.notified().await;
            HttpResponse::text(StatusCode::OK, "finished")
        }
    });
    let mut running = serve(app);
    let address = running.address;
    let mut busy = running.connect().await;
    let mut idle = running.connect().await;
    busy.write_all(b"GET /api/f HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    begins.recv().await.expect("running");
    running.stop();
    let ping = read_answer(&mut idle).await;
    assert_eq!(ping.status, 200, "an idle connection is closed, after its answer");
    assert!(TcpStream::connect(address).await.is_err(), "nothing new is taken");
    release.notify_one();
    let answer = read_answer(&mut busy).await;
    assert_eq!((answer.status, answer.text()), (200, "finished"));
    running.ended().await.expect("stopped");
}

#[tokio::test]
async fn a_drain_ends() {
    let (began, mut begins) = mpsc::unbounded_channel();
    let app = App::new().http("f", "f", &[], move |_, _| {
        began.send(()).expect("watched");
        std::future::pending()
    });
    let mut options = options();
    options.drain = Duration::from_millis(50);
    let mut running = serve_with(app, options);
    let mut stream = running.connect().await;
    stream.write_all(b"GET /api/f HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    begins.recv().await.expect("running");
    running.stop();
    running.ended().await.expect("stopped all the same");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok();
    assert_eq!(rest, b"", "cut, not answered");
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let mut options = options();
    options.head_timeout = Duration::from_millis(50);
    let running = serve_with(App::new(), options);
    let mut stream = running.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.expect("sent");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the server closes");
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let mut options = options();
    options.connection_limit = 1;
    let running = serve_with(App::new(), options);
    let mut first = running.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut buffer = [0; 256];
    assert!(first.read(&mut buffer).await.expect("answered") > 0);
    let mut second = running.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("sent");
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut buffer)).await;
    assert!(early.is_err(), "the first connection is still open");
    drop(first);
    assert_eq!(read_answer(&mut second).await.status, 200);
}

#[tokio::test]
async fn mistakes_in_registering_keep_an_app_from_serving() {
    let app = App::new()
        .timer("twice", "* * * * * *", async |_, _| Outcome::Done)
        .timer("Twice", "* * * * * *", async |_, _| Outcome::Done)
        .connection("Elsewhere");
    let error = app.serve(bind(0).expect("a port"), options()).await.expect_err("mistakes");
    let ServeError::Registration(error) = error else { panic!("{error}") };
    assert_eq!(error.differences.len(), 2, "{error}");
    let mut options = options();
    options.buffer_limit = 100;
    let error = App::new().serve(bind(0).expect("a port"), options).await.expect_err("too small");
    assert!(error.to_string().contains("8192"), "{error}");
}
