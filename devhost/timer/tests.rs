//! The timer against blobs in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

#[derive(Default)]
struct MemoryBlobs {
    blobs: Mutex<HashMap<String, Bytes>>,
    held: Mutex<Option<String>>,
    released: tokio::sync::Notify,
}

impl Blobs for MemoryBlobs {
    fn read<'a>(&'a self, name: &'a str) -> Task<'a, Option<Bytes>> {
        Box::pin(async move { Ok(self.blobs.lock().unwrap().get(name).cloned()) })
    }

    fn write<'a>(&'a self, name: &'a str, content: Bytes) -> Task<'a, ()> {
        self.blobs.lock().unwrap().insert(name.to_owned(), content);
        Box::pin(async { Ok(()) })
    }

    fn lease<'a>(&'a self, _: &'a str, _: Duration) -> Task<'a, Option<String>> {
        Box::pin(async {
            let mut held = self.held.lock().unwrap();
            Ok(held.is_none().then(|| held.insert("lease".to_owned()).clone()))
        })
    }

    fn renew<'a>(&'a self, _: &'a str, _: &'a str) -> Task<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn release<'a>(&'a self, _: &'a str, _: &'a str) -> Task<'a, ()> {
        *self.held.lock().unwrap() = None;
        self.released.notify_one();
        Box::pin(async { Ok(()) })
    }
}

/// Reports each envelope, and holds each invocation for a while.
struct Runner {
    seen: mpsc::UnboundedSender<Value>,
    takes: Duration,
}

impl RunTimer for Runner {
    fn run<'a>(&'a self, _: &'a Function, envelope: Vec<u8>, _: &'a str) -> Task<'a, ()> {
        Box::pin(async move {
            let timer = serde_json::from_slice::<Value>(&envelope).unwrap()["Data"]["timer"].take();
            self.seen.send(timer).unwrap();
            sleep(self.takes).await;
            Ok(())
        })
    }
}

struct Running {
    seen: mpsc::UnboundedReceiver<Value>,
    stop: CancellationToken,
}

impl Running {
    async fn next(&mut self) -> Value {
        tokio::time::timeout(Duration::from_secs(10), self.seen.recv())
            .await
            .expect("the timer did not fire")
            .unwrap()
    }
}

fn start(blobs: &Arc<MemoryBlobs>, schedule: &str, run_on_startup: bool, speed: f64) -> Running {
    let (sender, seen) = mpsc::unbounded_channel();
    let bindings = json!({"bindings": [{"type": "timerTrigger", "direction": "in", "name": "timer", "schedule": schedule}]});
    let listener = Listener {
        function: Arc::new(crate::functions::tests::function("maintain", bindings, &[]).unwrap()),
        schedule: Schedule::parse(schedule).unwrap(),
        run_on_startup,
        use_monitor: true,
        host_id: "host".to_owned(),
        lease: Duration::from_secs(15),
        speed,
        zone: TimeZone::UTC,
        blobs: Arc::clone(blobs) as Arc<dyn Blobs>,
        runner: Arc::new(Runner { seen: sender, takes: Duration::from_millis(20) }),
        tasks: TaskTracker::new(),
    };
    let stop = CancellationToken::new();
    listener.tasks.clone().spawn(listener.run(stop.clone()));
    Running { seen, stop }
}

const STATUS: &str = "timers/host/maintain/status";

#[tokio::test]
async fn it_fires_and_records_when() {
    let blobs = Arc::new(MemoryBlobs::default());
    let mut timer = start(&blobs, "* * * * * *", false, 50.0);
    let first = timer.next().await;
    assert_eq!(
        (&first["IsPastDue"], &first["ScheduleStatus"]["Last"]),
        (&json!(false), &json!("0001-01-01T00:00:00"))
    );
    let second = timer.next().await;
    assert_ne!(second["ScheduleStatus"]["Last"], first["ScheduleStatus"]["Last"]);
    let recorded = status::parse(&blobs.blobs.lock().unwrap()[STATUS]).unwrap();
    assert!(recorded.last.is_some());
    timer.stop.cancel();
}

#[tokio::test]
async fn what_was_missed_is_one_call_that_is_past_due() {
    let blobs = Arc::new(MemoryBlobs::default());
    let missed = r#"{"Last":"2026-01-01T00:00:00+00:00","Next":"2026-01-01T01:00:00+00:00","LastUpdated":"2026-01-01T00:00:00+00:00"}"#;
    blobs.blobs.lock().unwrap().insert(STATUS.to_owned(), missed.into());
    let mut timer = start(&blobs, "0 0 * * * *", true, 1.0);
    let late = timer.next().await;
    assert_eq!(late["IsPastDue"], true);
    assert_eq!(late["ScheduleStatus"]["Next"], "2026-01-01T01:00:00+00:00");
    timer.stop.cancel();
    assert!(timer.seen.recv().await.is_none(), "it ran once more");
}

#[tokio::test]
async fn run_on_startup_is_an_extra_call_that_is_not_past_due() {
    let mut timer = start(&Arc::new(MemoryBlobs::default()), "0 0 0 1 1 *", true, 1.0);
    assert_eq!(timer.next().await["IsPastDue"], false);
    timer.stop.cancel();
}

#[tokio::test]
async fn a_second_host_waits_for_the_lock_and_gets_it_at_the_end_of_the_first() {
    let blobs = Arc::new(MemoryBlobs::default());
    let mut first = start(&blobs, "* * * * * *", false, 50.0);
    first.next().await;
    let mut second = start(&blobs, "* * * * * *", false, 50.0);
    first.next().await;
    first.next().await;
    assert!(second.seen.try_recv().is_err(), "two hosts ran one timer");
    first.stop.cancel();
    blobs.released.notified().await;
    second.next().await;
    second.stop.cancel();
}
