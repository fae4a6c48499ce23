//! `conversation-server` as a process. Several may share a database: that is several instances.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::app::settings;
use super::process::mortal;
use super::{Endpoint, Port, Process, SOON, Surroundings, TestDatabase, TestStorage, eventually};

/// The key that every server of a test knows. Its owner is `tester`, and it is an operator's.
pub const API_KEY: &str = "clq_test_key_of_the_harness";
/// A key of another owner.
pub const OTHER_KEY: &str = "clq_test_key_of_somebody_else";

/// As `AUTH_API_KEYS` has it.
fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A running server. Dereferences to its [`Endpoint`].
pub struct Server {
    endpoint: Endpoint,
    settings: BTreeMap<String, String>,
    directory: PathBuf,
    process: Option<Process>,
    _port: Port,
}

/// Two servers on one database. Dereferences to the two in turn: what one has begun, the other is asked about, told to
/// stop, and goes on with.
pub struct Servers {
    both: [Server; 2],
    turn: AtomicUsize,
}

/// Settings of a server that is not running yet.
#[derive(Clone)]
pub struct ServerBuilder {
    settings: BTreeMap<String, String>,
    config: Option<String>,
}

impl Deref for Server {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Deref for Servers {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.both[self.turn.fetch_add(1, Ordering::Relaxed) % self.both.len()]
    }
}

impl Servers {
    /// The two, where it matters which.
    pub fn both(&self) -> [&Server; 2] {
        self.both.each_ref()
    }

    /// The two, to be stopped or killed.
    pub fn each(&mut self) -> &mut [Server; 2] {
        &mut self.both
    }

    /// Their process ids.
    pub fn pids(&mut self) -> [u32; 2] {
        self.both.each_mut().map(|server| server.process().pid())
    }
}

impl ServerBuilder {
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Another `colloquy.toml` than the repository's.
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    /// One more key, of an owner of that name.
    pub fn key(self, owner: &str, key: &str) -> Self {
        let mut keys: Vec<Value> =
            serde_json::from_str(&self.settings["AUTH_API_KEYS"]).expect("a list of keys");
        keys.push(json!({ "name": owner, "sha256": hash(key), "scopes": [], "owner": owner }));
        self.set("AUTH_API_KEYS", Value::from(keys).to_string())
    }

    /// Leases of two seconds instead of thirty: for tests of what happens after them.
    pub fn hurried(self) -> Self {
        self.set("TURN_LEASE", "2s").set("DISCONNECT_GRACE", "2s").set("TURN_KEPT", "1s").set("DRAIN", "2s")
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Server {
        let server = self.start_without_database().await;
        server.await_ready().await;
        server
    }

    /// Starts two with these settings and waits until both are ready.
    pub async fn start_two(self) -> Servers {
        let servers = self.start_two_without_database().await;
        for server in &servers.both {
            server.await_ready().await;
        }
        servers
    }

    /// Starts two with these settings and waits until both answer at all.
    pub async fn start_two_without_database(self) -> Servers {
        let other = self.clone();
        let both = tokio::join!(self.start_without_database(), other.start_without_database());
        Servers { both: both.into(), turn: AtomicUsize::new(0) }
    }

    /// Starts it and waits until it answers at all.
    pub async fn start_without_database(self) -> Server {
        let surroundings = Surroundings::read();
        let directory = surroundings.directory("server");
        let port = Port::claim(&surroundings);
        let mut settings = self.settings;
        if let Some(config) = &self.config {
            let file = directory.join("colloquy.toml");
            std::fs::write(&file, config).expect("colloquy.toml");
            settings.insert("COLLOQUY_CONFIG".to_owned(), file.display().to_string());
        }
        settings.insert("PORT".to_owned(), port.number().to_string());
        let endpoint = Endpoint::new(port.number(), settings.clone());
        let mut server = Server { endpoint, settings, directory, process: None, _port: port };
        server.spawn();
        eventually("the server to answer", SOON, async || {
            server.client().get(server.url("/health/live")).send().await.is_ok()
        })
        .await;
        server
    }
}

impl Server {
    /// A server on a database that is migrated.
    pub fn of(database: &TestDatabase, storage: &TestStorage) -> ServerBuilder {
        Self::on(&database.url, &database.direct_url, storage)
    }

    /// The same by addresses.
    pub fn on(pooled: &str, direct: &str, storage: &TestStorage) -> ServerBuilder {
        let mut settings = settings(pooled, direct, storage);
        let keys = json!([
            { "name": "test", "sha256": hash(API_KEY), "scopes": ["operator"], "owner": "tester" },
            { "name": "other", "sha256": hash(OTHER_KEY), "scopes": [], "owner": "somebody-else" },
        ]);
        settings.insert("AUTH_API_KEYS".to_owned(), keys.to_string());
        ServerBuilder { settings, config: None }
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let mut command = mortal(env!("CARGO_BIN_EXE_conversation-server"), "");
        command.env_clear().envs(&self.settings).current_dir(&self.directory);
        self.process = Some(Process::start("conversation-server", command));
    }

    async fn await_ready(&self) {
        eventually("the server to be ready", SOON, async || {
            let answer = self.client().get(self.url("/health/ready")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// The base address for SDKs.
    pub fn base_url(&self) -> String {
        self.url("/v1")
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running server")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            assert!(process.end(std::time::Duration::from_secs(30)).await.success(), "an orderly end");
        }
    }

    /// Starts it again on the same port.
    pub async fn start_again(&mut self) {
        self.spawn();
        self.await_ready().await;
    }

    /// A command of the program, on the settings of this server.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_conversation-server"));
        command.args(arguments).env_clear().envs(&self.settings).env("COLLOQUY_ACTOR", "ops");
        command.stdin(std::process::Stdio::null()).current_dir(&self.directory);
        command.output().expect("it runs")
    }

    /// The same, while it runs.
    pub fn begin(&self, arguments: &[&str]) -> super::Running {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_conversation-server"));
        command.args(arguments).env_clear().envs(&self.settings).env("COLLOQUY_ACTOR", "ops");
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).current_dir(&self.directory).kill_on_drop(true);
        command.spawn().expect("it runs")
    }

    /// What a command that succeeds prints as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// POST of JSON with the harness's key. Gives status and body.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(http::Method::POST, path, Some(body), API_KEY).await
    }

    /// Any call. Gives status and body; what is no JSON is null.
    pub async fn call(
        &self,
        method: http::Method,
        path: &str,
        body: Option<Value>,
        key: &str,
    ) -> (u16, Value) {
        let mut request = self.client().request(method, self.url(path)).bearer_auth(key);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        (status, serde_json::from_str(text.trim()).unwrap_or_default())
    }

    /// GET with the harness's key.
    pub async fn read(&self, path: &str) -> (u16, Value) {
        self.call(http::Method::GET, path, None, API_KEY).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}
