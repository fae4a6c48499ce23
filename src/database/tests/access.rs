use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::support::{TestDatabase, count};
use crate::access::issuing;
use crate::access::{Access, AccessError, JwksCache, generate_key, hash_key};
use crate::config::{AccessConfig, KeyLimits, Scope};
use crate::database::api_keys::{self, NewKey};
use crate::database::audit::Actor;
use crate::database::responses::{Order, PageOf};
use crate::database::{Client, Database};
use crate::ids::KeyId;

const ADMIN: Actor<'_> = Actor { name: "admin", reason: Some("a test") };

async fn make(client: &Client, owner: &str, expires_at: Option<Timestamp>) -> (KeyId, String) {
    let (id, key) = (KeyId::new(), generate_key());
    let text = key.expose_secret().to_owned();
    let new = NewKey {
        id,
        name: "laptop",
        sha256: &hash_key(&text),
        owner,
        scopes: &[Scope::Operator],
        limits: &KeyLimits { requests_per_minute: Some(5), ..KeyLimits::default() },
        expires_at,
    };
    let made = api_keys::create(client, &new, ADMIN).await.expect("made");
    assert_eq!((made.id, made.created_by.as_str()), (id, "admin"));
    (id, text)
}

fn access(database: &Database, remember: Duration) -> Access {
    let config = AccessConfig { key_cache: remember, ..AccessConfig::default() };
    Access::new(&config, Some(database.clone()), Arc::new(JwksCache::new(Duration::from_secs(1))))
}

#[tokio::test]
async fn keys_made_at_run_time_identify_expire_and_are_revoked() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let access = access(&database, Duration::ZERO);
    let now = Timestamp::now();
    let (id, key) = make(&client, "ada", None).await;
    let who = access.verify(&key, now).await.expect("known");
    assert_eq!((who.owner.as_str(), who.key.clone()), ("ada", id.to_string()));
    assert!(who.may(Scope::Operator) && who.limits.requests_per_minute == Some(5));
    assert_eq!(access.verify("clq_wrong", now).await, Err(AccessError::Unknown));
    let page = PageOf { after: None, limit: 10, order: Order::Descending };
    let listed = async |owner| api_keys::list(&client, owner, page).await.expect("listed").entries;
    let hers = listed(Some("ada")).await;
    assert_eq!(hers, [api_keys::get(&client, id).await.expect("asked").expect("there")]);
    assert!(hers[0].last_used_day.is_some());
    assert!(listed(Some("eve")).await.is_empty());

    // PostgreSQL keeps microseconds.
    let later = Timestamp::from_second(now.as_second() + 3_600).expect("an instant");
    let expire = async |id, at| api_keys::expire(&client, id, at, ADMIN).await.expect("asked");
    assert_eq!(expire(KeyId::new(), Some(later)).await, None, "there is none such");
    assert_eq!(expire(id, Some(later)).await.expect("there").expires_at, Some(later));
    let even_later = later + SignedDuration::from_secs(1);
    assert_eq!(expire(id, Some(even_later)).await.expect("there").expires_at, Some(later), "never longer");
    assert!(access.verify(&key, now).await.is_ok(), "it has an hour left");
    assert!(matches!(access.verify(&key, later).await, Err(AccessError::Expired { .. })));
    assert!(expire(id, None).await.expect("there").revoked_at.is_some());
    assert_eq!(expire(id, Some(later)).await, None, "gone for good");
    assert_eq!(access.verify(&key, now).await, Err(AccessError::Unknown));
    let session = test.session().await;
    let noted = async |action: &str| {
        let rows = format!(
            "api_audit WHERE subject = '{id}' AND action = '{action}' AND detail->>'reason' = 'a test'"
        );
        count(&session, &rows).await
    };
    assert_eq!((noted("key.create").await, noted("key.expire").await, noted("key.revoke").await), (1, 2, 1));
}

#[tokio::test]
async fn a_key_is_rotated_once_and_its_successor_is_like_it() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let access = access(&database, Duration::ZERO);
    let now = Timestamp::now();
    let life = SignedDuration::from_secs(90 * 24 * 3_600);
    let (id, key) = make(&client, "ada", Some(now + life)).await;
    let day = Duration::from_secs(24 * 3_600);
    let rotate = async |id| issuing::rotate(&client, id, day, None, ADMIN).await.expect("asked");
    let rotated = rotate(id).await.expect("rotated");
    let (new, old) = (&rotated.stored, rotated.replaces.as_ref().expect("it took a place"));
    assert_eq!((old.id, old.replaced_by), (id, Some(new.id)));
    assert_eq!(
        (&new.name, &new.owner, &new.scopes, &new.limits),
        (&old.name, &old.owner, &old.scopes, &old.limits)
    );
    let lasts = |key: &api_keys::StoredKey| key.expires_at.expect("it ends").duration_since(now).as_hours();
    assert!((23..=24).contains(&lasts(old)), "the old one goes on for a day: {}", lasts(old));
    assert!(
        (90 * 24 - 1..=90 * 24).contains(&lasts(new)),
        "as long as the old one was made to: {}",
        lasts(new)
    );
    let who = access.verify(rotated.key.expose_secret(), now).await.expect("the new one works");
    assert_eq!(who.key, new.id.to_string());
    access.verify(&key, now).await.expect("so does the old one");
    assert!(rotate(id).await.is_none(), "its place is taken");
    assert!(rotate(KeyId::new()).await.is_none());
    let again = rotate(new.id).await.expect("the successor is rotated next");
    assert!((90 * 24 - 1..=90 * 24).contains(&lasts(&again.stored)));

    let (endless, _) = make(&client, "ada", None).await;
    let rotated = rotate(endless).await.expect("rotated");
    assert_eq!(rotated.stored.expires_at, None);
    let (revoked, _) = make(&client, "ada", None).await;
    api_keys::expire(&client, revoked, None, ADMIN).await.expect("asked");
    assert!(rotate(revoked).await.is_none(), "what has ended is not brought back");
    let session = test.session().await;
    assert_eq!(
        count(&session, &format!("api_audit WHERE subject = '{id}' AND action = 'key.rotate'")).await,
        1
    );
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
