//! What an owner lets others do with a conversation.

use http::Method;
use serde_json::{Value, json};

use super::{id, key_of, make, talk, two};
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{SOON, TestDatabase, eventually};

/// An owner as a token of an issuer names one.
const READER: &str = "https://login.example.com/v2.0|tenant|reader";

/// Two servers; a conversation of ada's with a turn; a reader and a writer who were granted it.
struct Shared {
    database: TestDatabase,
    first: Server,
    second: Server,
    ada: String,
    reader: String,
    writer: String,
    conversation: String,
    turn: String,
}

impl Shared {
    async fn new() -> Self {
        let (database, first, second) = two().await;
        let ada = key_of(&first, "ada").await;
        let (reader, writer) = (key_of(&first, READER).await, key_of(&first, "writer").await);
        let (conversation, turn) = talk(&first, &ada).await;
        let shared = Self { database, first, second, ada, reader, writer, conversation, turn };
        for (grantee, access) in [(READER, "read"), ("writer", "write")] {
            let grant = json!({ "grantee": grantee, "access": access });
            let (status, given) = shared.call(Method::POST, "/grants", Some(grant), &shared.ada).await;
            assert_eq!(status, 200, "{given}");
            assert_eq!((&given["grantee"], &given["access"]), (&json!(grantee), &json!(access)));
        }
        shared
    }

    fn path(&self, suffix: &str) -> String {
        format!("/v1/conversations/{}{suffix}", self.conversation)
    }

    /// On the second server, under the conversation.
    async fn call(&self, method: Method, suffix: &str, body: Option<Value>, key: &str) -> (u16, Value) {
        self.second.call(method, &self.path(suffix), body, key).await
    }

    async fn get(&self, path: &str, key: &str) -> (u16, Value) {
        self.second.call(Method::GET, path, None, key).await
    }

    fn ask(&self, input: &str) -> Value {
        json!({ "model": "demo", "input": input, "conversation": self.conversation })
    }

    async fn revoke(&self, grantee: &str) {
        let encoded: String = url::form_urlencoded::byte_serialize(grantee.as_bytes()).collect();
        let (status, gone) = self.call(Method::DELETE, &format!("/grants/{encoded}"), None, &self.ada).await;
        assert_eq!((status, &gone["deleted"]), (200, &json!(true)), "{gone}");
    }
}

fn text(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"))
}

#[tokio::test]
async fn a_reader_looks_and_forks_until_the_grant_is_taken_back() {
    let shared = Shared::new().await;
    let reader = &shared.reader;
    let (status, seen) = shared.call(Method::GET, "", None, reader).await;
    assert_eq!((status, &seen["owner"], &seen["access"]), (200, &json!("ada"), &json!("read")), "{seen}");
    let (_, own) = shared.call(Method::GET, "", None, &shared.ada).await;
    assert_eq!((&own["owner"], &own["access"]), (&Value::Null, &Value::Null), "{own}");
    let (_, items) = shared.call(Method::GET, "/items", None, reader).await;
    assert_eq!(items["data"].as_array().map(Vec::len), Some(2), "{items}");
    let item = id(&items["data"][0]);
    assert_eq!(shared.call(Method::GET, &format!("/items/{item}"), None, reader).await.1, items["data"][0]);
    let turn = format!("/v1/responses/{}", shared.turn);
    assert_eq!(shared.get(&turn, reader).await, shared.get(&turn, &shared.ada).await);
    let (status, input) = shared.get(&format!("{turn}/input_items"), reader).await;
    assert_eq!((status, input["data"].as_array().map(Vec::len)), (200, Some(1)), "{input}");
    for server in [&shared.first, &shared.second] {
        let url = server.url(&format!("{turn}?stream=true&starting_after=3"));
        let stream = server.client().get(url).bearer_auth(reader).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        let stream = stream.text().await.unwrap();
        assert!(stream.contains("response.completed") && stream.ends_with("data: [DONE]\n\n"), "{stream}");
        assert!(
            !stream.contains(r#""sequence_number":3,"#) && stream.contains(r#""sequence_number":4,"#),
            "{stream}"
        );
    }
    let listed = async |query: &str, key: &str| {
        let (_, page) = shared.get(&format!("/v1/conversations{query}"), key).await;
        page["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(listed("?shared=true", reader).await, std::slice::from_ref(&shared.conversation));
    assert!(listed("", reader).await.is_empty() && listed("?shared=true", &shared.ada).await.is_empty());
    assert!(listed("?shared=true&search=nothing", reader).await.is_empty());

    // What a reader may not is told like what is not there.
    let none = shared.conversation.replace(&shared.conversation[32..], "000000000");
    let item_of = json!({ "items": [{ "role": "user", "content": "me too" }] });
    let grant = json!({ "grantee": "eve", "access": "read" });
    for (method, suffix, body) in [
        (Method::POST, "/items".to_owned(), Some(item_of.clone())),
        (Method::POST, String::new(), Some(json!({ "title": "mine" }))),
        (Method::DELETE, String::new(), None),
        (Method::GET, "/grants".to_owned(), None),
        (Method::POST, "/grants".to_owned(), Some(grant)),
        (Method::DELETE, "/grants/writer".to_owned(), None),
    ] {
        let (status, refused) = shared.call(method.clone(), &suffix, body.clone(), reader).await;
        let path = format!("/v1/conversations/{none}{suffix}");
        let (_, nowhere) = shared.second.call(method.clone(), &path, body, reader).await;
        assert_eq!(status, 404, "{method} {suffix}: {refused}");
        assert_eq!(
            refused.to_string().replace(&shared.conversation, "X"),
            nowhere.to_string().replace(&none, "X")
        );
    }
    let (status, refused) =
        shared.second.call(Method::POST, "/v1/responses", Some(shared.ask("and I?")), reader).await;
    assert_eq!((status, &refused["error"]["param"]), (404, &json!("conversation")), "{refused}");
    for (method, path) in [(Method::DELETE, turn.clone()), (Method::POST, format!("{turn}/cancel"))] {
        assert_eq!(shared.second.call(method, &path, None, reader).await.0, 404, "{path}");
    }
    let follow = json!({ "model": "demo", "input": "and I?", "previous_response_id": shared.turn });
    let (status, refused) = shared.second.call(Method::POST, "/v1/responses", Some(follow), reader).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (400, &json!("previous_response_not_found")),
        "{refused}"
    );

    let (status, fork) = shared.call(Method::POST, "/fork", Some(json!({})), reader).await;
    assert_eq!((status, &fork["access"]), (200, &Value::Null), "{fork}");
    shared.revoke(READER).await;
    for server in [&shared.first, &shared.second] {
        for path in [shared.path(""), shared.path("/items"), turn.clone(), format!("{turn}?stream=true")] {
            assert_eq!(server.call(Method::GET, &path, None, reader).await.0, 404, "{path}");
        }
    }
    assert!(listed("?shared=true", reader).await.is_empty());
    // The fork is the reader's own, and nobody else's.
    let ask = json!({ "model": "demo", "input": "What is my name?", "conversation": fork["id"] });
    let (status, answer) = shared.second.call(Method::POST, "/v1/responses", Some(ask), reader).await;
    assert!(status == 200 && text(&answer).contains("Ada"), "{answer}");
    assert_eq!(shared.get(&format!("/v1/conversations/{}", id(&fork)), &shared.ada).await.0, 404);
    let audited = "SELECT count(*) FROM api_audit WHERE action LIKE 'grant.%' AND actor LIKE 'ada (key_%)'";
    assert_eq!(shared.database.count(audited).await, 3);
}

#[tokio::test]
async fn a_writers_turn_is_the_conversations_and_the_writer_pays() {
    let shared = Shared::new().await;
    let said = json!({ "items": [{ "role": "user", "content": "I collect maps." }] });
    assert_eq!(shared.call(Method::POST, "/items", Some(said), &shared.writer).await.0, 200);
    let ask = shared.ask("What is my name?");
    let (status, answer) = shared.second.call(Method::POST, "/v1/responses", Some(ask), &shared.writer).await;
    assert!(status == 200 && text(&answer).contains("Ada"), "{answer}");
    let turn = format!("/v1/responses/{}", id(&answer));
    for key in [&shared.ada, &shared.reader, &shared.writer] {
        assert_eq!(shared.get(&turn, key).await, (200, answer.clone()), "all who may read see it");
    }
    let (_, items) = shared.call(Method::GET, "/items", None, &shared.ada).await;
    assert_eq!(items["data"].as_array().map(Vec::len), Some(5), "{items}");
    // Each has paid for one turn.
    for key in [&shared.ada, &shared.writer] {
        eventually("the turn to be paid", SOON, async || {
            let (_, usage) = shared.get("/v1/usage", key).await;
            usage["data"].as_array().unwrap().iter().map(|day| day["turns"].as_i64().unwrap()).sum::<i64>()
                == 1
        })
        .await;
    }
    // By the writer's limits, whatever the owner's are.
    let scarce = json!({ "name": "scarce", "owner": "writer", "limits": { "requests_per_minute": 1 } });
    let (_, scarce) = make(&shared.first, scarce).await;
    let statuses = [
        shared.first.call(Method::POST, "/v1/responses", Some(shared.ask("One.")), &scarce).await.0,
        shared.first.call(Method::POST, "/v1/responses", Some(shared.ask("Two.")), &scarce).await.0,
        shared.first.call(Method::POST, "/v1/responses", Some(shared.ask("Three.")), &shared.ada).await.0,
    ];
    assert_eq!(statuses, [200, 429, 200]);
    for (method, path) in
        [(Method::DELETE, turn.clone()), (Method::POST, format!("/v1/responses/{}/cancel", shared.turn))]
    {
        assert_eq!(shared.second.call(method, &path, None, &shared.writer).await.0, 404, "{path}");
    }
    for (method, suffix, body) in [
        (Method::DELETE, "", None),
        (Method::POST, "", Some(json!({ "title": "mine" }))),
        (Method::GET, "/grants", None),
    ] {
        assert_eq!(shared.call(method, suffix, body, &shared.writer).await.0, 404, "{suffix}");
    }
    // What is the conversation's goes with it.
    assert_eq!(shared.call(Method::DELETE, "", None, &shared.ada).await.0, 200);
    assert_eq!(shared.get(&turn, &shared.writer).await.0, 404);
}

#[tokio::test]
async fn a_writers_turn_survives_its_server_and_is_stopped_with_the_grant() {
    let mut shared = Shared::new().await;
    let mut ask = shared.ask("Tell me a story in 40 words.");
    ask["background"] = true.into();
    let (status, running) =
        shared.first.call(Method::POST, "/v1/responses", Some(ask.clone()), &shared.writer).await;
    assert_eq!(status, 200, "{running}");
    let path = format!("/v1/responses/{}", id(&running));
    shared.first.kill();
    eventually("the turn to be run again", SOON * 2, async || {
        shared.get(&path, &shared.reader).await.1["status"] == "completed"
    })
    .await;
    let whose = "SELECT count(*) FROM usage WHERE owner = 'writer'";
    assert!(shared.database.count(whose).await >= 1);
    assert_eq!(
        shared.database.count("SELECT count(*) FROM usage WHERE owner = 'ada'").await,
        1,
        "her own turn"
    );
    shared.first.start_again().await;

    ask["input"] = "Tell me a story in 400 words.".into();
    let (status, running) =
        shared.first.call(Method::POST, "/v1/responses", Some(ask.clone()), &shared.writer).await;
    assert_eq!(status, 200, "{running}");
    let path = format!("/v1/responses/{}", id(&running));
    shared.revoke("writer").await;
    assert_eq!(shared.get(&path, &shared.writer).await.0, 404, "at once");
    eventually("the turn to be stopped", SOON, async || {
        shared.get(&path, &shared.reader).await.1["status"] == "cancelled"
    })
    .await;
    let (status, refused) = shared.first.call(Method::POST, "/v1/responses", Some(ask), &shared.writer).await;
    assert_eq!((status, &refused["error"]["param"]), (404, &json!("conversation")), "{refused}");
}

#[tokio::test]
async fn a_stream_opened_by_a_grant_ends_with_it() {
    let shared = Shared::new().await;
    let mut ask = shared.ask("Tell me a story in 600 words.");
    ask["background"] = true.into();
    let (_, running) = shared.first.call(Method::POST, "/v1/responses", Some(ask), &shared.ada).await;
    let path = format!("/v1/responses/{}", id(&running));
    // On the server that runs it, and on the other, which reads its log.
    let mut streams = Vec::new();
    for server in [&shared.first, &shared.second] {
        let url = server.url(&format!("{path}?stream=true"));
        let mut stream = server.client().get(url).bearer_auth(&shared.reader).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        let mut seen = String::new();
        while !seen.contains("output_text.delta") {
            seen += &String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("more to come"));
        }
        streams.push(stream);
    }
    shared.revoke(READER).await;
    for mut stream in streams {
        let mut rest = String::new();
        let ended = async {
            while let Some(chunk) = stream.chunk().await.unwrap() {
                rest += &String::from_utf8_lossy(&chunk);
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(8), ended).await.expect("an end soon");
        assert!(rest.contains(": the grant was taken back") && !rest.contains("[DONE]"), "{rest}");
    }
    let (_, still) = shared.get(&path, &shared.ada).await;
    assert_eq!(still["status"], "in_progress", "the turn itself goes on");
    shared.second.call(Method::POST, &format!("{path}/cancel"), None, &shared.ada).await;
}

#[tokio::test]
async fn a_summary_of_a_shared_conversation_is_read_by_who_writes_or_forked_it() {
    let shared = Shared::new().await;
    let compacting = |input: &str| {
        let mut ask = shared.ask(input);
        ask["context_management"] = json!([{ "type": "compaction", "compact_threshold": 1000 }]);
        ask
    };
    let long = format!("Remember this: {} and say hello in 3 words.", "blue maps ".repeat(600));
    shared.first.call(Method::POST, "/v1/responses", Some(shared.ask(&long)), &shared.ada).await;
    let ask = compacting("What is my name?");
    let (status, short) = shared.second.call(Method::POST, "/v1/responses", Some(ask), &shared.writer).await;
    assert_eq!((status, &short["output"][0]["type"]), (200, &json!("compaction")), "{short}");
    for (key, server) in [(&shared.ada, &shared.first), (&shared.writer, &shared.second)] {
        let ask = shared.ask("Say bye in 3 words.");
        let (status, next) = server.call(Method::POST, "/v1/responses", Some(ask), key).await;
        assert_eq!(status, 200, "{next}");
        assert!(next["usage"]["input_tokens"].as_u64().unwrap() < 1_000, "the summary is shown: {next}");
    }
    let (_, fork) = shared.call(Method::POST, "/fork", Some(json!({})), &shared.reader).await;
    let ask = json!({ "model": "demo", "input": "Say bye in 3 words.", "conversation": fork["id"] });
    let (status, next) = shared.first.call(Method::POST, "/v1/responses", Some(ask), &shared.reader).await;
    assert_eq!(status, 200, "{next}");
    // Carried by hand it opens for nobody but the owner.
    let carried = json!({ "model": "demo", "store": false, "input": [short["output"][0], { "role": "user", "content": "hi" }] });
    let (status, refused) =
        shared.first.call(Method::POST, "/v1/responses", Some(carried), &shared.reader).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("compaction_unreadable")), "{refused}");
}

#[tokio::test]
async fn owners_manage_grants_and_so_do_operators() {
    let shared = Shared::new().await;
    let (_, listed) = shared.call(Method::GET, "/grants?order=asc", None, &shared.ada).await;
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|grant| &grant["grantee"]).collect();
    assert_eq!(names, [&json!(READER), &json!("writer")], "{listed}");
    assert_eq!((&listed["last_id"], &listed["has_more"]), (&json!("writer"), &json!(false)));
    let change = json!({ "grantee": "writer", "access": "read" });
    assert_eq!(shared.call(Method::POST, "/grants", Some(change), &shared.ada).await.1["access"], "read");
    let (_, seen) = shared.call(Method::GET, "", None, &shared.writer).await;
    assert_eq!(seen["access"], "read");
    for (body, param) in [
        (json!({ "grantee": "ada", "access": "read" }), "grantee"),
        (json!({ "grantee": "", "access": "read" }), "grantee"),
        (json!({ "grantee": "eve", "access": "own" }), "access"),
        (json!({ "grantee": "eve", "access": "read", "until": 1 }), "until"),
    ] {
        let (status, error) = shared.call(Method::POST, "/grants", Some(body), &shared.ada).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
    }
    assert_eq!(shared.call(Method::DELETE, "/grants/eve", None, &shared.ada).await.0, 404);

    let (status, _) = shared.get("/admin/grants", OTHER_KEY).await;
    assert_eq!(status, 403);
    let (_, all) = shared.get("/admin/grants?grantee=writer", API_KEY).await;
    assert_eq!(
        (&all["data"][0]["owner"], &all["data"][0]["access"]),
        (&json!("ada"), &json!("read")),
        "{all}"
    );
    let (_, page) = shared.get("/admin/grants?limit=1&order=asc", API_KEY).await;
    assert_eq!((&page["data"][0]["grantee"], &page["has_more"]), (&json!(READER), &json!(true)));
    let after: String =
        url::form_urlencoded::byte_serialize(page["last_id"].as_str().unwrap().as_bytes()).collect();
    let (_, page) = shared.get(&format!("/admin/grants?limit=1&order=asc&after={after}"), API_KEY).await;
    assert_eq!((&page["data"][0]["grantee"], &page["has_more"]), (&json!("writer"), &json!(false)), "{page}");
    let give =
        json!({ "conversation": shared.conversation, "grantee": "eve", "access": "read", "reason": "asked" });
    assert_eq!(shared.second.post("/admin/grants", give.clone()).await.0, 200);
    let mut own = give;
    own["grantee"] = "ada".into();
    assert_eq!(shared.second.post("/admin/grants", own).await.1["error"]["param"], "grantee");
    let path = format!("/admin/grants/{}/eve", shared.conversation);
    assert_eq!(shared.second.call(Method::DELETE, &path, None, API_KEY).await.0, 200);
    assert_eq!(shared.second.call(Method::DELETE, &path, None, API_KEY).await.0, 404);

    let conversation = shared.conversation.as_str();
    let give = ["grants", "give", conversation, "eve", "--access", "write"];
    assert!(!shared.first.command(&give).status.success(), "nobody was asked");
    assert_eq!(shared.first.json(&[&give[..], &["--yes", "--json"]].concat())["access"], "write");
    let listed = shared.first.json(&["grants", "list", "--grantee", "eve", "--json"]);
    assert_eq!(listed[0]["conversation"], conversation);
    let revoked =
        shared.first.command(&["grants", "revoke", conversation, "eve", "--yes", "--reason", "left"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert!(!shared.first.command(&["grants", "revoke", conversation, "eve", "--yes"]).status.success());
    let audited = "SELECT count(*) FROM api_audit WHERE action = 'grant.revoke' AND actor = 'command:ops' \
                   AND detail->>'reason' = 'left'";
    assert_eq!(shared.database.count(audited).await, 1);
}
