//! Keys made at run time, by request and by command.

use http::Method;
use serde_json::{Value, json};

use super::{make, two};
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{SOON, TestDatabase, TestStorage, eventually};

#[tokio::test]
async fn operators_alone_come_to_admin_by_request_or_command() {
    let (_database, first, second) = two().await;
    for path in ["/admin/keys", "/admin/keys/key_1", "/admin/nothing"] {
        let (status, error) = first.call(Method::GET, path, None, OTHER_KEY).await;
        assert_eq!((status, &error["error"]["code"]), (403, &json!("insufficient_permissions")), "{path}");
        let (status, error) = first.call(Method::GET, path, None, "clq_wrong").await;
        assert_eq!((status, &error["error"]["code"]), (401, &json!("invalid_api_key")), "{path}");
    }
    let (status, none) = first.call(Method::GET, "/admin/keys", None, API_KEY).await;
    let empty = json!({ "object": "list", "data": [], "has_more": false, "first_id": null, "last_id": null });
    assert_eq!((status, none), (200, empty));
    assert_eq!(second.json(&["keys", "list", "--json"]), json!([]));
    assert_eq!(first.read("/admin/nothing").await.0, 404);
    let help = second.command(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("serve") && help.contains("keys"), "{help}");
}

async fn works(server: &Server, key: &str) -> bool {
    let (status, body) = server.call(Method::GET, "/v1/models", None, key).await;
    assert!(status == 200 || status == 401, "{status} {body}");
    status == 200
}

/// Within what API_KEY_CACHE promises and a little, on every instance.
async fn stops(servers: [&Server; 2], key: &str) {
    let started = std::time::Instant::now();
    for server in servers {
        eventually("the key to stop", SOON, async || !works(server, key).await).await;
    }
    assert!(started.elapsed().as_millis() < 2_500, "a second was promised: {:?}", started.elapsed());
}

#[tokio::test]
async fn a_key_works_on_every_instance_until_it_is_ended_and_no_longer() {
    let (database, first, second) = two().await;
    let (id, key) = make(&first, json!({ "name": "laptop", "owner": "ada" })).await;
    assert!(key.starts_with("clq_") && key.len() == 4 + 43, "256 bits: {}", key.len());
    for server in [&first, &second] {
        assert!(works(server, &key).await);
        assert_eq!(server.call(Method::GET, "/admin/keys", None, &key).await.0, 403, "it is no operator's");
    }
    let (_, shown) = second.read(&format!("/admin/keys/{id}")).await;
    assert_eq!(
        (&shown["object"], &shown["owner"], &shown["key"]),
        (&json!("api_key"), &json!("ada"), &Value::Null)
    );
    assert!(!shown.to_string().contains(&key[4..]), "it is told once");
    let (status, ended) = second.post(&format!("/admin/keys/{id}/expire"), json!({ "reason": "lost" })).await;
    assert_eq!(status, 200, "{ended}");
    assert!(ended["revoked_at"].is_string(), "{ended}");
    stops([&first, &second], &key).await;
    let (status, error) = first.post(&format!("/admin/keys/{id}/expire"), json!({})).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("key_revoked")));
    let audited = format!(
        "SELECT count(*) FROM api_audit WHERE subject = '{id}' AND actor = 'tester (test)' \
         AND (action = 'key.create' OR action = 'key.revoke' AND detail->>'reason' = 'lost')"
    );
    assert_eq!(database.count(&audited).await, 2);

    // The same by an instant that comes.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let (id, key) = make(&first, json!({ "name": "laptop", "owner": "ada" })).await;
    assert!(works(&first, &key).await && works(&second, &key).await);
    let (_, ending) = first.post(&format!("/admin/keys/{id}/expire"), json!({ "at": soon })).await;
    assert_eq!((&ending["revoked_at"], ending["expires_at"].is_string()), (&Value::Null, true), "{ending}");
    assert!(works(&second, &key).await, "not yet");
    eventually("the instant to come", SOON, async || jiff::Timestamp::now() >= soon).await;
    stops([&first, &second], &key).await;
}

#[tokio::test]
async fn a_rotated_key_and_its_successor_overlap() {
    let (_database, first, second) = two().await;
    let limits = json!({ "requests_per_minute": 500, "budget_micros_per_day": 7 });
    let wanted = json!({ "name": "crm", "owner": "ada", "scopes": ["operator"], "limits": limits });
    let (id, old) = make(&first, wanted).await;
    assert!(works(&second, &old).await);
    let path = format!("/admin/keys/{id}/rotate");
    let (status, rotated) = first.post(&path, json!({ "overlap": "2s" })).await;
    assert_eq!(status, 200, "{rotated}");
    let new = rotated["key"].as_str().unwrap();
    for field in ["name", "owner", "scopes", "limits"] {
        assert_eq!(rotated[field], rotated["replaces"][field], "{field}");
    }
    assert_eq!((&rotated["limits"], &rotated["expires_at"]), (&limits, &Value::Null));
    for server in [&first, &second] {
        assert!(works(server, &old).await && works(server, new).await, "both, for the overlap");
    }
    let ends: jiff::Timestamp = rotated["replaces"]["expires_at"].as_str().unwrap().parse().unwrap();
    eventually("the overlap to end", SOON, async || jiff::Timestamp::now() >= ends).await;
    stops([&first, &second], &old).await;
    assert!(works(&first, new).await);
    let (status, error) = second.post(&path, json!({})).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("key_rotated")), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains(rotated["id"].as_str().unwrap()));
    // A day is what the setting says.
    let path = format!("/admin/keys/{}/rotate", rotated["id"].as_str().unwrap());
    let (_, again) = second.post(&path, json!({})).await;
    let ends: jiff::Timestamp = again["replaces"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(ends.duration_since(jiff::Timestamp::now()).as_hours(), 23, "{again}");
}

#[tokio::test]
async fn keys_are_listed_in_pages_and_what_is_no_key_is_refused() {
    let (_database, first, _second) = two().await;
    let mut made = Vec::new();
    for (number, owner) in ["ada", "bob", "ada"].into_iter().enumerate() {
        made.push(make(&first, json!({ "name": format!("key {number}"), "owner": owner })).await.0);
    }
    let ids = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
    };
    let (_, page) = first.read("/admin/keys?limit=2").await;
    assert_eq!((ids(&page), &page["has_more"]), (vec![made[2].clone(), made[1].clone()], &json!(true)));
    let (_, page) =
        first.read(&format!("/admin/keys?limit=2&after={}", page["last_id"].as_str().unwrap())).await;
    assert_eq!((ids(&page), &page["has_more"]), (vec![made[0].clone()], &json!(false)));
    let (_, hers) = first.read("/admin/keys?owner=ada&order=asc").await;
    assert_eq!(ids(&hers), [made[0].clone(), made[2].clone()]);

    let good = json!({ "name": "n", "owner": "o" });
    for (field, value) in [
        ("name", json!("")),
        ("owner", json!("a\u{0}b")),
        ("name", json!("n".repeat(257))),
        ("scopes", json!(["root"])),
        ("limits", json!({ "requests": 1 })),
        ("expires_at", json!("2020-01-01T00:00:00Z")),
        ("expires_at", json!("tomorrow")),
        ("key", json!("clq_chosen_by_me")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (status, error) = first.post("/admin/keys", body).await;
        assert_eq!(status, 400, "{error}");
        assert!(error["error"]["param"].as_str().unwrap().starts_with(field), "{error}");
    }
    let path = format!("/admin/keys/{}", made[0]);
    let (status, error) = first.post(&format!("{path}/rotate"), json!({ "overlap": "a day" })).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("overlap")));
    for (path, body) in [("/admin/keys/key_1", None), ("/admin/keys/key_1/expire", Some(json!({})))] {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        assert_eq!(first.call(method, path, body, API_KEY).await.0, 404, "{path}");
    }
    assert_eq!(first.call(Method::DELETE, &path, None, API_KEY).await.0, 405);
}

#[tokio::test]
async fn commands_do_the_same_and_change_nothing_unasked() {
    let (database, first, second) = two().await;
    let create = [
        "keys",
        "create",
        "--name",
        "ci",
        "--owner",
        "ada",
        "--expires-in",
        "90d",
        "--concurrent-turns",
        "3",
    ];
    let refused = first.command(&create);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--yes") && said.contains("`ci`"), "{said}");
    assert_eq!(database.count("SELECT count(*) FROM api_keys").await, 0);

    let made = first.json(&[&create[..], &["--yes", "--json", "--reason", "a pipeline"]].concat());
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(works(&second, key).await);
    assert_eq!(
        (&made["created_by"], &made["limits"]),
        (&json!("command:ops"), &json!({ "concurrent_turns": 3 }))
    );
    assert_eq!(second.json(&["keys", "list", "--json"])[0]["id"], id);
    let shown = first.command(&["keys", "show", id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("ada") && shown.contains("turns at once") && !shown.contains(&key[4..]),
        "{shown}"
    );

    let rotated = first.json(&["keys", "rotate", id, "--overlap", "1h", "--yes", "--json"]);
    let new = rotated["key"].as_str().unwrap();
    assert!(works(&second, new).await && works(&second, key).await);
    let again = first.command(&["keys", "rotate", id, "--yes"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains(rotated["id"].as_str().unwrap()), "{said}");

    let ended = first.command(&["keys", "expire", rotated["id"].as_str().unwrap(), "--yes"]);
    assert!(ended.status.success() && String::from_utf8_lossy(&ended.stdout).contains("revoked"));
    stops([&first, &second], new).await;
    let table = first.command(&["keys", "list"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("OWNER") && table.contains("revoked") && table.contains("ends in"), "{table}");
    let audited = "SELECT count(*) FROM api_audit WHERE actor = 'command:ops' AND action LIKE 'key.%'";
    assert_eq!(database.count(audited).await, 3);
    let unknown = first.command(&["keys", "expire", "key_019ab1c2-0000-7000-8000-000000000000", "--yes"]);
    assert!(!unknown.status.success());
}

#[tokio::test]
async fn a_revoked_key_asks_for_no_further_turn_on_a_socket_it_opened() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let (_database, first, second) = two().await;
    let (id, key) = make(&first, json!({ "name": "browser", "owner": "ada" })).await;
    let mut request = first.url("/v1/responses").replacen("http", "ws", 1).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let ask =
        json!({ "type": "response.create", "model": "demo", "input": "Say hi in 1 words.", "store": false });
    let mut asked = async || {
        socket.send(Message::text(ask.to_string())).await.unwrap();
        loop {
            let message = tokio::time::timeout(SOON, socket.next()).await.expect("a message");
            match message.expect("an end with words").unwrap() {
                Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    if event["type"] == "response.completed" || event["type"] == "error" {
                        break event;
                    }
                }
                Message::Close(frame) => panic!("{frame:?}"),
                _ => {}
            }
        }
    };
    assert_eq!(asked().await["type"], "response.completed");
    second.post(&format!("/admin/keys/{id}/expire"), json!({})).await;
    stops([&first, &second], &key).await;
    let refused = asked().await;
    assert_eq!(
        (&refused["status"], &refused["error"]["code"]),
        (&json!(401), &json!("invalid_api_key")),
        "{refused}"
    );
    let end = tokio::time::timeout(SOON, socket.next()).await.expect("an end");
    assert!(matches!(end, Some(Ok(Message::Close(Some(_))))), "{end:?}");
}

#[tokio::test]
async fn a_key_is_made_only_with_callbacks_that_colloquy_toml_knows_and_all_of_it_is_said_before() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let config = "[deployments.demo]\nprovider = \"demo\"\n[models.demo]\ndeployments = [\"demo\"]\n\
                  [targets.crm]\nurl = \"https://crm.example/hooks/\"\nprefix = true\n";
    let secret = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw";
    let server =
        Server::of(&database, &storage).config(config).set("CALLBACK_SECRET_CRM", secret).start().await;
    let imds = "http://169.254.169.254/metadata";
    for (limits, flags, param, words) in [
        (
            json!({ "callback": "nosuch" }),
            ["--callback", "nosuch"],
            "limits.callback",
            "\"nosuch\", which colloquy.toml has not",
        ),
        (
            json!({ "callback_targets": ["crm", "nosuch2"] }),
            ["--callback-target", "nosuch2"],
            "limits.callback_targets",
            "\"nosuch2\", which colloquy.toml has not",
        ),
        (
            json!({ "callback": imds }),
            ["--callback", imds],
            "limits.callback",
            "URL that no target of colloquy.toml covers",
        ),
    ] {
        let (status, error) =
            server.post("/admin/keys", json!({ "name": "k", "owner": "ada", "limits": limits })).await;
        let error = &error["error"];
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(words) && !message.contains("169.254"), "{message}");
        let create = ["keys", "create", "--name", "k", "--owner", "ada", "--yes"];
        let refused = server.command(&[&create[..], &flags].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(words), "{said}");
    }
    assert_eq!(database.count("SELECT count(*) FROM api_keys").await, 0);

    let create = [
        "keys",
        "create",
        "--name",
        "k",
        "--owner",
        "ada",
        "--scope",
        "operator",
        "--requests-per-minute",
        "11",
        "--tokens-per-minute",
        "12",
        "--concurrent-turns",
        "13",
        "--budget-micros-per-day",
        "14",
        "--callback",
        "https://crm.example/hooks/a",
        "--callback-target",
        "crm",
        "--expires-at",
        "2099-01-02T03:04:05Z",
    ];
    let told = [
        "requests/min 11",
        "tokens/min 12",
        "turns at once 13",
        "micros/day 14",
        "callback https://crm.example/hooks/a",
        "targets crm",
        "2099-01-02T03:04:05Z",
        "operator",
    ];
    let asked = server.command(&create);
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success(), "nobody can be asked");
    for word in told {
        assert!(said.contains(word), "{word}: {said}");
    }
    let made = server.json(&[&create[..], &["--yes", "--json"]].concat());
    let shown = server.command(&["keys", "show", made["id"].as_str().unwrap()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in ["https://crm.example/hooks/a", "targets        crm", "micros/day     14"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[tokio::test]
async fn a_key_whose_callback_colloquy_toml_no_longer_knows_gets_no_successor() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let demo = "[deployments.demo]\nprovider = \"demo\"\n[models.demo]\ndeployments = [\"demo\"]\n";
    let target = "[targets.crm]\nurl = \"https://crm.example/hooks/\"\nprefix = true\n";
    let secret = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw";
    let knowing = Server::of(&database, &storage).config(format!("{demo}{target}"));
    let knowing = knowing.set("CALLBACK_SECRET_CRM", secret).start().await;
    let later = Server::of(&database, &storage).config(demo).start().await;
    for (field, limits) in [
        ("callback", json!({ "callback": "https://crm.example/hooks/secret" })),
        ("callback_targets", json!({ "callback_targets": ["crm"] })),
    ] {
        let (id, _) = make(&knowing, json!({ "name": "k", "owner": "ada", "limits": limits })).await;
        let (status, error) = later.post(&format!("/admin/keys/{id}/rotate"), json!({})).await;
        assert_eq!((status, &error["error"]["code"]), (409, &json!("key_callback_unknown")), "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(field) && !message.contains("secret"), "{message}");
        let refused = later.command(&["keys", "rotate", &id, "--yes"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(field), "{said}");
        assert_eq!(database.count("SELECT count(*) FROM api_keys WHERE replaced_by IS NOT NULL").await, 0);
        let (status, rotated) = knowing.post(&format!("/admin/keys/{id}/rotate"), json!({})).await;
        assert_eq!((status, &rotated["limits"]), (200, &limits), "{rotated}");
        // It says what is so, whatever its targets are.
        let (status, error) = later.post(&format!("/admin/keys/{id}/rotate"), json!({})).await;
        assert_eq!((status, &error["error"]["code"]), (409, &json!("key_rotated")), "{error}");
        database.client().await.execute("DELETE FROM api_keys", &[]).await.expect("deleted");
    }
}
