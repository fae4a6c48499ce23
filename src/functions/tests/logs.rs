//! What is logged, and what never is.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::harness::{Ledger, serve};
use crate::functions::{App, HttpRequest, HttpResponse, Json, Outcome, QueueMessage, install_panic_hook};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("text")
    }

    /// The one line with this code.
    fn with_code(&self, code: &str) -> Value {
        let lines: Vec<Value> = self
            .text()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .filter(|line| line["fields"]["code"] == code)
            .collect();
        assert_eq!(lines.len(), 1, "{code} in\n{}", self.text());
        lines[0].clone()
    }
}

const TRACE_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Everything on this thread, the app's tasks included, since the runtime has no other.
#[tokio::test]
async fn a_line_has_a_code_and_its_invocation_and_no_payload() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::DEBUG).with_writer(lines.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let app = App::new()
        .settlement(Ledger::default())
        .queue("decode", "q", async |_: QueueMessage<Json<u32>>, _| Outcome::Done)
        .queue("later", "q", async |_: QueueMessage<String>, _| Outcome::retry("busy"))
        .http("hook", "hook", &[Method::POST], async |_: HttpRequest, _| -> HttpResponse {
            panic!("hunter2")
        });
    let running = serve(app);
    let body = br#"{"Data":{"message":"\"hunter2\""},"Metadata":{}}"#;
    for function in ["decode", "later"] {
        running.envelope(function, body).await;
    }
    let head = format!(
        "POST /api/hook?key=hunter2 HTTP/1.1\r\nX-Secret: hunter2\r\ntraceparent: {TRACE_PARENT}\r\n"
    );
    running.send(&head, b"hunter2").await;
    running.send("POST /later HTTP/1.1\r\n", body).await;

    let undecodable = lines.with_code("payload.json");
    assert_eq!(undecodable["level"], "ERROR");
    assert_eq!(undecodable["span"]["invocation_id"], "8d1f");
    assert_eq!(
        (&undecodable["span"]["function"], &undecodable["span"]["trigger"]),
        (&"decode".into(), &"queue".into())
    );
    assert_eq!(lines.with_code("message.retried")["fields"]["reason"], "busy");
    let panicked = lines.with_code("handler.panicked");
    assert_eq!(
        (&panicked["span"]["function"], &panicked["span"]["trigger"]),
        (&"hook".into(), &"http".into())
    );
    assert_eq!(panicked["span"]["trace_parent"], TRACE_PARENT);
    assert_eq!(lines.with_code("envelope.not-from-host")["level"], "WARN");
    assert!(!lines.text().contains("hunter2"), "{}", lines.text());
}

const CHILD: &str = "FUNCTIONS_TEST_PANICS";

/// The body of the process below: a hook is the whole process's. As an ordinary test it returns at once.
#[test]
fn panicking_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    install_panic_hook();
    let subscriber = tracing_subscriber::fmt().json().with_writer(io::stdout);
    tracing::subscriber::with_default(subscriber.finish(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let app = App::new()
                .http("f", "f", &[], async |_: HttpRequest, _| -> HttpResponse { panic!("hunter2") });
            assert_eq!(serve(app).get("/api/f").await.status, 500);
        });
        std::panic::catch_unwind(|| panic!("hunter2, outside")).expect_err("a panic");
    });
}

#[test]
fn the_hook_gives_a_panics_place_and_never_its_message() {
    let output = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "functions::tests::logs::panicking_child", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("ran");
    let out = String::from_utf8_lossy(&output.stdout);
    let all = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    for code in ["handler.panicked", "process.panicked"] {
        let line =
            out.lines().find(|line| line.contains(code)).unwrap_or_else(|| panic!("no {code} in {all}"));
        assert!(line.contains("functions/tests/logs.rs:"), "{line}");
    }
    assert!(!all.contains("hunter2"), "{all}");
}
