//! Logins with access tokens, end to end: a stand-in for App Service's identity endpoint, the token source and a
//! role whose password is the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::task::JoinSet;
use url::Url;

use super::support::{TestDatabase, connect, test_url};
use crate::azure::testing::{Reply, StandIn};
use crate::azure::{Credential, ManagedIdentity, TokenSource};
use crate::database::{
    Columns, Database, DatabaseAuth, DatabaseError, DatabaseSettings, Statements, TokenProvider,
};
use crate::wiring::DatabaseTokens;

/// A role that goes away with its test.
struct Role {
    name: String,
    test: TestDatabase,
}

impl Role {
    async fn new(token: &str) -> Self {
        let test = TestDatabase::create().await;
        let role = Self { name: format!("{}_role", test.name), test };
        role.execute(&format!("CREATE ROLE {} LOGIN", role.name)).await;
        role.set_token(token).await;
        role
    }

    async fn execute(&self, sql: &str) {
        self.test.session().await.batch_execute(sql).await.expect("SQL");
    }

    async fn set_token(&self, token: &str) {
        self.execute(&format!("ALTER ROLE {} PASSWORD '{token}'", self.name)).await;
    }

    /// Settings as with `DB_AUTH_MODE=entra`: the URL names the role and no password.
    fn settings(&self, url: &Url) -> DatabaseSettings {
        let mut url = url.clone();
        url.set_username(&self.name).expect("a user");
        url.set_password(None).expect("no password");
        let mut settings = DatabaseSettings::new(SecretString::from(url.as_str()));
        settings.auth = DatabaseAuth::Entra;
        settings.connect_timeout = Duration::from_mins(1); // a busy machine is not what this is about
        settings
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let (direct, name) = (test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL"), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            let sql = format!("DROP ROLE {name}");
            runtime.block_on(async { connect(&direct).await.batch_execute(&sql).await })
        });
        if !matches!(dropped.join(), Ok(Ok(()))) {
            eprintln!("role {} was left behind", self.name);
        }
    }
}

fn tokens(endpoint: &StandIn) -> Arc<dyn TokenProvider> {
    tokens_at(endpoint, &Arc::default())
}

/// The same by a clock that is so many seconds ahead.
fn tokens_at(endpoint: &StandIn, ahead: &Arc<AtomicI64>) -> Arc<dyn TokenProvider> {
    let ahead = Arc::clone(ahead);
    let clock = move || Timestamp::now() + SignedDuration::from_secs(ahead.load(Ordering::SeqCst));
    let identity = ManagedIdentity {
        endpoint: endpoint.url.join("/msi/token").expect("a URL"),
        header: SecretString::from("the-header"),
        client_id: None,
    };
    let source = TokenSource::with_clock(Credential::ManagedIdentity(identity), Arc::new(clock));
    Arc::new(DatabaseTokens(source))
}

/// An answer as App Service gives it.
fn granted(token: &str, lives: i64) -> Reply {
    let expires_on = (Timestamp::now().as_second() + lives).to_string();
    let body = serde_json::json!({ "access_token": token, "expires_on": expires_on, "token_type": "Bearer" });
    Reply::status(200, body.to_string())
}

async fn who(database: &Database) -> Result<String, DatabaseError> {
    let client = database.client().await?;
    let row = client.query_one("who", "SELECT current_user::text AS who", &[]).await?;
    row.column("who")
}

/// As long as real ones are.
fn long_token(start: &str) -> String {
    format!("{start}.{}", "aZ0_-".repeat(340))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_the_password_and_many_connections_ask_for_it_once() {
    let token = long_token("one");
    let role = Role::new(&token).await;
    let given = token.clone();
    let endpoint = StandIn::start(move |_, _| granted(&given, 3_600)).await;
    for url in [&role.test.pooled, &role.test.direct] {
        let before = endpoint.seen().len();
        let database = Database::new(role.settings(url), Some(tokens(&endpoint))).expect("settings");
        assert_eq!(endpoint.seen().len(), before, "nothing is asked before it is needed");
        let mut calls = JoinSet::new();
        for _ in 0..40 {
            let database = database.clone();
            calls.spawn(async move { who(&database).await.expect("a login") });
        }
        assert!(calls.join_all().await.iter().all(|user| *user == role.name));
        assert!(database.pool_status().size > 1);
        assert_eq!(endpoint.seen().len(), before + 1, "{} connections", database.pool_status().size);
    }
    let request = &endpoint.seen()[0];
    assert!(
        request.uri.contains("resource=https%3A%2F%2Fossrdbms-aad.database.windows.net&"),
        "{}",
        request.uri
    );
    assert_eq!(request.headers["x-identity-header"], "the-header");
}

#[tokio::test]
async fn a_new_connection_has_a_new_token_from_two_minutes_before_the_end_of_the_old_one() {
    let (first, second) = (long_token("first"), long_token("second"));
    let role = Role::new(&first).await;
    let given = [first, second.clone()];
    let endpoint =
        StandIn::start(move |number, _| granted(&given[number.min(1)], 3_600 * (number as i64 + 1))).await;
    let mut settings = role.settings(&role.test.direct);
    settings.max_age = Duration::from_millis(1); // every use has a connection of its own
    let ahead = Arc::default();
    let database = Database::new(settings, Some(tokens_at(&endpoint, &ahead))).expect("settings");
    let old = database.client().await.expect("a login with the first token");
    ahead.store(3_600 - 300, Ordering::SeqCst);
    assert_eq!(who(&database).await.expect("a login with the first token"), role.name);
    assert_eq!(endpoint.seen().len(), 1, "it lasts another five minutes");
    role.set_token(&second).await;
    ahead.store(3_600 - 119, Ordering::SeqCst);
    assert_eq!(who(&database).await.expect("a login with the second"), role.name);
    assert_eq!(who(&database).await.expect("a login with the second"), role.name);
    assert_eq!(endpoint.seen().len(), 2, "the second one lasts");
    old.query("echo", "SELECT 1", &[]).await.expect("a session outlives its token");
}

#[tokio::test]
async fn a_failing_identity_endpoint_is_an_outage_that_ends() {
    let role = Role::new("good-token").await;
    let failures = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&failures);
    let endpoint = StandIn::start(move |_, _| match seen.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::status(500, "hush: internal"),
        1 => Reply::Cut,
        2 => Reply::status(200, "{\"access_token\": \"hush\", \"expires_on\": \"soon\"}"),
        _ => granted("good-token", 3_600),
    })
    .await;
    let settings = role.settings(&role.test.pooled);
    let database = Database::new(settings, Some(tokens(&endpoint))).expect("settings");
    let mut errors = Vec::new();
    let user = loop {
        match who(&database).await {
            Ok(user) => break user,
            Err(error) => errors.push(error),
        }
        assert!(errors.len() < 10, "{errors:?}");
    };
    assert_eq!(user, role.name);
    assert!(!errors.is_empty());
    for error in errors {
        assert_eq!(error.code(), "database_token");
        assert!(error.is_outage() && error.to_string().contains("managed identity"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn a_slow_identity_endpoint_is_an_outage_within_the_limit() {
    let endpoint = StandIn::start(|_, _| Reply::Stall).await;
    let test = TestDatabase::create().await;
    let mut settings = test.settings();
    settings.auth = DatabaseAuth::Entra;
    settings.connect_timeout = Duration::from_millis(300);
    let database = Database::new(settings, Some(tokens(&endpoint))).expect("settings");
    let started = Instant::now();
    let error = who(&database).await.expect_err("no token");
    assert!(error.is_outage() && error.to_string().contains("DB_CONNECT_TIMEOUT"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_refused_token_says_what_to_check_and_does_not_show_the_token() {
    let role = Role::new("what-the-server-wants").await;
    let endpoint = StandIn::start(|_, _| granted("hush-token", 3_600)).await;
    let settings = role.settings(&role.test.direct);
    let database = Database::new(settings.clone(), Some(tokens(&endpoint))).expect("settings");
    let error = who(&database).await.expect_err("refused");
    assert_eq!(error.sql_state(), Some("28P01"));
    assert!(error.is_outage() && error.to_string().contains("pgaadauth_create_principal"), "{error}");
    assert!(!format!("{error} {error:?} {database:?}").contains("hush"), "{error:?}");

    let database = Database::new(settings, None).expect("settings");
    let error = who(&database).await.expect_err("no credential");
    assert!(error.code() == "database_token" && error.to_string().contains("DB_AUTH_MODE=entra"), "{error}");
}

#[tokio::test]
async fn migrations_log_in_with_a_token_too() {
    let role = Role::new("good-token").await;
    role.execute(&format!("GRANT CREATE ON SCHEMA public TO {}", role.name)).await;
    let endpoint = StandIn::start(|_, _| granted("good-token", 3_600)).await;
    let mut settings = role.settings(&role.test.pooled);
    settings.direct_url = Some(role.settings(&role.test.direct).url);
    let database = Database::new(settings, Some(tokens(&endpoint))).expect("settings");
    let files = [("V0001__one", "CREATE TABLE one ()")];
    let files = crate::database::migrations::Migrations::from_files(&files).expect("files");
    let options = crate::database::migrations::Options::default();
    let report = crate::database::migrations::run(&database, &files, &options, &|_| {}).await.expect("a run");
    assert_eq!(report.applied.len(), 1);
    role.execute(&format!("DROP OWNED BY {}", role.name)).await;
}
