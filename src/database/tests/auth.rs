//! Logins with access tokens: a stand-in for the managed identity endpoint hands them out, and real PostgreSQL
//! has a role whose password is the token, so that only the right token gets in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::task::JoinSet;

use super::support::{TestDatabase, eventually};
use crate::azure::testing::{Reply, StandIn};
use crate::azure::{Credential, ManagedIdentity, TokenSource};
use crate::database::{Columns, Database, DatabaseAuth, DatabaseSettings, Statements};
use crate::wiring::DatabaseTokens;

/// A role that exists as long as its test, on a database of its own.
struct Role {
    test: TestDatabase,
    name: String,
}

impl Role {
    async fn with_password(token: &str) -> Self {
        let test = TestDatabase::create().await;
        let role = Self { name: format!("role_{}", test.name), test };
        let admin = role.test.session().await;
        let create = format!("CREATE ROLE {} LOGIN PASSWORD '{token}'", role.name);
        admin.batch_execute(&create).await.expect("a role");
        role
    }

    async fn change_password(&self, token: &str) {
        let change = format!("ALTER ROLE {} PASSWORD '{token}'", self.name);
        self.test.session().await.batch_execute(&change).await.expect("another password");
    }

    async fn remove(self) {
        let drop = format!("DROP ROLE {}", self.name);
        self.test.session().await.batch_execute(&drop).await.expect("the role is not needed any more");
    }

    /// Past the pooler, which knows only the passwords of its own file.
    fn settings(&self) -> DatabaseSettings {
        let mut url = self.test.direct.clone();
        url.set_username(&self.name).expect("a name");
        url.set_password(None).expect("no password");
        let mut settings = DatabaseSettings::new(SecretString::from(url.as_str()));
        settings.auth = DatabaseAuth::Entra;
        settings
    }

    fn database(&self, endpoint: &StandIn) -> Database {
        open(self.settings(), endpoint)
    }
}

fn open(settings: DatabaseSettings, endpoint: &StandIn) -> Database {
    let tokens = TokenSource::new(Credential::ManagedIdentity(ManagedIdentity {
        endpoint: endpoint.url.clone(),
        header: SecretString::from("inside"),
        client_id: None,
    }));
    Database::new(settings, Some(Arc::new(DatabaseTokens(tokens)))).expect("settings")
}

fn token(value: &str, valid: Duration) -> Reply {
    let expires = Timestamp::now().as_second() + i64::try_from(valid.as_secs()).expect("seconds");
    Reply::status(200, format!(r#"{{"access_token":"{value}","expires_on":"{expires}"}}"#))
}

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_the_password_and_one_serves_all_connections_opened_together() {
    let role = Role::with_password("token-one").await;
    let endpoint = StandIn::start(|_, _| token("token-one", HOUR)).await;
    let database = role.database(&endpoint);
    assert!(endpoint.seen().is_empty(), "nothing is asked before a connection is wanted");

    let mut clients = JoinSet::new();
    for _ in 0..10 {
        let database = database.clone();
        clients.spawn(async move { database.client().await });
    }
    let clients: Vec<_> =
        clients.join_all().await.into_iter().map(|client| client.expect("a login")).collect();
    let row = clients[0].query_one("who", "SELECT session_user::text AS who", &[]).await.expect("a row");
    assert_eq!(row.column::<String>("who").expect("who"), role.name);
    assert_eq!(database.pool_status().size, 10);

    let seen = endpoint.seen();
    assert_eq!(seen.len(), 1, "ten logins, one request");
    assert!(
        seen[0].uri.contains("resource=https%3A%2F%2Fossrdbms-aad.database.windows.net&"),
        "{}",
        seen[0].uri
    );
    assert_eq!(seen[0].headers["x-identity-header"], "inside");
    drop((clients, database));
    role.remove().await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_for_new_connections_and_old_ones_stay() {
    let role = Role::with_password("token-one").await;
    let endpoint = StandIn::start(|request, _| match request {
        0 => token("token-one", Duration::from_secs(2)),
        _ => token("token-two", HOUR),
    })
    .await;
    let database = role.database(&endpoint);
    let old = database.client().await.expect("a login with the first token");
    role.change_password("token-two").await;
    eventually("a login with the second token", async || match database.client().await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.sql_state(), Some("28P01"), "{error}");
            false
        }
    })
    .await;
    assert_eq!(endpoint.seen().len(), 2);
    old.query("echo", "SELECT 1", &[]).await.expect("an open session needs no token");
    drop((old, database));
    role.remove().await;
}

#[tokio::test]
async fn no_token_is_an_outage_that_is_over_when_there_is_one() {
    let role = Role::with_password("token-one").await;
    let endpoint = StandIn::start(|request, _| match request {
        0 => Reply::status(500, r#"{"message":"hush"}"#),
        1 => Reply::Cut,
        2 => Reply::status(200, r#"{"hush":1}"#),
        _ => token("token-one", HOUR),
    })
    .await;
    let database = role.database(&endpoint);
    let mut failures = 0;
    while let Err(error) = database.client().await {
        failures += 1;
        assert!(error.is_outage(), "{error}");
        assert_eq!(error.code(), "database_token", "{error}");
        assert!(error.to_string().contains("managed identity"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        assert!(failures <= 3, "{error}");
    }
    assert!(failures >= 2, "each failure was told");
    drop(database);
    role.remove().await;
}

#[tokio::test]
async fn a_silent_endpoint_costs_a_new_connection_its_time_limit_and_open_ones_nothing() {
    let role = Role::with_password("token-one").await;
    let expiry = Timestamp::now() + Duration::from_secs(2);
    let endpoint = StandIn::start(|request, _| match request {
        0 => token("token-one", Duration::from_secs(2)),
        _ => Reply::Stall,
    })
    .await;
    let mut settings = role.settings();
    settings.connect_timeout = Duration::from_secs(3);
    let database = open(settings, &endpoint);
    let held = database.client().await.expect("a login");
    eventually("the token has expired", async || Timestamp::now() > expiry).await;
    let error = database.client().await.map(drop).expect_err("no token for a second connection");
    assert!(error.is_outage() && error.to_string().contains("DB_CONNECT_TIMEOUT"), "{error}");
    let started = Instant::now();
    held.query("echo", "SELECT 1", &[]).await.expect("an answer");
    drop(held);
    drop(database.client().await.expect("the open one, at once"));
    assert!(started.elapsed() < Duration::from_secs(3), "after {:?}", started.elapsed());
    drop(database);
    role.remove().await;
}

#[tokio::test]
async fn entra_without_a_credential_is_said_and_no_login_is_tried() {
    let role = Role::with_password("token-one").await;
    let database = Database::new(role.settings(), None).expect("settings");
    let error = database.client().await.map(drop).expect_err("no credential");
    assert_eq!(error.code(), "database_token");
    assert!(error.to_string().contains("DB_AUTH_MODE=entra"), "{error}");
    role.remove().await;
}
