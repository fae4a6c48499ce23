//! Switches: set on one instance, in force on all of them within what `SWITCH_CACHE` promises.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::{audited, delete, deliver, letters, list, put};
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{
    Consumer, FunctionApp, Proxy, SOON, Surroundings, TestDatabase, TestStorage, eventually,
};

/// What `SWITCH_CACHE` promises, and a moment for the answer itself.
const PROMISED: Duration = Duration::from_millis(5_500);

async fn ask(server: &Server, key: &str, more: Value) -> (u16, Value) {
    let mut request = json!({ "model": "demo", "input": "Hello.", "store": false });
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    server.call(Method::POST, "/v1/responses", Some(request), key).await
}

/// Waits until every server answers so, within what is promised.
async fn all_answer(servers: &[&Server], key: &str, more: &Value, status: u16, code: Option<&str>) {
    let started = Instant::now();
    for server in servers {
        eventually("a switch to be in force", SOON, async || {
            let (is, answer) = ask(server, key, more.clone()).await;
            is == status && code.is_none_or(|code| answer["error"]["code"] == code)
        })
        .await;
    }
    assert!(started.elapsed() < PROMISED, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_model_that_is_held_on_one_server_is_held_on_all_until_its_time_is_over() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (first, second) =
        (Server::of(&database, &storage).start().await, Server::of(&database, &storage).start().await);
    let (none, stored) = (json!({}), json!({ "store": true }));
    for server in [&first, &second] {
        assert_eq!(ask(server, API_KEY, none.clone()).await.0, 200);
    }
    for wrong in [
        json!({ "stop": "hold" }),
        json!({ "reason": "x" }),
        json!({ "stop": "hold", "for": "0s", "reason": "x" }),
    ] {
        assert_eq!(put(&first, "/admin/switches/model/demo", wrong.clone()).await.0, 400, "{wrong}");
    }
    let hold = json!({ "stop": "hold", "for": "7s", "reason": "a bad answer" });
    let (status, error) = put(&first, "/admin/switches/model/nothing", hold.clone()).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("switch_unknown")), "{error}");
    assert_eq!(put(&first, "/admin/switches/planet/demo", hold.clone()).await.0, 404);
    let (status, set) = put(&first, "/admin/switches/model/demo", hold).await;
    assert_eq!(
        (status, &set["stop"], &set["in_force"], &set["audited"]),
        (200, &json!("hold"), &json!(true), &json!(true))
    );
    let until: jiff::Timestamp = set["until"].as_str().unwrap().parse().unwrap();
    all_answer(&[&first, &second], API_KEY, &none, 503, Some("model_held")).await;
    let answer = second
        .client()
        .post(second.url("/v1/responses"))
        .bearer_auth(API_KEY)
        .json(&json!({ "model": "demo", "input": "Hello." }))
        .send()
        .await
        .unwrap();
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait) && answer.status() == 503, "{wait}");
    let message = answer.json::<Value>().await.unwrap()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("demo") && !message.contains("a bad answer"), "{message}");

    eventually("its time to be over", SOON, async || jiff::Timestamp::now() >= until).await;
    for server in [&first, &second] {
        assert_eq!(ask(server, API_KEY, stored.clone()).await.0, 200, "at once: nobody has to read that");
    }
    let lines = list(&first, "/admin/switches").await;
    assert_eq!((lines.len(), &lines[0]["in_force"]), (1, &json!(false)));
    assert_eq!(audited(&database, "model.hold").await, 1);
}

#[tokio::test]
async fn owners_features_and_deployments_are_refused_and_set_going_again() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = || Server::of(&database, &storage).set("SWITCH_CACHE", "400ms").start();
    let (first, second) = (server().await, server().await);
    let none = json!({});
    let refuse = json!({ "stop": "refuse", "reason": "a test" });
    let path = "/admin/switches/owner/somebody-else";
    assert_eq!(put(&first, path, refuse.clone()).await.0, 200);
    all_answer(&[&first, &second], OTHER_KEY, &none, 403, Some("owner_refused")).await;
    assert_eq!(ask(&second, API_KEY, none.clone()).await.0, 200, "nobody else");
    assert_eq!(second.call(Method::GET, "/v1/models", None, OTHER_KEY).await.0, 200, "only turns");
    let (status, cleared) = delete(&second, path, json!({ "reason": "mended" })).await;
    assert_eq!((status, &cleared["cleared"]), (200, &json!(true)));
    assert_eq!(delete(&second, path, none.clone()).await.0, 404);
    all_answer(&[&first, &second], OTHER_KEY, &none, 200, None).await;

    let background = json!({ "background": true, "store": true });
    assert_eq!(put(&first, "/admin/switches/feature/background", refuse.clone()).await.0, 200);
    all_answer(&[&first, &second], API_KEY, &background, 403, Some("feature_refused")).await;
    assert_eq!(ask(&second, API_KEY, none.clone()).await.0, 200, "in the foreground");
    assert_eq!(put(&first, "/admin/switches/feature/chat", refuse.clone()).await.0, 200);
    eventually("chat completions to be off", SOON, async || {
        let chat = json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hello." }] });
        second.post("/v1/chat/completions", chat).await.0 == 403
    })
    .await;
    let (status, features) = second.read("/admin/switches").await;
    assert_eq!(status, 200);
    let off: Vec<&str> = features["features"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|feature| feature["on"] == false)
        .map(|feature| feature["feature"].as_str().unwrap())
        .collect();
    assert_eq!(off, ["background", "chat"]);
    // The same switches by the commands of both programs.
    let set = ["switches", "set", "feature", "background", "--on", "--reason", "a test", "--json"];
    assert!(!second.command(&set).status.success(), "nobody can be asked");
    assert_eq!(second.json(&[&set[..], &["--yes"]].concat())["kind"], "feature");
    all_answer(&[&first, &second], API_KEY, &background, 200, None).await;

    assert_eq!(put(&first, "/admin/switches/deployment/demo", refuse).await.0, 200);
    all_answer(&[&first, &second], API_KEY, &none, 403, Some("model_refused")).await;
    assert_eq!(audited(&database, "deployment.refuse").await, 1);
    assert_eq!(database.count("SELECT count(*) FROM api_audit WHERE actor = 'command:ops'").await, 1);
}

#[tokio::test]
async fn a_server_goes_by_what_it_read_last_and_a_cold_one_stores_nothing_before_it_has_read() {
    let database = TestDatabase::create().await;
    let mut azurite = crate::support::PrivateAzurite::start().await;
    let storage = TestStorage::within(&azurite.connection_string());
    let server = || Server::of(&database, &storage).set("SWITCH_CACHE", "400ms");
    let warm = server().start().await;
    let refuse = json!({ "stop": "refuse", "reason": "a test" });
    assert_eq!(put(&warm, "/admin/switches/owner/somebody-else", refuse.clone()).await.0, 200);
    azurite.stop().await;
    let (none, stored) = (json!({}), json!({ "store": true }));
    let cold = server().start().await;
    let (status, error) = put(&warm, "/admin/switches/model/demo", refuse).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("switches_unavailable")), "{error}");
    for _ in 0..3 {
        assert_eq!(ask(&warm, OTHER_KEY, none.clone()).await.0, 403, "what was stopped stays so");
        assert_eq!(ask(&warm, API_KEY, stored.clone()).await.0, 200, "all else goes on");
        assert_eq!(ask(&cold, API_KEY, none.clone()).await.0, 200);
        let (status, error) = ask(&cold, API_KEY, stored.clone()).await;
        assert_eq!((status, &error["error"]["code"]), (503, &json!("switches_unknown")), "{error}");
    }
    azurite.start_again().await;
    eventually("the cold one to know", SOON, async || ask(&cold, API_KEY, stored.clone()).await.0 == 200)
        .await;
    assert_eq!(ask(&cold, OTHER_KEY, none).await.0, 403);
}

#[tokio::test]
async fn work_of_a_held_route_and_callbacks_that_are_held_wait_without_being_tried() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("SWITCH_CACHE", "0s").start().await;
    let server = Server::of(&database, &storage).start().await;
    let hold = json!({ "stop": "hold", "reason": "a test" });
    assert_eq!(put(&server, "/admin/switches/route/stripe-count", hold.clone()).await.0, 200);
    let targets = "/admin/switches/target/*";
    assert_eq!(put(&server, targets, hold).await.0, 200);
    let listed = app.json(&["switches", "list", "--json"]).await;
    assert_eq!(listed["switches"].as_array().map(Vec::len), Some(2), "{listed}");
    for n in 0..3 {
        deliver(&app, &format!("evt_{n}")).await;
    }
    let waiting = |table: &str| {
        format!(
            "SELECT count(*) FROM {table} WHERE state = 'pending' AND attempts = 0 AND outages = 0 AND epoch = 0"
        )
    };
    eventually("three jobs that wait", SOON, async || database.count(&waiting("jobs")).await == 3).await;
    eventually("three callbacks that wait", SOON, async || database.count(&waiting("callbacks")).await == 3)
        .await;
    eventually("no hint left", SOON, async || storage.is_empty().await).await;
    assert_eq!((database.count(&waiting("jobs")).await, database.count(&waiting("callbacks")).await), (3, 3));
    assert_eq!(consumer.callbacks().len(), 0);
    assert_eq!(letters(&server, 0).await.len(), 0);

    assert_eq!(delete(&server, targets, json!({})).await.0, 200);
    eventually("the callbacks", SOON, async || consumer.accepted().len() == 3).await;
    assert_eq!(database.count(&waiting("jobs")).await, 3, "they wait still");
    let refuse = json!({ "stop": "refuse", "reason": "no more of it" });
    assert_eq!(put(&server, "/admin/switches/route/stripe-count", refuse).await.0, 200);
    let dead = letters(&server, 3).await;
    assert!(dead.iter().all(|letter| letter["reason_code"] == "route_refused"), "{dead:?}");
    let cleared = app.json(&["switches", "clear", "route", "stripe-count", "--yes", "--json"]).await;
    assert_eq!(cleared["cleared"], true);
    let again = json!({ "filter": { "code": "route_refused" }, "rate": 100 });
    eventually("a replay that is done", SOON, async || {
        server.post("/admin/dead-letters/replay", again.clone()).await;
        let done = "SELECT coalesce(sum(events), 0)::int8 FROM event_counts";
        database.count(done).await == 3
    })
    .await;
}

/// The shared store, with blobs behind a proxy.
async fn store_behind_a_proxy() -> (String, Proxy) {
    let text = Surroundings::read().azurite;
    let blobs =
        text.split(';').find_map(|part| part.strip_prefix("BlobEndpoint=")).expect("blobs").to_owned();
    let mut url = reqwest::Url::parse(&blobs).expect("a URL");
    let proxy = Proxy::to(url.port().expect("a port"), Duration::ZERO).await;
    url.set_port(Some(proxy.port())).expect("another port");
    (text.replace(&blobs, url.as_str().trim_end_matches('/')), proxy)
}

#[tokio::test]
async fn a_switch_whose_answer_is_lost_is_in_the_audit_trail_all_the_same() {
    let database = TestDatabase::create().await;
    let (store, proxy) = store_behind_a_proxy().await;
    let storage = TestStorage::within(&store);
    let server = Server::of(&database, &storage).set("STORAGE_TIMEOUT", "2s").start().await;
    let hold = json!({ "stop": "hold", "reason": "a test" });
    assert_eq!(put(&server, "/admin/switches/model/demo", hold.clone()).await.0, 200);
    assert_eq!((audited(&database, "model.hold").await, audited(&database, "model.unsure").await), (1, 0));
    proxy.silence();
    let (status, error) = put(&server, "/admin/switches/model/demo", hold).await;
    assert_eq!((status, &error["error"]["code"]), (503, &json!("switches_unavailable")), "{error}");
    assert_eq!((audited(&database, "model.hold").await, audited(&database, "model.unsure").await), (2, 1));
    proxy.open();
}
