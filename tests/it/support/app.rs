//! The function app as it runs on a machine: `devhost` as a process, and `function-handlers` under it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::consumer::CONSUMER_SECRET;
use super::process::{children, mortal, signal};
use super::surroundings::{handlers_program, repository};
use super::{
    Consumer, Endpoint, Handler, Port, Process, SOON, Surroundings, TestDatabase, TestStorage, eventually,
};

/// Settings and files of an app that is not running yet.
pub struct FunctionAppBuilder {
    settings: BTreeMap<String, String>,
    flags: Vec<String>,
    config: String,
    host: Value,
}

impl FunctionAppBuilder {
    /// Where callbacks go. It should trust [`CONSUMER_SECRET`], as it does unless told otherwise.
    pub fn consumer(self, consumer: &Consumer) -> Self {
        self.set("CONSUMER_URL", consumer.url())
    }

    /// One setting, over those that every test has ([`settings`]).
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Takes a setting away.
    pub fn unset(mut self, name: &str) -> Self {
        self.settings.remove(name);
        self
    }

    /// Another `colloquy.toml` than the repository's. Its sources and targets get secrets too.
    pub fn config(mut self, text: &str) -> Self {
        for (name, value) in secrets(text) {
            self.settings.entry(name).or_insert(value);
        }
        text.clone_into(&mut self.config);
        self
    }

    /// Changes `host.json`, by JSON pointer; what is missing on the way is made.
    pub fn host(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.host;
        for step in pointer.split('/').skip(1) {
            place = &mut place[step];
        }
        *place = value;
        self
    }

    /// A flag of `devhost start`: `--speed`, `10`.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Starts `devhost` and waits until the handler answers.
    pub async fn start(self) -> FunctionApp {
        let app = self.start_without_waiting();
        app.await_ready().await;
        app
    }

    /// Starts `devhost` without these functions, as an operator switches them off
    /// (`AzureWebJobs.<name>.Disabled`), and waits until the handler answers.
    pub async fn start_without(self, functions: &[&str]) -> FunctionApp {
        let name = |function: &&str| format!("AzureWebJobs.{function}.Disabled");
        functions.iter().fold(self, |builder, function| builder.set(&name(function), "true")).start().await
    }

    /// Starts `devhost` only: for tests of start-up itself.
    pub fn start_without_waiting(self) -> FunctionApp {
        let surroundings = Surroundings::read();
        let root = surroundings.directory("app");
        lay_out(&root, &self.host, &self.config);
        let port = Port::claim(&surroundings);
        let mut app = FunctionApp {
            root,
            endpoint: Endpoint::new(port.number(), self.settings.clone()),
            _port: port,
            settings: self.settings,
            flags: self.flags,
            process: None,
        };
        app.spawn();
        app
    }

    /// Starts the handler alone, without a host, and waits until it answers.
    pub async fn start_handler(self) -> Handler {
        let handler = self.start_handler_without_waiting();
        handler.await_ready().await;
        handler
    }

    /// Starts the handler alone: for tests of start-up itself.
    pub fn start_handler_without_waiting(self) -> Handler {
        let surroundings = Surroundings::read();
        let root = surroundings.directory("handler");
        lay_out(&root, &self.host, &self.config);
        Handler::new(root, Port::claim(&surroundings), self.settings)
    }

    /// Waits of seconds instead of minutes: for tests of what happens after them. Nothing else is bent.
    pub fn hurried(self) -> Self {
        let flags = [("--speed", "10"), ("--lease-seconds", "5"), ("--crash-limit", "0")];
        let settings = [
            ("HINT_AFTER", "1s"),
            ("RETRY_BASE", "200ms"),
            ("RETRY_CAP", "1s"),
            ("OUTAGE_RETRY", "1s"),
            ("SWITCH_CACHE", "200ms"),
            ("STORAGE_TIMEOUT", "3s"),
        ];
        let hurried = flags.into_iter().fold(self, |builder, (name, value)| builder.flag(name, value));
        settings.into_iter().fold(hurried, |builder, (name, value)| builder.set(name, value))
    }
}

/// A running function app. Several may share a database and queues: that is several instances. Dereferences to its
/// [`Endpoint`].
pub struct FunctionApp {
    root: PathBuf,
    endpoint: Endpoint,
    _port: Port,
    settings: BTreeMap<String, String>,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Deref for FunctionApp {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl FunctionApp {
    /// An app on this database and these queues, with the repository's function folders and `colloquy.toml`.
    pub fn of(database: &TestDatabase, storage: &TestStorage) -> FunctionAppBuilder {
        Self::on(&database.url, &database.direct_url, storage)
    }

    /// The same, by addresses: through a [`super::Proxy`], or where nothing listens.
    pub fn on(database_url: &str, database_direct_url: &str, storage: &TestStorage) -> FunctionAppBuilder {
        FunctionAppBuilder {
            settings: settings(database_url, database_direct_url, storage),
            flags: Vec::new(),
            config: read("colloquy.toml"),
            host: serde_json::from_str(&read("host.json")).expect("host.json is JSON"),
        }
    }

    // --- Commands --------------------------------------------------------------------------------------------------

    /// `function-handlers <arguments>` with the app's settings, to its end.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_function-handlers"));
        command.args(arguments).env_clear().envs(&self.settings).current_dir(&self.root).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
        output
            .unwrap_or_else(|_| panic!("`function-handlers {}` took over 60 s", arguments.join(" ")))
            .expect("it runs")
    }

    /// The same, while it runs.
    pub fn begin(&self, arguments: &[&str]) -> super::Running {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_function-handlers"));
        command.args(arguments).env_clear().envs(&self.settings).current_dir(&self.root).kill_on_drop(true);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().expect("it runs")
    }

    /// What a command printed as JSON (`--json`), after it succeeded.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let what = arguments.join(" ");
        assert!(
            output.status.success(),
            "`function-handlers {what}` ended with {}\n{out}\n{err}",
            output.status
        );
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("`function-handlers {what}`: {error}\n{out}"))
    }

    // --- Life and death --------------------------------------------------------------------------------------------

    /// Waits until `GET /api/health/live` is answered with 200.
    pub async fn await_ready(&self) {
        eventually("GET /api/health/live to be answered with 200", SOON, async || {
            let answer = self.client().get(self.url("/api/health/live")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Pid of `devhost`.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a running devhost").pid()
    }

    /// Pid of the handler, once it has one.
    pub async fn handler_pid(&self) -> u32 {
        let mut pid = None;
        eventually("a handler under devhost", SOON, async || {
            pid = children(self.pid()).into_iter().find(|pid| name_of(*pid).starts_with("function-handle"));
            pid.is_some()
        })
        .await;
        pid.expect("found above")
    }

    /// SIGKILL to the handler; `devhost` starts another, as the host does.
    pub async fn kill_handler(&self) -> u32 {
        let pid = self.handler_pid().await;
        signal(pid, "KILL");
        pid
    }

    /// Stops the handler where it is, connections open.
    pub async fn freeze_handler(&self) -> u32 {
        let pid = self.handler_pid().await;
        signal(pid, "STOP");
        pid
    }

    /// Wakes a process that was frozen.
    pub fn thaw(&self, pid: u32) {
        signal(pid, "CONT");
    }

    /// SIGKILL to `devhost`; its handler dies with it.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM to `devhost`, and waits for its end.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            process.end(SOON).await;
        }
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(name.to_owned(), value.to_owned());
    }

    /// Starts it again on the same port, after [`Self::kill`] or [`Self::stop`], and waits until it answers.
    pub async fn start_again(&mut self) {
        self.spawn();
        self.await_ready().await;
    }

    /// What `devhost` and the handler wrote since the last start.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The process itself, for what has no name here.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a running devhost")
    }

    /// What the app was given, for a program of one's own.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// The app root: change a function folder, `host.json` or `colloquy.toml` before [`Self::start_again`].
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none(), "devhost runs already");
        let mut command = mortal(env!("CARGO_BIN_EXE_devhost"), "");
        command
            .args(["start", "--port", &self.port().to_string(), "--root"])
            .arg(&self.root)
            .args(&self.flags);
        command.env_clear().envs(&self.settings).current_dir(&self.root);
        self.process = Some(Process::start("devhost", command));
    }
}

impl Drop for FunctionApp {
    fn drop(&mut self) {
        self.process = None;
        std::fs::remove_dir_all(&self.root).ok();
    }
}

/// The settings that every app of a test has.
pub fn settings(
    database_url: &str,
    database_direct_url: &str,
    storage: &TestStorage,
) -> BTreeMap<String, String> {
    let mut settings = secrets(&read("colloquy.toml"));
    let mut set = |name: &str, value: &str| settings.insert(name.to_owned(), value.to_owned());
    // `devhost` and what it starts look programs up, nothing else of this process is theirs.
    set("PATH", &std::env::var("PATH").expect("PATH"));
    // Where programs built by `scripts/coverage` count what they run.
    if let Ok(file) = std::env::var("LLVM_PROFILE_FILE") {
        set("LLVM_PROFILE_FILE", &file);
    }
    set("APP_ENV", "dev");
    set("DATABASE_URL", database_url);
    set("DATABASE_DIRECT_URL", database_direct_url);
    set("AzureWebJobsStorage", &storage.connection_string);
    set("FUNCTIONS_WORKER_RUNTIME", "custom");
    set("QUEUE_EVENTS", &storage.events);
    set("QUEUE_JOBS", &storage.jobs);
    set("QUEUE_CALLBACKS", &storage.callbacks);
    set("QUEUE_USAGE", &storage.usage);
    set("BLOB_CONTAINER", &storage.container);
    // Whoever shares queues is an instance of the same app, and no other app's.
    set("AzureFunctionsWebHost__hostid", storage.container.trim_start_matches("t-"));
    set("ENCRYPTION_KEY", &STANDARD.encode([7; 32]));
    // Discard: a test without a consumer sends its callbacks nowhere.
    set("CONSUMER_URL", "http://127.0.0.1:9/");
    settings
}

/// A secret for every source and target of a `colloquy.toml`, of the shape its kind wants.
fn secrets(config: &str) -> BTreeMap<String, String> {
    let config: toml::Table = config.parse().expect("colloquy.toml is TOML");
    let table = |name: &str| config.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let suffix = |name: &str| name.to_uppercase().replace('-', "_");
    let sources = table("sources").into_iter().map(|(name, source)| {
        let secret = match source.get("kind").and_then(toml::Value::as_str) {
            Some("stripe") => format!("whsec_stripe_secret_of_{name}"),
            Some("standard-webhooks") => format!("whsec_{}", STANDARD.encode(format!("{name:-<32}"))),
            // Azure DevOps sends Basic too.
            Some("basic" | "azure-devops") => format!("{name}:password"),
            _ => format!("secret-of-{name}"),
        };
        (format!("WEBHOOK_SECRET_{}", suffix(&name)), secret)
    });
    let targets = table("targets").into_iter();
    let targets =
        targets.map(|(name, _)| (format!("CALLBACK_SECRET_{}", suffix(&name)), CONSUMER_SECRET.to_owned()));
    sources.chain(targets).collect()
}

/// What `func` would find in a published app: folders with `function.json`, the program, two files.
fn lay_out(root: &Path, host: &Value, config: &str) {
    for entry in std::fs::read_dir(repository()).expect("the repository").flatten() {
        if entry.path().join("function.json").is_file() {
            let folder = root.join(entry.file_name());
            std::fs::create_dir(&folder).expect("a function folder");
            std::fs::copy(entry.path().join("function.json"), folder.join("function.json"))
                .expect("its function.json");
        }
    }
    std::fs::write(root.join("host.json"), host.to_string()).expect("host.json");
    std::fs::write(root.join("colloquy.toml"), config).expect("colloquy.toml");
    let program = root.join("function-handlers");
    std::os::unix::fs::symlink(handlers_program(), program).expect("the program");
}

fn read(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn name_of(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}
