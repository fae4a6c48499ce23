use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::support::{TestDatabase, count, eventually};
use crate::access::{Access, AccessError, Auditor, JwksCache, Principal, generate_key, hash_key};
use crate::config::{AccessConfig, KeyLimits, Scope};
use crate::database::api_keys::{self, NewKey};
use crate::database::grants::{self, GrantedAccess};
use crate::database::{Client, Database};
use crate::ids::{ConversationId, KeyId};
use crate::tasks::Tasks;

async fn make(client: &Client, owner: &str, expires_at: Option<Timestamp>) -> (KeyId, String) {
    let (id, key) = (KeyId::new(), generate_key());
    let text = key.expose_secret().to_owned();
    let new = NewKey {
        id,
        name: "laptop",
        sha256: &hash_key(&text),
        owner,
        scopes: &[Scope::Operator],
        limits: KeyLimits { requests_per_minute: Some(5), ..KeyLimits::default() },
        created_by: "admin",
        expires_at,
    };
    api_keys::create(client, &new).await.expect("made");
    (id, text)
}

fn access(database: &Database, remember: Duration) -> Access {
    let config = AccessConfig { key_cache: remember, ..AccessConfig::default() };
    Access::new(&config, Some(database.clone()), Arc::new(JwksCache::new(Duration::from_secs(1))))
}

#[tokio::test]
async fn keys_made_at_run_time_identify_expire_and_are_revoked() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let access = access(&database, Duration::ZERO);
    let now = Timestamp::now();
    let (id, key) = make(&client, "ada", None).await;
    let who = access.verify(&key, now).await.expect("known");
    assert_eq!((who.owner.as_str(), who.key.clone()), ("ada", id.to_string()));
    assert!(who.may(Scope::Operator) && who.limits.requests_per_minute == Some(5));
    assert_eq!(access.verify("clq_wrong", now).await, Err(AccessError::Unknown));
    let listed = api_keys::list(&client, Some("ada"), None, 10).await.expect("listed");
    assert_eq!(listed.len(), 1);
    assert!(listed[0].last_used_day.is_some());
    assert!(api_keys::list(&client, Some("eve"), None, 10).await.expect("listed").is_empty());

    let later = now + SignedDuration::from_secs(3_600);
    assert!(!api_keys::expire(&client, Some("eve"), id, later).await.expect("asked"), "not hers");
    assert!(api_keys::expire(&client, Some("ada"), id, later).await.expect("asked"));
    assert!(access.verify(&key, now).await.is_ok(), "rotation overlaps");
    assert!(matches!(access.verify(&key, later).await, Err(AccessError::Expired { .. })));
    assert!(api_keys::expire(&client, None, id, now).await.expect("asked"));
    assert!(!api_keys::expire(&client, None, id, later).await.expect("asked"), "gone for good");
    assert_eq!(access.verify(&key, now).await, Err(AccessError::Unknown));
}

#[tokio::test]
async fn known_keys_work_while_the_database_is_away() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let (_, seen) = make(&client, "ada", None).await;
    let (_, unseen) = make(&client, "bob", None).await;
    drop(client);
    let mut settings = test.settings();
    settings.url = test.direct.as_str().to_owned().into();
    let own = Database::new(settings, None).expect("settings");
    let access = access(&own, Duration::ZERO);
    access.verify(&seen, Timestamp::now()).await.expect("known");
    let admin = super::support::connect(&super::support::test_url("COLLOQUY_TEST_DATABASE_DIRECT_URL")).await;
    admin
        .batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", test.name))
        .await
        .expect("closed");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    admin.execute(end, &[&test.name]).await.expect("ended");
    access.verify(&seen, Timestamp::now()).await.expect("it was good a moment ago");
    assert_eq!(access.verify(&unseen, Timestamp::now()).await, Err(AccessError::Unavailable));
    admin.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", test.name)).await.expect("open");
}

#[tokio::test]
async fn grants_are_given_changed_and_taken_back() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let conversation = ConversationId::new();
    let make = "INSERT INTO conversations (id, owner, thread_id) VALUES ($1, 'ada', $1)";
    session.execute(make, &[&conversation.0]).await.expect("made");
    let may = async |who: &str, access| {
        grants::may(&client, who, conversation, access).await.expect("asked").as_deref() == Some("ada")
    };
    use GrantedAccess::{Read, Write};
    assert!(may("ada", Write).await && !may("bob", Read).await);
    assert!(
        !grants::give(&client, "bob", conversation, "bob", Write).await.expect("asked"),
        "not his to give"
    );
    assert!(grants::give(&client, "ada", conversation, "bob", Read).await.expect("asked"));
    assert!(may("bob", Read).await && !may("bob", Write).await && !may("eve", Read).await);
    assert!(grants::give(&client, "ada", conversation, "bob", Write).await.expect("asked"));
    assert!(may("bob", Read).await && may("bob", Write).await);
    let listed = grants::list(&client, "ada", conversation).await.expect("listed").expect("hers");
    assert_eq!(
        listed.iter().map(|grant| (grant.grantee.as_str(), grant.access)).collect::<Vec<_>>(),
        [("bob", Write)]
    );
    assert_eq!(grants::list(&client, "bob", conversation).await.expect("asked"), None);
    assert!(!grants::revoke(&client, "bob", conversation, "bob").await.expect("asked"));
    assert!(grants::revoke(&client, "ada", conversation, "bob").await.expect("asked"));
    assert!(!grants::revoke(&client, "ada", conversation, "bob").await.expect("asked"), "once");
    assert!(!may("bob", Read).await);
    assert_eq!(count(&session, "api_audit WHERE action LIKE 'grant.%' AND actor = 'ada'").await, 3);
}

#[tokio::test]
async fn changes_are_noted_behind_the_callers_back() {
    let (test, database) = TestDatabase::migrated().await;
    let tasks = Tasks::new();
    let auditor = Auditor::start(database, &tasks);
    let who = Principal { owner: "ada".into(), key: "k".into(), ..Principal::default() };
    auditor.note(&who, "conversation.deleted", "conv_1", None);
    let session = test.session().await;
    let noted = "api_audit WHERE actor = 'ada (k)' AND subject = 'conv_1'";
    eventually("it is written", || async { count(&session, noted).await == 1 }).await;
    auditor.note(&who, "conversation.deleted", "conv_2", Some(serde_json::json!({"items": 3})));
    tasks.stop(Duration::from_secs(5)).await.expect("stopped");
    assert_eq!(count(&session, "api_audit WHERE detail->>'items' = '3'").await, 1);
}
