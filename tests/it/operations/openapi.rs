//! The OpenAPI document: it has every route of the running server, and the server answers as it says.

mod answers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use colloquy::schema::Schema;
use http::Method;
use serde_json::{Value, json};

use answers::is_described;

use super::{deliver, id, letters};
use crate::support::server::{API_KEY, Server};
use crate::support::{Answer, Consumer, FunctionApp, SOON, TestDatabase, TestStorage, eventually};

/// The document as the server serves it.
struct Document(Arc<Value>);

impl Document {
    async fn of(server: &Server) -> Self {
        let answer = server.client().get(server.url("/openapi.json")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        Self(Arc::new(answer.json().await.expect("JSON")))
    }

    /// Path, method and operation of each that is the server's.
    fn operations(&self) -> Vec<(String, String, Value)> {
        let paths = self.0["paths"].as_object().expect("paths");
        let each =
            paths.iter().filter(|(path, _)| !path.starts_with("/api/")).flat_map(|(path, operations)| {
                let operations = operations.as_object().expect("operations");
                operations.iter().map(move |(method, of)| (path.clone(), method.to_uppercase(), of.clone()))
            });
        each.collect()
    }

    fn schema(&self, pointer: &str) -> Schema {
        Schema::within(&self.0, pointer).unwrap_or_else(|error| panic!("{pointer}: {error}"))
    }

    fn fits(&self, what: &str, pointer: &str, value: &Value) {
        let misfits = self.schema(pointer).misfits(value, 20);
        assert!(misfits.is_empty(), "{what}: {misfits:#?}\n{value:#}");
    }
}

/// A part of a JSON pointer.
fn escaped(path: &str) -> String {
    path.replace('~', "~0").replace('/', "~1")
}

/// Asks, and compares question and answer with the document. Gives the answer.
struct Asker<'a> {
    server: &'a Server,
    document: &'a Document,
    /// Operations that were answered as they say.
    seen: BTreeSet<String>,
}

impl Asker<'_> {
    async fn ask(&mut self, method: &str, template: &str, values: &[&str], body: Option<Value>) -> Value {
        let (path, query) = template.split_once('?').unwrap_or((template, ""));
        let mut address = path.to_owned();
        for value in values {
            let (start, end) = (address.find('{').expect("a parameter"), address.find('}').expect("its end"));
            address.replace_range(start..=end, value);
        }
        let at = format!("/paths/{}/{}", escaped(path), method.to_lowercase());
        let operation =
            self.document.0.pointer(&at).unwrap_or_else(|| panic!("{method} {path} is not described"));
        if let Some(body) = &body {
            self.document.fits(
                &format!("the request of {method} {path}"),
                &format!("{at}/requestBody/content/application~1json/schema"),
                body,
            );
        }
        let known: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let at = known.iter().position(|known| *known == name);
            let at = at.unwrap_or_else(|| panic!("{method} {path}: {name} is not described"));
            let schema = &operation["parameters"][at]["schema"];
            let values = schema["enum"].as_array().or_else(|| schema["items"]["enum"].as_array());
            let is_described = values.is_none_or(|values| values.iter().any(|known| known == &*value));
            assert!(is_described, "{method} {path}: {name}={value} is not described");
        }
        let verb: Method = method.parse().expect("a method");
        let address = if query.is_empty() { address } else { format!("{address}?{query}") };
        let (status, answer) = self.server.call(verb, &address, body, API_KEY).await;
        assert_eq!(status, 200, "{method} {address}: {answer}");
        let schema = format!("{at}/responses/200/content/application~1json/schema");
        self.document.fits(&format!("{method} {address}"), &schema, &answer);
        self.seen.insert(operation["operationId"].as_str().expect("an id").to_owned());
        answer
    }
}

#[tokio::test]
async fn every_route_is_described_and_what_is_described_is_there() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let document = Document::of(&server).await;
    assert!(document.0["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));

    // In the sources a route's name stands beside what answers it; refusals stand beside a group's name.
    let mut named = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("server")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).expect("a source");
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for (at, _) in text.match_indices("(\"").chain(text.match_indices("( \"")) {
                let rest = text[at..].trim_start_matches(['(', ' ']).trim_start_matches('"');
                let Some((name, rest)) = rest.split_once("\", ") else { continue };
                let is_name =
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b));
                let answered = rest
                    .split(')')
                    .next()
                    .is_some_and(|call| call.contains("app") || call.starts_with("Ok("));
                if is_name && answered && rest.split(".await").next().is_some_and(|call| call.contains('(')) {
                    named.insert(name.to_owned());
                }
            }
        }
    }
    // Files of a page, which are no API.
    assert!(named.remove("console"), "{named:?}");
    let described: BTreeMap<String, (String, String)> = document
        .operations()
        .into_iter()
        .map(|(path, method, of)| (of["operationId"].as_str().expect("an id").to_owned(), (path, method)))
        .collect();
    assert_eq!(described.len(), document.operations().len(), "each id once");
    let missing: Vec<_> = named.iter().filter(|name| !described.contains_key(*name)).collect();
    assert!(missing.is_empty(), "describe these in docs/openapi.json: {missing:?}");
    let stale: Vec<_> = described
        .keys()
        .filter(|id| !named.contains(*id) && !id.starts_with("health.") && *id != "responses.connect")
        .collect();
    assert!(stale.is_empty(), "these are not routes any more: {stale:?}");

    // And it answers: of each path every described method, and no other.
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in document.operations() {
        methods.entry(path).or_default().insert(method);
    }
    for (path, described) in &methods {
        let address = path.replace("{kind}", "model").replace(['{', '}'], "");
        let preflight = server.client().request(Method::OPTIONS, server.url(&address)).send().await.unwrap();
        let status = preflight.status();
        assert!(status == 204 && preflight.bytes().await.unwrap().is_empty(), "OPTIONS {address}: {status}");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let verb: Method = method.parse().expect("a method");
            let (status, answer) = server.call(verb, &address, None, API_KEY).await;
            let code = answer["error"]["code"].as_str().unwrap_or_default().to_owned();
            if path.starts_with("/health") {
                assert!([200, 503].contains(&status), "{method} {address}: {status}");
            } else if described.contains(method) {
                assert!(status != 405 && code != "unknown_url", "{method} {address}: {status} {answer}");
                // What is not found is a thing, not the path.
                let path_missing =
                    answer["error"]["message"].as_str().is_some_and(|text| text.starts_with("Path"));
                assert!(!path_missing, "{method} {address}: {answer}");
            } else {
                assert_eq!(
                    (status, code.as_str()),
                    (405, "method_not_allowed"),
                    "{method} {address}: {answer}"
                );
            }
        }
    }
}

#[tokio::test]
async fn questions_and_answers_are_as_the_document_says() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let consumer = Consumer::start().await;
    consumer.always(Answer::Status(500));
    let builder = FunctionApp::of(&database, &storage).hurried().consumer(&consumer);
    let app = builder.set("CALLBACK_SCHEDULE", "0s").start().await;
    let server = Server::of(&database, &storage).set("LLM_DEMO_TOKENS_PER_SECOND", "20").start().await;
    let document = Document::of(&server).await;
    let asker = &mut Asker { server: &server, document: &document, seen: BTreeSet::new() };

    asker.ask("GET", "/openapi.json", &[], None).await;
    asker.ask("GET", "/console.json", &[], None).await;
    for path in ["/health", "/health/live", "/health/ready", "/health/status"] {
        asker.ask("GET", path, &[], None).await;
    }
    asker.ask("GET", "/v1/models", &[], None).await;
    asker.ask("GET", "/v1/models/{id}", &["demo"], None).await;
    let made = asker.ask("POST", "/v1/conversations", &[], Some(json!({ "title": "A test" }))).await;
    let conversation = id(&made);
    let said = json!({ "model": "demo", "input": "Hello.", "conversation": conversation });
    let turn = asker.ask("POST", "/v1/responses", &[], Some(said)).await;
    asker.ask("GET", "/v1/responses/{id}", &[id(&turn)], None).await;
    for include in
        ["reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url"]
    {
        asker.ask("GET", &format!("/v1/responses/{{id}}?include={include}"), &[id(&turn)], None).await;
        let asked = json!({ "model": "demo", "input": "Hello.", "store": false, "include": [include] });
        let described =
            format!("{}/requestBody/content/application~1json/schema", "/paths/~1v1~1responses/post");
        document.fits("include", &described, &asked);
        // What the demo model cannot give is refused by the name of its field.
        let (status, answer) = server.post("/v1/responses", asked).await;
        assert!(status == 200 || answer["error"]["param"] == "include", "{include}: {answer}");
    }
    let embed = json!({ "model": "demo", "input": ["Hello."] });
    asker.ask("POST", "/v1/embeddings", &[], Some(embed)).await;
    asker.ask("GET", "/v1/responses/{id}/input_items", &[id(&turn)], None).await;
    asker.ask("GET", "/v1/conversations?search=test&limit=5", &[], None).await;
    asker.ask("GET", "/v1/conversations/{id}", &[conversation], None).await;
    asker.ask("POST", "/v1/conversations/{id}", &[conversation], Some(json!({ "title": "Another" }))).await;
    let items = asker.ask("GET", "/v1/conversations/{id}/items?order=asc", &[conversation], None).await;
    asker
        .ask("GET", "/v1/conversations/{id}/items/{item}", &[conversation, id(&items["data"][0])], None)
        .await;
    asker.ask("POST", "/v1/conversations/{id}/fork", &[conversation], Some(json!({}))).await;
    let added = json!({ "items": [{ "type": "message", "role": "user", "content": "Also this." }] });
    let added = asker.ask("POST", "/v1/conversations/{id}/items", &[conversation], Some(added)).await;
    let last = id(&added["data"][0]).to_owned();
    asker.ask("DELETE", "/v1/conversations/{id}/items/{item}", &[conversation, &last], None).await;
    let grant = json!({ "grantee": "ada", "access": "read" });
    asker.ask("POST", "/v1/conversations/{id}/grants", &[conversation], Some(grant)).await;
    asker.ask("GET", "/v1/conversations/{id}/grants", &[conversation], None).await;
    asker.ask("GET", "/admin/grants?grantee=ada", &[], None).await;
    asker.ask("DELETE", "/v1/conversations/{id}/grants/{grantee}", &[conversation, "ada"], None).await;
    let grant = json!({ "conversation": conversation, "grantee": "bob", "access": "write" });
    asker.ask("POST", "/admin/grants", &[], Some(grant)).await;
    asker.ask("DELETE", "/admin/grants/{conversation}/{grantee}", &[conversation, "bob"], None).await;
    let chat = json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hello." }] });
    asker.ask("POST", "/v1/chat/completions", &[], Some(chat)).await;
    let compact = json!({ "model": "demo", "input": "Hello." });
    asker.ask("POST", "/v1/responses/compact", &[], Some(compact)).await;

    let key =
        json!({ "name": "crm", "owner": "ada", "limits": { "requests_per_minute": 9 }, "reason": "a test" });
    let key = asker.ask("POST", "/admin/keys", &[], Some(key)).await;
    asker.ask("GET", "/admin/keys?owner=ada", &[], None).await;
    asker.ask("GET", "/admin/keys/{id}", &[id(&key)], None).await;
    let new =
        asker.ask("POST", "/admin/keys/{id}/rotate", &[id(&key)], Some(json!({ "overlap": "1h" }))).await;
    asker.ask("POST", "/admin/keys/{id}/expire", &[id(&new)], Some(json!({ "reason": "lost" }))).await;

    // Something long, in the background.
    let words = json!({ "model": "demo", "input": "/slow 5 Tell me a story.", "background": true });
    let words = asker.ask("POST", "/v1/responses", &[], Some(words)).await;
    eventually("the turn to run", SOON, async || {
        let (_, turns) = server.read("/admin/turns?state=in_progress").await;
        turns["data"]
            .as_array()
            .is_some_and(|turns| turns.iter().any(|turn| turn["here"]["chunks"].as_u64() > Some(0)))
    })
    .await;
    asker.ask("GET", "/admin/turns?model=demo&owner=tester", &[], None).await;
    asker
        .ask("POST", "/admin/turns/{id}/cancel", &[id(&words)], Some(json!({ "reason": "long enough" })))
        .await;
    asker.ask("POST", "/v1/responses/{id}/cancel", &[id(&words)], None).await;
    let used = asker.ask("GET", "/v1/usage?limit=1&order=asc", &[], None).await;
    let behind = format!("/v1/usage?after={}", used["last_id"].as_str().expect("a row"));
    asker.ask("GET", &behind, &[], None).await;
    asker.ask("GET", "/admin/usage?owner=tester&model=demo", &[], None).await;
    asker.ask("GET", "/admin/budgets?scope=owner", &[], None).await;

    for n in 0..3 {
        deliver(&app, &format!("evt_{n}")).await;
    }
    let dead = letters(&server, 3).await;
    let events = asker.ask("GET", "/admin/events?source=stripe", &[], None).await;
    asker.ask("GET", "/admin/events/{id}?payload=true", &[id(&events["data"][0])], None).await;
    for dry_run in [true, false] {
        let replay = json!({ "dry_run": dry_run });
        asker.ask("POST", "/admin/events/{id}/replay", &[id(&events["data"][0])], Some(replay)).await;
    }
    let jobs = asker.ask("GET", "/admin/jobs?state=succeeded", &[], None).await;
    asker.ask("GET", "/admin/jobs/{id}", &[id(&jobs["data"][0])], None).await;
    let callbacks = asker.ask("GET", "/admin/callbacks?target=consumer&state=dead", &[], None).await;
    asker.ask("GET", "/admin/callbacks/{id}", &[id(&callbacks["data"][0])], None).await;
    asker.ask("GET", "/admin/targets", &[], None).await;
    asker.ask("POST", "/admin/targets/{name}/enable", &["consumer"], None).await;
    asker.ask("GET", "/admin/dead-letters?code=callback_refused", &[], None).await;
    asker.ask("GET", "/admin/dead-letters/{id}", &[id(&dead[0])], None).await;
    let because = Some(json!({ "reason": "a test" }));
    asker.ask("POST", "/admin/dead-letters/{id}/discard", &[id(&dead[0])], because.clone()).await;
    asker.ask("POST", "/admin/dead-letters/{id}/replay", &[id(&dead[1])], because).await;
    for (what, dry_run) in [("replay", true), ("discard", true), ("replay", false), ("discard", false)] {
        let many =
            json!({ "filter": { "source": "stripe" }, "limit": 5, "dry_run": dry_run, "reason": "a test" });
        asker.ask("POST", &format!("/admin/dead-letters/{what}"), &[], Some(many)).await;
    }
    let hold = json!({ "stop": "hold", "for": "1h", "reason": "a test" });
    asker.ask("PUT", "/admin/switches/{kind}/{name}", &["source", "crm"], Some(hold)).await;
    asker.ask("GET", "/admin/switches", &[], None).await;
    let queues = asker.ask("GET", "/admin/queues", &[], None).await;
    assert_eq!(queues["queues"].as_array().map(Vec::len), Some(6), "{queues}");
    let migrations = asker.ask("GET", "/admin/migrations", &[], None).await;
    assert_eq!((&migrations["current"], &migrations["pending"]), (&migrations["latest"], &json!([])));
    let held = asker.ask("GET", "/admin/audit?action=source", &[], None).await;
    assert_eq!(held["data"][0]["action"], "source.hold", "{held}");
    asker.ask("DELETE", "/admin/switches/{kind}/{name}", &["source", "crm"], None).await;

    asker.ask("GET", "/admin/owners/{owner}", &["tester"], None).await;
    asker.ask("GET", "/admin/owners/{owner}/export?file=items&limit=1", &["tester"], None).await;
    for dry_run in [true, false] {
        let delete = json!({ "dry_run": dry_run, "reason": "a test" });
        asker.ask("DELETE", "/admin/owners/{owner}", &["nobody"], Some(delete)).await;
    }
    asker.ask("DELETE", "/v1/responses/{id}", &[id(&turn)], None).await;
    asker.ask("DELETE", "/v1/conversations/{id}", &[conversation], None).await;
    let (_, error) = server.read("/v1/responses/resp_1").await;
    document.fits("an error", "/components/schemas/Error", &error);
    let unasked: BTreeSet<String> = document
        .operations()
        .iter()
        .map(|(_, _, of)| of["operationId"].as_str().expect("an id").to_owned())
        .filter(|id| !asker.seen.contains(id))
        .collect();
    // No JSON: an upgrade, and text.
    let others = ["health.metrics", "responses.connect"].map(str::to_owned);
    assert_eq!(unasked, BTreeSet::from(others));
    let metrics =
        server.client().get(server.url("/health/metrics")).bearer_auth(API_KEY).send().await.unwrap();
    is_described(&document, "/health/metrics", "get", metrics).await;
}
