use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::tasks::Tasks;

/// A Redis of its own, to be killed.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(port: Option<u16>) -> Self {
        let program = std::env::var("COLLOQUY_TEST_REDIS").expect("COLLOQUY_TEST_REDIS: run scripts/test");
        let port = port.unwrap_or_else(|| {
            std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
        });
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}

fn shared() -> String {
    std::env::var("COLLOQUY_TEST_REDIS_URL").expect("COLLOQUY_TEST_REDIS_URL: run scripts/test")
}

fn instance(url: &str, tasks: &Tasks) -> Redis {
    Redis::start(RedisSettings { url: url.to_owned().into(), entra: None }, tasks).unwrap()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn add(key: &str, by: i64) -> Vec<Add> {
    vec![Add { key: key.to_owned(), by, lives: Duration::from_secs(60) }]
}

#[tokio::test]
async fn instances_count_and_wake_each_other() {
    let tasks = Tasks::new();
    let (one, two) = (instance(&shared(), &tasks), instance(&shared(), &tasks));
    eventually("both are connected", async || one.is_shared() && two.is_shared()).await;
    let key = format!("test:{}", Uuid::now_v7());
    // Under load a call may take longer than it is allowed.
    eventually("one adds", async || one.add(&add(&key, 3)).await.is_ok()).await;
    eventually("two sees it", async || two.add(&add(&key, 0)).await.is_ok_and(|totals| totals[0] >= 3)).await;
    let turn = Uuid::now_v7();
    let (mut here, mut there) = (one.subscribe(), two.subscribe());
    one.wake(Wake::Cancelled(turn));
    one.wake(Wake::Advanced(turn));
    let mut told = [there.recv().await.unwrap(), there.recv().await.unwrap()];
    told.sort_by_key(|wake| matches!(wake, Wake::Cancelled(_)));
    assert_eq!(told, [Wake::Advanced(turn), Wake::Cancelled(turn)]);
    assert_eq!(here.recv().await.unwrap(), Wake::Cancelled(turn));
    assert_eq!(here.recv().await.unwrap(), Wake::Advanced(turn));
    // The echo of one's own comes back as nothing.
    two.wake(Wake::Advanced(key_of(&key)));
    assert_eq!(here.recv().await.unwrap(), Wake::Advanced(key_of(&key)));
    tasks.stop(Duration::from_secs(5)).await.unwrap();
}

fn key_of(key: &str) -> Uuid {
    key.trim_start_matches("test:").parse().unwrap()
}

#[tokio::test]
async fn a_lost_redis_degrades_at_once_and_comes_back() {
    let server = Server::start(None);
    let port = server.port;
    let tasks = Tasks::new();
    let redis = instance(&server.url(), &tasks);
    eventually("connected", async || redis.is_shared()).await;
    eventually("counted", async || redis.add(&add("a", 1)).await.is_ok()).await;
    drop(server);
    eventually("noticed", async || !redis.is_shared()).await;
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(redis.add(&add("a", 1)).await, Err(CoordinationError::Away));
        redis.wake(Wake::Advanced(Uuid::now_v7()));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "no call waits: {:?}", began.elapsed());
    // Wake-ups here go on.
    let mut here = redis.subscribe();
    let turn = Uuid::now_v7();
    redis.wake(Wake::Advanced(turn));
    assert_eq!(here.recv().await.unwrap(), Wake::Advanced(turn));

    let again = Server::start(Some(port));
    let other = instance(&again.url(), &tasks);
    eventually("restored", async || redis.is_shared() && other.is_shared()).await;
    let mut there = other.subscribe();
    redis.wake(Wake::Cancelled(turn));
    assert_eq!(there.recv().await.unwrap(), Wake::Cancelled(turn));
    tasks.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_frozen_redis_costs_no_more_than_the_limit_and_then_nothing() {
    let server = Server::start(None);
    let tasks = Tasks::new();
    let redis = instance(&server.url(), &tasks);
    eventually("connected", async || redis.is_shared()).await;
    let signal = |name: &str| {
        let pid = server.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    let began = std::time::Instant::now();
    for _ in 0..50 {
        assert!(redis.add(&add("a", 1)).await.is_err());
    }
    // Five that waited, then none.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    eventually("it counts as lost, so that others are polled", async || !redis.is_shared()).await;
    let began = std::time::Instant::now();
    for _ in 0..1_000 {
        assert_eq!(redis.add(&add("a", 1)).await, Err(CoordinationError::Away));
    }
    assert!(began.elapsed() < Duration::from_millis(500), "nobody waits any more: {:?}", began.elapsed());
    signal("-CONT");
    eventually("counts again", async || redis.add(&add("a", 1)).await.is_ok()).await;
    tasks.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn counters_in_memory_end_after_their_last_addition() {
    let memory = Memory::default();
    let mut wakes = memory.subscribe();
    memory.wake(Wake::Advanced(Uuid::nil()));
    assert_eq!(wakes.recv().await.unwrap(), Wake::Advanced(Uuid::nil()));
    assert_eq!(memory.add(&add("a", 2)).await.unwrap(), [2]);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(memory.add(&add("a", 2)).await.unwrap(), [4]);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(memory.add(&add("a", 1)).await.unwrap(), [1]);
    assert!(memory.is_shared());
}
