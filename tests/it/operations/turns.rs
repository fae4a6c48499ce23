//! Turns that run or wait, budgets and usage: as requests and as commands.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use super::{audited, delete, id, list, put};
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

async fn begin(server: &Server, key: &str) -> String {
    let request = json!({ "model": "demo", "input": "/slow 1 Tell me a story.", "background": true });
    let (status, turn) = server.call(Method::POST, "/v1/responses", Some(request), key).await;
    assert_eq!(status, 200, "{turn}");
    id(&turn).to_owned()
}

#[tokio::test]
async fn live_turns_are_seen_on_every_instance_and_stopped_by_request_or_command() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = || Server::of(&database, &storage).hurried().set("SWITCH_CACHE", "200ms").start();
    let (first, second) = (server().await, server().await);
    let (one, other) = (begin(&first, API_KEY).await, begin(&first, OTHER_KEY).await);
    assert_eq!(first.call(Method::GET, "/admin/turns", None, OTHER_KEY).await.0, 403);
    let mut seen = Vec::new();
    eventually("both turns to have said something", SOON, async || {
        seen = list(&second, "/admin/turns?order=asc").await;
        seen.len() == 2 && seen.iter().all(|turn| turn["logged_bytes"].as_i64() > Some(0))
    })
    .await;
    assert_eq!((id(&seen[0]), &seen[0]["owner"]), (&*one, &json!("tester")));
    assert_eq!(seen[0]["here"], Value::Null, "it runs elsewhere");
    assert!(seen[0]["holder"].is_string() && seen[0]["lease_until"].is_string(), "{}", seen[0]);
    let (_, there) = first.read("/admin/turns?owner=somebody-else").await;
    let turn = &there["data"][0];
    assert_eq!(
        (id(turn), &turn["holder"], there["data"].as_array().unwrap().len()),
        (&*other, &there["instance"], 1)
    );
    assert_eq!(turn["here"]["awaits"], "model", "{turn}");

    let (status, cancelled) =
        second.post(&format!("/admin/turns/{other}/cancel"), json!({ "reason": "too long" })).await;
    assert_eq!((status, &cancelled["state"]), (200, &json!("cancelled")), "{cancelled}");
    assert_eq!(audited(&database, "response.cancel").await, 1);
    let by_command = second.json(&["audit", "list", "--action", "response", "--since", "1h", "--json"]);
    assert_eq!((&by_command[0]["subject"], by_command.as_array().map(Vec::len)), (&json!(other), Some(1)));
    let others = second.json(&["audit", "list", "--subject", "nothing", "--json"]);
    assert_eq!(others, json!([]));
    assert_eq!(second.post("/admin/turns/resp_1/cancel", json!({})).await.0, 404);
    assert_eq!(turn["awaits"], "its attempt", "{turn}");
    let listed = second.json(&["turns", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().iter().map(id).collect::<Vec<_>>(), [&*one]);
    assert!(!second.command(&["turns", "cancel", &one]).status.success(), "nobody can be asked");
    second.json(&["turns", "cancel", &one, "--yes", "--reason", "too long", "--json"]);
    eventually("no turn to be left", SOON, async || list(&second, "/admin/turns").await.is_empty()).await;
    let (_, ended) = first.read(&format!("/v1/responses/{one}")).await;
    assert_eq!(ended["status"], "cancelled", "{ended}");
    assert!(!second.command(&["turns", "cancel", &one, "--yes"]).status.success(), "it has ended");
    let (status, refused) = second.post(&format!("/admin/turns/{one}/cancel"), json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("turn_ended")), "{refused}");
    assert_eq!(audited(&database, "response.cancel").await, 1, "what was not done is not written down");

    // What waits for an operator waits in the queue, and a cancel ends it all the same.
    let waiting = json!({ "stop": "hold", "reason": "a test" });
    let held = begin(&first, API_KEY).await;
    let put_off = format!(
        "UPDATE responses SET state = 'queued', epoch = epoch + 1, holder = '{}', lease_until = 'infinity', \
         due_at = now() WHERE id = '{}'",
        uuid::Uuid::nil(),
        held.trim_start_matches("resp_")
    );
    assert_eq!(put(&first, "/admin/switches/model/demo", waiting).await.0, 200);
    for server in [&first, &second] {
        eventually("the switch to be in force", SOON, async || {
            let asked = json!({ "model": "demo", "input": "Hello.", "store": false });
            server.post("/v1/responses", asked).await.0 == 503
        })
        .await;
    }
    database.client().await.execute(&put_off, &[]).await.expect("put off");
    eventually("its process to let go", SOON, async || {
        let turn = &list(&first, "/admin/turns").await[0];
        turn["state"] == "queued" && turn["here"] == Value::Null
    })
    .await;
    let (_, cancelled) = second.post(&format!("/admin/turns/{held}/cancel"), json!({})).await;
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    assert_eq!(delete(&first, "/admin/switches/model/demo", json!({})).await.0, 200);
}

#[tokio::test]
async fn budgets_and_usage_are_told_of_everybody() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = "[deployments.demo]\nprovider = \"demo\"\nprice = { input = \"1\", output = \"2\" }\n\
                  [models.demo]\ndeployments = [\"demo\"]\n\
                  [budgets]\neach_owner = 5\n[budgets.owners.tester]\nper_day = \"2.50\"\n";
    let server = Server::of(&database, &storage).config(config).set("SPEND_HEARTBEAT", "200ms").start().await;
    for key in [API_KEY, OTHER_KEY] {
        let asked = json!({ "model": "demo", "input": "Hello." });
        assert_eq!(server.call(Method::POST, "/v1/responses", Some(asked), key).await.0, 200);
    }
    let mut budgets = Value::Null;
    eventually("both owners' budgets to be drawn from", SOON, async || {
        budgets = server.read("/admin/budgets?scope=owner").await.1;
        let spent = |budget: &Value| budget["spent_micros"].as_i64() > Some(0);
        budgets["data"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(spent))
    })
    .await;
    assert_eq!(budgets["configured"]["owners_micros"], json!({ "tester": 2_500_000 }));
    assert_eq!(budgets["configured"]["each_owner_micros"], 5_000_000);
    let (_, one) = server.read("/admin/budgets?subject=tester").await;
    assert_eq!(
        (&one["data"][0]["limit_micros"], one["data"].as_array().unwrap().len()),
        (&json!(2_500_000), 1)
    );
    let days = list(&server, "/admin/usage").await;
    let owners: Vec<&str> = days.iter().map(|day| day["owner"].as_str().unwrap()).collect();
    assert_eq!(owners, ["somebody-else", "tester"]);
    assert_eq!(list(&server, "/admin/usage?api_key=test&model=demo").await.len(), 1);
    assert_eq!(list(&server, "/admin/usage?model=large").await.len(), 0);
    for wrong in ["/admin/usage?when=now", "/admin/budgets?scope=planet", "/admin/budgets?day=today"] {
        assert_eq!(server.read(wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(server.json(&["usage", "--owner", "tester", "--json"]).as_array().unwrap().len(), 1);
    assert_eq!(server.json(&["budgets", "list", "--json"]).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_many_budgets_the_total_comes_first_and_what_is_left_out_is_said() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let rows = "
        INSERT INTO budgets (scope, subject, day, limit_micros)
        SELECT 'key', 'key-' || to_char(n, 'FM0000'), '2026-01-31', 1000 FROM generate_series(1, 1100) AS n
        UNION ALL VALUES ('owner', 'ann', '2026-01-31'::date, 7), ('owner', 'a/b', '2026-01-31', 7), ('total', '', '2026-01-31', 9);
        INSERT INTO usage_days (owner, day, model, deployment, provider, api_key, attempts, turns, input_tokens,
            cached_tokens, cache_written_tokens, output_tokens, reasoning_tokens, cost_micros, estimated_cost_micros,
            estimated_attempts)
        SELECT 'o-' || n, '2026-01-31'::date, 'm', 'd', 'p', 'k', 1, 1, 1, 0, 0, 1, 0, 1, 0, 0 FROM generate_series(1, 10001) AS n
        UNION ALL SELECT 'rare', '2026-01-01'::date, 'm2', 'd', 'p', 'k2', 1, 1, 1, 0, 0, 1, 0, 1, 0, 0";
    database.client().await.batch_execute(rows).await.expect("budgets");
    let budgets = async |query: &str| {
        let (status, answer) = server.read(&format!("/admin/budgets?day=2026-01-31{query}")).await;
        assert_eq!(status, 200, "{query}: {answer}");
        let of = |budget: &Value| {
            format!("{}/{}", budget["scope"].as_str().unwrap(), budget["subject"].as_str().unwrap())
        };
        let names: Vec<String> = answer["data"].as_array().unwrap().iter().map(of).collect();
        assert_eq!(answer["last_id"].as_str(), names.last().map(String::as_str));
        (names, answer["has_more"] == true)
    };
    let (first, more) = budgets("").await;
    assert_eq!(
        (first.len(), more, &first[..3]),
        (1_000, true, &["total/", "owner/a/b", "owner/ann"].map(str::to_owned)[..])
    );
    let (rest, more) = budgets(&format!("&after={}", first.last().unwrap())).await;
    assert_eq!((rest.len(), more, rest.last().map(String::as_str)), (103, false, Some("key/key-1100")));
    for (query, names, more) in [
        ("&limit=1", &["total/"][..], true),
        ("&limit=1&after=total/", &["owner/a/b"], true),
        ("&scope=owner&after=owner/a/b", &["owner/ann"], false),
        ("&scope=total", &["total/"], false),
        ("&subject=key-1100", &["key/key-1100"], false),
        ("&scope=owner&subject=key-1100", &[], false),
    ] {
        assert_eq!(
            budgets(query).await,
            (names.iter().map(|&name| name.to_owned()).collect(), more),
            "{query}"
        );
    }
    for wrong in ["&limit=1001", "&limit=0", "&after=ann", "&after=planet/x"] {
        assert_eq!(server.read(&format!("/admin/budgets?day=2026-01-31{wrong}")).await.0, 400, "{wrong}");
    }
    let day = ["budgets", "list", "--day", "2026-01-31"];
    let total = server.json(&[&day[..], &["--scope", "total", "--json"]].concat());
    assert_eq!((&total[0]["limit_micros"], total.as_array().unwrap().len()), (&json!(9), 1));
    let one = server.json(&[&day[..], &["--subject", "key-1100", "--json"]].concat());
    assert_eq!(one.as_array().unwrap().len(), 1);
    let cut = server.command(&[&day[..], &["--limit", "2"]].concat());
    let (told, noted) = (String::from_utf8_lossy(&cut.stdout), String::from_utf8_lossy(&cut.stderr));
    assert!(
        told.contains("total") && told.contains("0.000009") && told.contains("Limits of colloquy.toml"),
        "{told}"
    );
    assert!(noted.contains("more than 2"), "{noted}");

    let usage = async |query: &str| {
        let (_, answer) = server.read(&format!("/admin/usage?from=2026-01-01&to=2026-01-31{query}")).await;
        (answer["data"].as_array().map_or(0, Vec::len), answer["has_more"] == true)
    };
    assert_eq!(usage("").await, (10_000, true));
    let (_, first) = server.read("/admin/usage?from=2026-01-01&to=2026-01-31").await;
    assert_eq!(usage(&format!("&after={}", first["last_id"].as_str().unwrap())).await, (2, false));
    for query in ["&owner=rare", "&api_key=k2", "&model=m2"] {
        assert_eq!(usage(query).await, (1, false), "{query}");
    }
    // What is no place in the list: no base64, no row, one whose day or name no row has.
    let forged = |row: Value| BASE64_URL_SAFE_NO_PAD.encode(row.to_string());
    for after in [
        "ann".to_owned(),
        forged(json!({})),
        forged(json!(["2026-01-31", "o", "m", "d", "p"])),
        forged(json!(["-009999-01-01", "o", "m", "d", "p", null])),
        forged(json!(["2026-01-31", "o\0", "m", "d", "p", null])),
        forged(json!(["2026-01-31", "o", "m", "d", "p", "k\0"])),
    ] {
        let (status, error) = server.read(&format!("/v1/usage?after={after}")).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!("after")), "{after}: {error}");
    }
    for wrong in ["limit=0", "limit=10001", "order=up"] {
        assert_eq!(server.read(&format!("/v1/usage?{wrong}")).await.0, 400, "{wrong}");
    }
    let command = ["usage", "--from", "2026-01-01", "--to", "2026-01-31", "--json"];
    for filter in [["--owner", "rare"], ["--key", "k2"], ["--model", "m2"]] {
        assert_eq!(server.json(&[&command[..], &filter].concat()).as_array().unwrap().len(), 1, "{filter:?}");
    }
    let cut = server.command(&[&command[..], &["--limit", "2"]].concat());
    assert!(String::from_utf8_lossy(&cut.stderr).contains("more than 2"), "what is left out is said");
}
