//! A Redis of one test's own.

use std::path::PathBuf;

use super::process::mortal;
use super::{Port, Process, SOON, Surroundings, eventually};

/// Start, kill, freeze, start again: the port stays, and nothing else does.
pub struct PrivateRedis {
    surroundings: Surroundings,
    directory: PathBuf,
    port: Port,
    process: Option<Process>,
}

impl PrivateRedis {
    pub async fn start() -> Self {
        let surroundings = Surroundings::read();
        let directory = surroundings.directory("redis");
        let port = Port::claim(&surroundings);
        let mut redis = Self { surroundings, directory, port, process: None };
        redis.start_again().await;
        redis
    }

    /// `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
    }

    /// For a [`super::Proxy`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Starts it where it was, empty.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "Redis runs already");
        let mut command = mortal(&self.surroundings.redis, "");
        command.args(["--port", &self.port.number().to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]).current_dir(&self.directory);
        self.process = Some(Process::start("redis", command));
        eventually("Redis", SOON, async || self.port.answers()).await;
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stopped where it is: connections stay, new ones are taken, and nothing answers.
    pub fn freeze(&self) {
        self.process.as_ref().expect("a running Redis").signal("STOP");
    }

    pub fn thaw(&self) {
        self.process.as_ref().expect("a running Redis").signal("CONT");
    }

    /// Keys of ours that would stay for ever.
    pub async fn endless_keys(&self) -> Vec<String> {
        let client = redis::Client::open(self.url()).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("keys");
        let mut endless = Vec::new();
        for key in keys {
            let left: i64 =
                redis::cmd("TTL").arg(&key).query_async(&mut connection).await.expect("a key's time");
            // -2: it ended meanwhile.
            if left == -1 {
                endless.push(key);
            }
        }
        endless
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        self.process = None;
        std::fs::remove_dir_all(&self.directory).ok();
    }
}
