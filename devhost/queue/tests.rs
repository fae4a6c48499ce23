//! The listener against a queue in memory.

use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;

#[derive(Default)]
struct MemoryQueue {
    name: String,
    ready: Mutex<Vec<Message>>,
    put: Mutex<Vec<String>>,
    deleted: Mutex<Vec<String>>,
    visibility: Mutex<Vec<Duration>>,
    changed: Notify,
}

impl MemoryQueue {
    fn new(name: &str, ready: Vec<Message>) -> Arc<Self> {
        Arc::new(MemoryQueue { name: name.to_owned(), ready: Mutex::new(ready), ..MemoryQueue::default() })
    }

    async fn until<T>(&self, check: impl Fn(&Self) -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if let Some(found) = check(self) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the listener did not act")
    }
}

impl Messages for MemoryQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn receive(&self, max: u8, _: Duration) -> Task<'_, Vec<Message>> {
        let mut ready = self.ready.lock().unwrap();
        let taken = ready.len().min(usize::from(max));
        let messages = ready.drain(..taken).collect();
        Box::pin(async move { Ok(messages) })
    }

    fn set_visibility<'a>(&'a self, message: &'a Message, after: Duration) -> Task<'a, String> {
        self.visibility.lock().unwrap().push(after);
        self.changed.notify_one();
        Box::pin(async move { Ok(format!("{}+", message.pop_receipt)) })
    }

    fn delete<'a>(&'a self, message: &'a Message) -> Task<'a, ()> {
        self.deleted.lock().unwrap().push(message.pop_receipt.clone());
        self.changed.notify_one();
        Box::pin(async { Ok(()) })
    }

    fn put<'a>(&'a self, raw: &'a str) -> Task<'a, ()> {
        self.put.lock().unwrap().push(raw.to_owned());
        self.changed.notify_one();
        Box::pin(async { Ok(()) })
    }
}

/// Answers after a while, and counts how many run at once.
struct Runner {
    success: bool,
    takes: Duration,
    /// One permit lets one run end.
    gate: Semaphore,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Runner {
    fn new(success: bool, takes: Duration) -> Arc<Self> {
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        Arc::new(Runner { success, takes, gate, now: AtomicUsize::new(0), most: AtomicUsize::new(0) })
    }
}

impl RunMessage for Runner {
    fn run<'a>(&'a self, _: &'a Function, _: Vec<u8>, _: &'a str) -> Task<'a, ()> {
        Box::pin(async move {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            sleep(self.takes).await;
            self.gate.acquire().await.unwrap().forget();
            self.now.fetch_sub(1, Ordering::SeqCst);
            if self.success { Ok(()) } else { Err(StorageFailure::Other("failed".to_owned())) }
        })
    }
}

fn message(raw: &str, dequeue_count: u32) -> Message {
    let at = Timestamp::UNIX_EPOCH;
    Message {
        id: "id".into(),
        pop_receipt: "pop".into(),
        dequeue_count,
        inserted_at: at,
        expires_at: None,
        next_visible_at: at,
        raw: raw.to_owned(),
    }
}

fn start(
    queue: &Arc<MemoryQueue>,
    poison: &Arc<MemoryQueue>,
    runner: &Arc<Runner>,
    lease: Duration,
) -> CancellationToken {
    let bindings = json!({"bindings": [{"type": "queueTrigger", "direction": "in", "name": "message", "queueName": "events"}]});
    let listener = Listener {
        function: Arc::new(crate::functions::tests::function("process-event", bindings, &[]).unwrap()),
        config: QueueConfig {
            batch_size: 2,
            new_batch_threshold: 1,
            max_dequeue_count: 3,
            visibility_timeout: Duration::from_secs(7),
            max_polling_interval: Duration::from_millis(100),
            encoding: MessageEncoding::Base64,
        },
        lease,
        speed: 100.0,
        queue: Arc::clone(queue) as Arc<dyn Messages>,
        poison: Some(Arc::clone(poison) as Arc<dyn Messages>),
        runner: Arc::clone(runner) as Arc<dyn RunMessage>,
        tasks: TaskTracker::new(),
    };
    let stop = CancellationToken::new();
    listener.tasks.clone().spawn(listener.run(stop.clone()));
    stop
}

const LEASE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn success_deletes_and_concurrency_is_batch_plus_threshold() {
    let queue = MemoryQueue::new("events", (0..20).map(|_| message("aGk=", 1)).collect());
    let poison = MemoryQueue::new("events-poison", vec![]);
    let runner = Arc::new(Runner {
        success: true,
        takes: Duration::ZERO,
        gate: Semaphore::new(0),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let running = async |count: usize| {
        while runner.now.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    };
    let stop = start(&queue, &poison, &runner, LEASE);
    // A batch of two; one leaves, which is the threshold, so another batch is fetched.
    running(2).await;
    runner.gate.add_permits(1);
    running(3).await;
    runner.gate.add_permits(19);
    queue.until(|queue| (queue.deleted.lock().unwrap().len() == 20).then_some(())).await;
    assert_eq!(runner.most.load(Ordering::SeqCst), 3);
    assert!(poison.put.lock().unwrap().is_empty());
    stop.cancel();
}

#[tokio::test]
async fn failure_makes_it_visible_after_the_visibility_timeout() {
    let queue = MemoryQueue::new("events", vec![message("aGk=", 2)]);
    let (poison, runner) = (MemoryQueue::new("events-poison", vec![]), Runner::new(false, Duration::ZERO));
    let stop = start(&queue, &poison, &runner, LEASE);
    let seen = queue.until(|queue| queue.visibility.lock().unwrap().first().copied()).await;
    assert_eq!(seen, Duration::from_secs(7));
    assert!(queue.deleted.lock().unwrap().is_empty());
    stop.cancel();
}

#[tokio::test]
async fn the_last_failure_copies_to_poison_as_stored_and_deletes() {
    let queue = MemoryQueue::new("events", vec![message("aGk=", 3)]);
    let (poison, runner) = (MemoryQueue::new("events-poison", vec![]), Runner::new(false, Duration::ZERO));
    let stop = start(&queue, &poison, &runner, LEASE);
    queue.until(|queue| queue.deleted.lock().unwrap().first().cloned()).await;
    assert_eq!(*poison.put.lock().unwrap(), ["aGk="]);
    assert_eq!(runner.most.load(Ordering::SeqCst), 1);
    stop.cancel();
}

#[tokio::test]
async fn above_the_limit_and_undecodable_go_to_poison_without_being_run() {
    let queue = MemoryQueue::new("events", vec![message("aGk=", 4), message("{not base64}", 1)]);
    let (poison, runner) = (MemoryQueue::new("events-poison", vec![]), Runner::new(true, Duration::ZERO));
    let stop = start(&queue, &poison, &runner, LEASE);
    queue.until(|queue| (queue.deleted.lock().unwrap().len() == 2).then_some(())).await;
    assert_eq!(*poison.put.lock().unwrap(), ["aGk=", "{not base64}"]);
    assert_eq!(runner.most.load(Ordering::SeqCst), 0);
    stop.cancel();
}

#[tokio::test]
async fn a_lease_is_renewed_and_the_newest_receipt_deletes() {
    let queue = MemoryQueue::new("events", vec![message("aGk=", 1)]);
    let (poison, runner) =
        (MemoryQueue::new("events-poison", vec![]), Runner::new(true, Duration::from_millis(250)));
    let stop = start(&queue, &poison, &runner, Duration::from_millis(200));
    let receipt = queue.until(|queue| queue.deleted.lock().unwrap().first().cloned()).await;
    assert_eq!(receipt, "pop++");
    assert_eq!(*queue.visibility.lock().unwrap(), [Duration::from_millis(200); 2]);
    stop.cancel();
}

#[test]
fn poison_queues_have_no_poison_queue() {
    assert_eq!(poison_queue("events").as_deref(), Some("events-poison"));
    assert_eq!(poison_queue("events-poison"), None);
}
