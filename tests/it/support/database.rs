//! A database of one test's own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use tokio_postgres::NoTls;

use super::app::settings;
use super::surroundings::repository;
use super::{PrivatePostgres, Surroundings, TestStorage, unique};

/// Dropped, with whoever is still connected, when this is.
pub struct TestDatabase {
    /// Through PgBouncer in transaction mode: `DATABASE_URL`.
    pub url: String,
    /// Directly: `DATABASE_DIRECT_URL`.
    pub direct_url: String,
    name: String,
    server: String,
    binaries: PathBuf,
}

impl TestDatabase {
    /// Migrated, in the shared cluster.
    pub async fn create() -> Self {
        let surroundings = Surroundings::read();
        Self::copy(&surroundings.pooled_url, &surroundings.direct_url, surroundings.postgres_bin, true).await
    }

    /// Without any table, in the shared cluster: for tests of migrations.
    pub async fn empty() -> Self {
        let surroundings = Surroundings::read();
        Self::copy(&surroundings.pooled_url, &surroundings.direct_url, surroundings.postgres_bin, false).await
    }

    /// Migrated, in a cluster of the test's own.
    pub async fn within(server: &PrivatePostgres) -> Self {
        let binaries = Surroundings::read().postgres_bin;
        Self::copy(&server.pooled_url("postgres"), &server.direct_url("postgres"), binaries, true).await
    }

    async fn copy(pooled: &str, direct: &str, binaries: PathBuf, migrated: bool) -> Self {
        let name = unique("t").replace('-', "_");
        let administrator = connect(direct).await;
        let template =
            if migrated { template(&administrator, pooled, direct).await } else { "template0".to_owned() };
        let statement = format!("CREATE DATABASE {name} TEMPLATE {template}");
        administrator.batch_execute(&statement).await.expect("a copy of the template");
        Self {
            url: at(pooled, &name),
            direct_url: at(direct, &name),
            name,
            server: direct.to_owned(),
            binaries,
        }
    }

    /// A direct connection, for looking at rows. The tests' own SQL never goes through the application's pool.
    pub async fn client(&self) -> tokio_postgres::Client {
        connect(&self.direct_url).await
    }

    /// The only value of the only row of a query without parameters, as a number: `SELECT count(*) …`.
    pub async fn count(&self, query: &str) -> i64 {
        let row = self.client().await.query_one(query, &[]).await;
        row.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A failure leaves a database in a cluster that is thrown away, or in one that is down already.
        let mut command = Command::new(self.binaries.join("dropdb"));
        command
            .arg("--force")
            .arg("--if-exists")
            .arg(format!("--maintenance-db={}", self.server))
            .arg(&self.name);
        // A server that a test froze must not freeze the test.
        command.env("PGCONNECT_TIMEOUT", "5").output().ok();
    }
}

/// The migrated database that others are copies of. The first test to come makes it, under a lock; it is named after
/// what the migrations say, so a changed migration makes another.
async fn template(administrator: &tokio_postgres::Client, pooled: &str, direct: &str) -> String {
    let name = format!("template_{:016x}", fingerprint());
    let exists = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    if count(administrator, &exists).await == 1 {
        return name;
    }
    administrator.batch_execute("SELECT pg_advisory_lock(7071)").await.expect("the template's lock");
    if count(administrator, &exists).await == 0 {
        let draft = format!("{name}_draft");
        let statement = format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)");
        administrator.batch_execute(&statement).await.expect("no draft");
        administrator.batch_execute(&format!("CREATE DATABASE {draft}")).await.expect("a draft");
        migrate(&at(pooled, &draft), &at(direct, &draft));
        // Nobody may be connected to what is renamed or copied; the pooler keeps its connections a while.
        let statement =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{draft}'");
        administrator.batch_execute(&statement).await.expect("an unwatched draft");
        let statement = format!("ALTER DATABASE {draft} RENAME TO {name}");
        administrator.batch_execute(&statement).await.expect("a template");
    }
    administrator.batch_execute("SELECT pg_advisory_unlock(7071)").await.expect("the template's lock");
    name
}

/// `function-handlers migrate`, the one implementation.
fn migrate(url: &str, direct_url: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_function-handlers"));
    command.arg("migrate").env_clear().envs(settings(url, direct_url, &TestStorage::create()));
    command.current_dir(repository());
    let output = command.output().expect("function-handlers");
    assert!(
        output.status.success(),
        "`function-handlers migrate` ended with {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn fingerprint() -> u64 {
    let mut files: Vec<_> =
        std::fs::read_dir(repository().join("migrations")).expect("migrations/").flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.file_name().hash(&mut hasher);
        std::fs::read(file.path()).expect("a migration").hash(&mut hasher);
    }
    hasher.finish()
}

async fn count(client: &tokio_postgres::Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect("a count").get(0)
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a direct connection");
    tokio::spawn(connection);
    client
}

/// The same address with another database.
fn at(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("an address with a database");
    format!("{server}/{name}")
}
