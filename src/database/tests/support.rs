use std::time::Duration;

use deadpool_postgres::{ConfigConnectImpl, Connect};
use secrecy::SecretString;
use tokio_postgres::NoTls;
use url::Url;

use crate::database::{Database, DatabaseSettings};

pub fn test_url(variable: &str) -> Url {
    let text = std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: these tests need PostgreSQL behind PgBouncer; run scripts/test")
    });
    Url::parse(&text).expect("a PostgreSQL URL")
}

/// A database that goes away with its test, however the test ends.
pub struct TestDatabase {
    pub name: String,
    pub pooled: Url,
    pub direct: Url,
}

impl TestDatabase {
    pub async fn create() -> Self {
        let mut pooled = test_url("COLLOQUY_TEST_DATABASE_URL");
        let mut direct = test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL");
        let name = format!("t_{}", uuid::Uuid::now_v7().simple());
        let admin = connect(&direct).await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("CREATE DATABASE");
        pooled.set_path(&name);
        direct.set_path(&name);
        Self { name, pooled, direct }
    }

    /// Settings as a process would have them: statements pooled, migrations direct.
    pub fn settings(&self) -> DatabaseSettings {
        let mut settings = DatabaseSettings::new(SecretString::from(self.pooled.as_str()));
        settings.direct_url = Some(SecretString::from(self.direct.as_str()));
        settings
    }

    pub fn database(&self) -> Database {
        Database::new(self.settings(), None).expect("settings")
    }

    /// A plain session past everything under test.
    pub async fn session(&self) -> tokio_postgres::Client {
        connect(&self.direct).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (direct, name) = (test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL"), self.name.clone());
        // Drop cannot await, and the test's runtime may be gone.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(
                async {
                    let admin = connect(&direct).await;
                    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await
                },
            )
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            other => eprintln!("{} was left behind: {other:?}", self.name),
        }
    }
}

pub async fn connect(url: &Url) -> tokio_postgres::Client {
    let config = url.as_str().parse().expect("a PostgreSQL URL");
    let (client, _connection) = ConfigConnectImpl { tls: NoTls }.connect(&config).await.expect("PostgreSQL");
    client
}

/// Asks until the answer is yes. Fails the test after 20 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
