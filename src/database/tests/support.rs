use std::time::Duration;

use deadpool_postgres::{ConfigConnectImpl, Connect};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio_postgres::NoTls;
use url::Url;

use crate::database::events::{NewDelivery, NewEvent, Stored};
use crate::database::migrations::{self, Migrations, Options};
use crate::database::{Database, DatabaseError, DatabaseSettings, Statements};
use crate::events::routes::{Plan, PlannedCallback, PlannedJob};
use crate::events::state::EventState;
use crate::ids::{CallbackId, DeliveryId, EventId, JobId};

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

    /// With this program's own schema, and a pool large enough for twenty callers.
    pub async fn migrated() -> (Self, Database) {
        let test = Self::create().await;
        let files = Migrations::embedded().expect("valid files");
        migrations::run(&test.database(), &files, &Options::default(), &|_| {}).await.expect("the schema");
        let mut settings = test.settings();
        settings.pool_size = 15;
        let database = Database::new(settings, None).expect("settings");
        (test, database)
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

/// Of a plain session: the one value of the one row.
pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    session: &tokio_postgres::Client,
    sql: &str,
) -> T {
    session.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
}

pub async fn count(session: &tokio_postgres::Client, what: &str) -> i64 {
    value(session, &format!("SELECT count(*) FROM {what}")).await
}

/// From now on no audit row can be written.
pub async fn refuse_audits(session: &tokio_postgres::Client) {
    let sql = "ALTER TABLE api_audit ADD CONSTRAINT refused CHECK (false) NOT VALID";
    session.batch_execute(sql).await.expect(sql);
}

/// A delivery of one event, with one job and one callback planned for it.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub delivery: DeliveryId,
    pub received_at: Timestamp,
    pub key: String,
    pub content: String,
    pub lifetime: SignedDuration,
}

impl Incoming {
    pub fn new(key: &str) -> Self {
        Self {
            delivery: DeliveryId::new(),
            received_at: Timestamp::now(),
            key: key.to_owned(),
            content: "{}".to_owned(),
            lifetime: SignedDuration::from_hours(1),
        }
    }

    /// Arrived `seconds` from now, by the clock and by its ids.
    pub fn at(key: &str, seconds: i64) -> Self {
        let received_at = Timestamp::now() + SignedDuration::from_secs(seconds);
        let milliseconds = u64::try_from(received_at.as_millisecond()).expect("after 1970");
        let (whole, rest) = (milliseconds / 1_000, milliseconds % 1_000);
        let rest = u32::try_from(rest * 1_000_000).expect("less than a second");
        let stamp = uuid::Timestamp::from_unix(uuid::NoContext, whole, rest);
        Self { delivery: DeliveryId(uuid::Uuid::new_v7(stamp)), received_at, ..Self::new(key) }
    }

    pub fn with_content(mut self, content: &str) -> Self {
        self.content = content.to_owned();
        self
    }

    pub fn event(&self) -> EventId {
        EventId::of(self.delivery, 0)
    }

    pub fn new_delivery(&self) -> NewDelivery<'_> {
        NewDelivery {
            id: self.delivery,
            source: "shop",
            event_path: None,
            request_id: "req",
            trace_parent: Some("00-trace"),
            received_at: self.received_at,
            verdict: "signed",
            secret_label: Some("main"),
            signed_at: None,
            headers: serde_json::json!([["content-type", "application/json"]]),
            content_type: Some("application/json"),
            body_bytes: 2,
            body: None,
            body_blob: None,
            event_count: 1,
            sealed: Some(serde_json::json!([{ "at": "/secret" }])),
        }
    }

    pub fn new_event(&self) -> NewEvent<'_> {
        NewEvent {
            id: self.event(),
            position: 0,
            event_type: "order.paid",
            key: &self.key,
            fingerprint: self.content.as_bytes(),
            subject: Some("order 1"),
            payload: Some(self.content.as_bytes()),
            key_lifetime: self.lifetime,
        }
    }

    pub fn plan(&self) -> Plan {
        let job = PlannedJob {
            id: JobId::new(),
            event: self.event(),
            route: "count".to_owned(),
            kind: "count-event".to_owned(),
        };
        let callback = PlannedCallback {
            id: CallbackId::new(),
            event: self.event(),
            route: "forward".to_owned(),
            target: "ledger".to_owned(),
        };
        Plan { jobs: vec![job], callbacks: vec![callback] }
    }

    pub async fn store_as(
        &self,
        client: &impl Statements,
        state: EventState,
        plan: &Plan,
    ) -> Result<Stored, DatabaseError> {
        crate::database::events::store(client, &self.new_delivery(), &[self.new_event()], state, plan).await
    }

    /// Processed, with its job and its callback.
    pub async fn store(&self, client: &impl Statements) -> Stored {
        self.store_as(client, EventState::Processed, &self.plan()).await.expect("stored")
    }
}
