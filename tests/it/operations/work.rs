//! Events, jobs, callbacks and dead letters under `/admin`.

use serde_json::{Value, json};

use super::{audited, deliver, id, letters, list};
use crate::support::server::Server;
use crate::support::{Answer, Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn dead_letters_are_replayed_by_filter_at_a_rate_and_one_is_discarded() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(500));
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s").start().await;
    let server = Server::of(&database, &storage).start().await;
    for n in 0..4 {
        deliver(&app, &format!("evt_{n}")).await;
    }
    let dead = letters(&server, 4).await;
    let (_, shown) = server.read(&format!("/admin/dead-letters/{}", id(&dead[0]))).await;
    assert_eq!((&shown["kind"], &shown["route"]), (&json!("callback"), &json!("stripe-forward")), "{shown}");
    assert_eq!(shown["work"]["tries"][0]["status"], 500, "{shown}");

    let discard = format!("/admin/dead-letters/{}/discard", id(&dead[3]));
    let (status, error) = server.post(&discard, json!({})).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("missing_required_parameter")));
    let (status, discarded) = server.post(&discard, json!({ "reason": "a test's" })).await;
    assert_eq!(
        (status, &discarded["state"], &discarded["resolution"]),
        (200, &json!("discarded"), &json!("a test's"))
    );
    let (status, error) = server.post(&discard, json!({ "reason": "again" })).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("dead_letter_settled")), "{error}");

    consumer.always(Answer::Status(200));
    let mut wanted = json!({
        "filter": { "kind": "callback", "source": "stripe", "route": "stripe-forward", "code": "callback_refused" },
        "limit": 2, "rate": 1, "dry_run": true, "reason": "the consumer is mended",
    });
    let replay = "/admin/dead-letters/replay";
    let (status, would) = server.post(replay, wanted.clone()).await;
    assert_eq!(
        (status, &would["found"], &would["settled"], &would["seconds"]),
        (200, &json!(3), &json!(2), &json!(1))
    );
    assert_eq!(letters(&server, 3).await.len(), 3, "nothing was changed");
    let (_, none) = server.post(replay, json!({ "filter": { "route": "elsewhere" } })).await;
    assert_eq!((&none["found"], &none["replayed"]), (&json!(0), &json!([])));
    for wrong in [json!({}), json!({ "filter": {}, "rate": 0 }), json!({ "filter": { "what": 1 } })] {
        assert_eq!(server.post(replay, wrong.clone()).await.0, 400, "{wrong}");
    }

    wanted["dry_run"] = json!(false);
    let asked = jiff::Timestamp::now();
    let (status, replayed) = server.post(replay, wanted).await;
    assert_eq!((status, replayed["replayed"].as_array().map(Vec::len)), (200, Some(2)), "{replayed}");
    let last: jiff::Timestamp = replayed["last_due_at"].as_str().unwrap().parse().unwrap();
    assert!(last.duration_since(asked).as_millis() >= 1_000, "one a second: {replayed}");
    eventually("both callbacks", SOON, async || consumer.accepted().len() == 2).await;
    assert!(jiff::Timestamp::now() >= last, "the second not before its time");

    let left = letters(&server, 1).await;
    let one = format!("/admin/dead-letters/{}/replay", id(&left[0]));
    let (status, one_back) = server.post(&one, json!({ "reason": "too" })).await;
    assert_eq!((status, &one_back["state"]), (200, &json!("replayed")), "{one_back}");
    eventually("the last callback", SOON, async || consumer.accepted().len() == 3).await;
    assert_eq!(server.post(&one, json!({})).await.0, 409);
    assert_eq!(letters(&server, 0).await.len(), 0);
    assert_eq!(list(&server, "/admin/dead-letters?state=*").await.len(), 4);
    assert_eq!(audited(&database, "dead_letter.replay").await, 3);
    assert_eq!(audited(&database, "dead_letter.discarded").await, 1);
}

#[tokio::test]
async fn a_message_is_put_back_by_a_server_and_what_cannot_be_read_stays() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let app = FunctionApp::of(&database, &storage).hurried().start().await;
    let server = Server::of(&database, &storage).start().await;
    let poison = format!("{}-poison", storage.jobs);
    storage.put(&poison, "v9 of a later version").await;
    let dead = letters(&server, 1).await;
    assert_eq!(dead[0]["kind"], "message");
    let (status, error) =
        server.post(&format!("/admin/dead-letters/{}/replay", id(&dead[0])), json!({})).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("message_unreadable")), "{error}");
    let (_, many) = server.post("/admin/dead-letters/replay", json!({ "filter": {} })).await;
    assert_eq!(many["unreadable"][0]["id"], dead[0]["id"], "{many}");
    assert_eq!(letters(&server, 1).await.len(), 1);
    // As a version that can read it would have it.
    let readable = format!("v1 {{\"id\":\"job_{}\"}}", uuid::Uuid::now_v7());
    let rewrite = format!("UPDATE dead_letters SET message = '{readable}'");
    database.client().await.execute(&rewrite, &[]).await.expect("rewritten");
    let (_, many) =
        server.post("/admin/dead-letters/replay", json!({ "filter": { "queue": storage.jobs } })).await;
    assert_eq!(many["replayed"], json!([dead[0]["id"]]), "{many}");
    eventually("the queue to be empty", SOON, async || storage.is_empty().await).await;
    drop(app);
}

#[tokio::test]
async fn events_and_their_work_are_listed_shown_and_run_again() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    let server = Server::of(&database, &storage).start().await;
    for n in 0..3 {
        deliver(&app, &format!("evt_{n}")).await;
    }
    eventually("the callbacks", SOON, async || consumer.accepted().len() == 3).await;
    eventually("all work to be done", SOON, async || {
        let done = "SELECT (SELECT count(*) FROM jobs WHERE state = 'succeeded')
                    + (SELECT count(*) FROM callbacks WHERE state = 'delivered')";
        database.count(done).await == 6
    })
    .await;
    let all = list(&server, "/admin/events?source=stripe&type=invoice.*&state=processed").await;
    assert_eq!(all.len(), 3);
    let (_, first) = server.read("/admin/events?limit=2").await;
    assert_eq!((&first["has_more"], &first["last_id"]), (&json!(true), &all[1]["id"]));
    let rest = list(&server, &format!("/admin/events?limit=2&after={}", id(&all[1]))).await;
    assert_eq!(rest.iter().map(id).collect::<Vec<_>>(), [id(&all[2])]);
    assert_eq!(list(&server, "/admin/events?source=github").await, Vec::<Value>::new());
    assert_eq!(list(&server, "/admin/events?before=2020-01-01T00:00:00Z").await, Vec::<Value>::new());
    for wrong in [
        "/admin/events?state=lost",
        "/admin/events?since=yesterday",
        "/admin/events?what=1",
        "/admin/jobs?state=x",
    ] {
        assert_eq!(server.read(wrong).await.0, 400, "{wrong}");
    }

    let event = format!("/admin/events/{}", id(&all[0]));
    let (_, shown) = server.read(&event).await;
    assert_eq!((&shown["run"], shown["work"].as_array().map(Vec::len)), (&json!(1), Some(2)), "{shown}");
    assert_eq!(shown["payload"], Value::Null, "only if asked for");
    let (_, shown) = server.read(&format!("{event}?payload=true")).await;
    assert_eq!(shown["payload"]["type"], "invoice.paid");
    let (status, would) = server.post(&format!("{event}/replay"), json!({ "dry_run": true })).await;
    assert_eq!(
        (status, &would["run"], &would["jobs"], &would["callbacks"]),
        (200, &json!(2), &json!(1), &json!(1))
    );
    assert_eq!(audited(&database, "event.replay").await, 0);
    let (status, again) = server.post(&format!("{event}/replay"), json!({ "reason": "a test" })).await;
    assert_eq!((status, &again["run"]), (200, &json!(2)), "{again}");
    eventually("its callback once more", SOON, async || consumer.accepted().len() == 4).await;
    assert_eq!(consumer.ids().len(), 3, "under its id of before");
    assert_eq!(audited(&database, "event.replay").await, 1);

    let jobs = list(&server, &format!("/admin/jobs?event={}&kind=count-event", id(&all[0]))).await;
    assert_eq!(jobs.len(), 2, "one a run");
    let (_, job) = server.read(&format!("/admin/jobs/{}", id(&jobs[0]))).await;
    assert_eq!((&job["event"], &job["route"]), (&all[0]["id"], &json!("stripe-count")), "{job}");
    let sent = list(&server, "/admin/callbacks?target=consumer&state=delivered&limit=100").await;
    let (_, callback) = server.read(&format!("/admin/callbacks/{}", id(&sent[0]))).await;
    assert_eq!(callback["tries"][0]["status"], 200, "{callback}");
    for nothing in
        ["/admin/events/evt_1", "/admin/jobs/job_1", "/admin/callbacks/cb_1", "/admin/dead-letters/dl_1"]
    {
        assert_eq!(server.read(nothing).await.0, 404, "{nothing}");
    }
    let by_command = app.json(&["jobs", "list", "--event", id(&all[0]), "--json"]).await;
    assert_eq!(by_command.as_array().map(Vec::len), Some(2));
    let mut by_command = app.json(&["jobs", "show", id(&jobs[0]), "--json"]).await;
    assert_eq!(job["awaits"], "nothing", "{job}");
    assert!(by_command["age_seconds"].as_i64() >= job["age_seconds"].as_i64(), "{by_command}");
    by_command["age_seconds"] = job["age_seconds"].clone();
    assert_eq!(by_command, job, "the same by command");
}

#[tokio::test]
async fn a_disabled_target_is_shown_and_enabled() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(410));
    let app = FunctionApp::of(&database, &storage).hurried().consumer(&consumer).start().await;
    let server = Server::of(&database, &storage).start().await;
    deliver(&app, "evt_1").await;
    eventually("the target to be disabled", SOON, async || {
        list(&server, "/admin/targets").await[0]["state"] == "disabled"
    })
    .await;
    consumer.always(Answer::Status(200));
    let enable = "/admin/targets/consumer/enable";
    assert_eq!(server.post("/admin/targets/nobody/enable", json!({})).await.0, 404);
    let (status, enabled) = server.post(enable, json!({ "reason": "it is back" })).await;
    let told = |was_disabled| json!({ "target": "consumer", "enabled": true, "was_disabled": was_disabled });
    assert_eq!((status, enabled), (200, told(true)));
    let (_, again) = server.post(enable, json!({})).await;
    assert_eq!(again, told(false));
    eventually("the callback", SOON, async || consumer.accepted().len() == 1).await;
    assert_eq!(audited(&database, "callback_target.enable").await, 1);
}
