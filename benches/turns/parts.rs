//! The processes of a benchmark, and what they cost.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::load::{Shape, Spread};

pub const KEY: &str = "clq_bench";

pub fn text(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set; run scripts/bench turns"))
}

pub fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| name.to_owned()))
}

/// Adds a line of JSON to the results, from which tables and plots are made.
pub fn record(line: &serde_json::Value) -> anyhow::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(text("COLLOQUY_BENCH_RESULTS")?)?;
    Ok(writeln!(file, "{line}")?)
}

/// A child that dies with this.
pub struct Part {
    child: Child,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Part {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        Ok(Self { child: command.spawn()? })
    }

    /// Processor time of its threads so far, in user mode and in the kernel for it.
    pub fn busy(&self) -> anyhow::Result<Duration> {
        let mut busy = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that has just ended takes its share along; it is one that waited for work.
            if let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) {
                busy += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(busy))
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
    }
}

/// The provider as a process, with its address.
pub fn provider() -> anyhow::Result<(Part, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("provider").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut part = Part::start(command)?;
    let output = part.child.stdout.take().context("its output")?;
    let mut url = String::new();
    BufReader::new(output).read_line(&mut url)?;
    Ok((part, url.trim().to_owned()))
}

/// A server on its core, ready, with its address.
pub async fn server(
    provider: &str,
    shapes: &[Shape],
    pooled: &str,
    direct: &str,
    settings: &[(&str, &str)],
) -> anyhow::Result<(Part, String)> {
    let directory = std::env::temp_dir().join(format!("colloquy-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("colloquy.toml");
    let mut config = String::new();
    for shape in shapes {
        let (model, path) = (shape.model(), shape.path());
        let deployment = format!(
            "[deployments.{model}]\nprovider = \"openai\"\nurl = \"{provider}/{path}\"\nauth = \"none\"\n\
             requests_per_minute = 0\ntokens_per_minute = 0\nprice = {{ input = \"1.00\", output = \"4.00\" }}\n\
             [models.{model}]\ndeployments = [\"{model}\"]\nsilence_seconds = 3600\nfirst_event_seconds = 3600\n"
        );
        if !config.contains(&deployment) {
            config.push_str(&deployment);
        }
    }
    std::fs::write(&file, config)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let hash: String = Sha256::digest(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = Command::new("taskset");
    command.args(["-c", &text("COLLOQUY_BENCH_SERVER_CORE")?, &text("COLLOQUY_BENCH_SERVER")?]);
    command.env_clear().current_dir(&directory);
    for (name, value) in [
        ("APP_ENV", "dev"),
        ("PORT", &port.to_string()),
        ("COLLOQUY_CONFIG", &file.display().to_string()),
        ("DATABASE_URL", pooled),
        ("DATABASE_DIRECT_URL", direct),
        (
            "AUTH_API_KEYS",
            &format!(r#"[{{"name":"bench","sha256":"{hash}","scopes":["operator"],"owner":"bench"}}]"#),
        ),
        // Nothing is sent there.
        ("AzureWebJobsStorage", &text("COLLOQUY_TEST_AZURITE")?),
        ("ENCRYPTION_KEY", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="),
        ("APP_LOG_LEVEL", "warn"),
        // Limits that are counted and never reached.
        ("RATE_REQUESTS_PER_MINUTE", "100000000"),
        ("RATE_TOKENS_PER_MINUTE", "100000000000"),
        ("RATE_CONCURRENT_TURNS", "20000"),
        ("TURN_KEPT", "1s"),
        ("TURNS_MAX", "20000"),
    ] {
        command.env(name, value);
    }
    command.envs(settings.iter().copied());
    // Settings that only some versions have, such as limits of requests.
    for setting in std::env::var("COLLOQUY_BENCH_SETTINGS").unwrap_or_default().split_whitespace() {
        let (name, value) = setting.split_once('=').context("COLLOQUY_BENCH_SETTINGS is NAME=VALUE …")?;
        command.env(name, value);
    }
    let part = Part::start(command)?;
    ready(part, format!("http://127.0.0.1:{port}"), "/health/ready", Duration::from_secs(30)).await
}

/// The part, once it says so.
async fn ready(
    mut part: Part,
    address: String,
    path: &str,
    patience: Duration,
) -> anyhow::Result<(Part, String)> {
    let (client, started) = (super::load::client()?, std::time::Instant::now());
    while started.elapsed() < patience {
        ensure!(part.child.try_wait()?.is_none(), "what was to be measured ended; its message is above");
        if client.get(format!("{address}{path}")).send().await.is_ok_and(|answer| answer.status() == 200) {
            return Ok((part, address));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(anyhow!("{path} was not answered with 200 within {patience:?}"))
}

/// LiteLLM's proxy on the server's core, ready, with its address: the same provider, a key of its own.
pub async fn peer(provider: &str, shapes: &[Shape]) -> anyhow::Result<(Part, String)> {
    let directory = std::env::temp_dir().join(format!("colloquy-bench-peer-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let models: BTreeMap<_, _> = shapes.iter().map(|shape| (shape.model(), shape.path())).collect();
    let models: Vec<_> = models
        .into_iter()
        .map(|(model, path)| {
            let base = format!("{provider}/{path}");
            json!({ "model_name": model,
                    "litellm_params": { "model": "openai/m", "api_base": base, "api_key": "none" } })
        })
        .collect();
    // JSON is YAML.
    let config = json!({ "model_list": models, "general_settings": { "master_key": KEY } });
    let file = directory.join("config.yaml");
    std::fs::write(&file, config.to_string())?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let home = text("COLLOQUY_BENCH_PEER")?;
    let mut command = Command::new("taskset");
    command.args(["-c", &text("COLLOQUY_BENCH_SERVER_CORE")?, "python3", &format!("{home}/bin/litellm")]);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--num_workers", "1", "--config"]);
    command.arg(&file).current_dir(&directory).env("PYTHONPATH", &home).env("LITELLM_LOG", "ERROR");
    // Its prices come with it; without this it asks for newer ones at start.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").stdin(Stdio::null()).stdout(Stdio::null());
    let part = Part::start(command)?;
    let address = format!("http://127.0.0.1:{port}");
    ready(part, address, "/health/liveliness", Duration::from_secs(180)).await
}

/// A migrated database of the benchmark's own.
pub struct Database {
    pub pooled: String,
    pub direct: String,
    administrator: String,
    name: String,
}

impl Database {
    pub async fn create(pooled: &str, direct: &str) -> anyhow::Result<Self> {
        use colloquy::database::migrations::{self, Migrations, Options};
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        execute(direct, &format!("CREATE DATABASE {name}")).await?;
        let at = |url: &str| format!("{}/{name}", url.rsplit_once('/').map_or(url, |(server, _)| server));
        let database =
            Self { pooled: at(pooled), direct: at(direct), administrator: direct.to_owned(), name };
        let mut settings =
            colloquy::database::DatabaseSettings::new(SecretString::from(database.pooled.clone()));
        settings.direct_url = Some(SecretString::from(database.direct.clone()));
        let client = colloquy::database::Database::new(settings, None)?;
        migrations::run(&client, &Migrations::embedded()?, &Options::default(), &|_| {}).await?;
        Ok(database)
    }

    /// The only value of the only row.
    async fn count(&self, query: &str) -> anyhow::Result<i64> {
        let (client, connection) = tokio_postgres::connect(&self.direct, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client.query_one(query, &[]).await?.try_get(0)?)
    }

    /// The median round trip of the simplest query at an address.
    pub async fn round_trip(url: &str) -> anyhow::Result<Duration> {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let mut took = Vec::new();
        for _ in 0..50 {
            let started = std::time::Instant::now();
            client.simple_query("SELECT 1").await?;
            took.push(started.elapsed());
        }
        took.sort_unstable();
        Ok(took[took.len() / 2])
    }

    /// What it takes to make a small change last, with nothing else going on.
    pub async fn commit_latency(&self) -> anyhow::Result<Spread> {
        let (client, connection) = tokio_postgres::connect(&self.direct, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("CREATE TABLE small (n int4)").await?;
        let mut took = Vec::new();
        for _ in 0..300 {
            let started = std::time::Instant::now();
            client.batch_execute("INSERT INTO small VALUES (1)").await?;
            took.push(started.elapsed());
        }
        Ok(Spread::of(took))
    }

    /// Transactions of the database, and syncs of its cluster's log, so far.
    pub async fn counts(&self) -> anyhow::Result<[i64; 2]> {
        // What backends counted arrives within a second.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        Ok([self.count(commits).await?, self.count("SELECT wal_sync FROM pg_stat_wal").await?])
    }

    pub async fn remove(&self) -> anyhow::Result<()> {
        execute(&self.administrator, &format!("DROP DATABASE {} WITH (FORCE)", self.name)).await
    }
}

async fn execute(url: &str, statement: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client.batch_execute(statement).await?)
}
