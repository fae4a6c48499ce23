//! Answers as they come, refusals too: their status, media type and shape, of the server and of the function app.

use std::collections::{BTreeMap, BTreeSet};

use colloquy::webhooks::ProblemKind;
use http::Method;
use serde_json::{Value, json};

use super::{Document, escaped};
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{FunctionApp, TestDatabase, TestStorage};

/// Whether an answer's status, media type and body are as the document says of this operation, by name and not as
/// anything that may go wrong.
pub async fn is_described(document: &Document, path: &str, method: &str, answer: reqwest::Response) {
    let (status, what) = (answer.status(), format!("{method} {path}: {}", answer.status()));
    let pointer = format!("/paths/{}/{method}/responses/{}", escaped(path), status.as_u16());
    let mut described = document.0.pointer(&pointer).unwrap_or_else(|| panic!("{what} is not described"));
    let mut at = pointer;
    if let Some(referred) = described["$ref"].as_str() {
        at = referred.trim_start_matches('#').to_owned();
        described = document.0.pointer(&at).unwrap_or_else(|| panic!("{what}: {at}"));
    }
    let kind = answer.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(described["content"].get(&kind).is_some(), "{what}: {kind} is not described");
    assert!(answer.headers().contains_key("x-request-id"), "{what}: no request id");
    let text = answer.text().await.unwrap();
    if kind.ends_with("json") {
        let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}"));
        document.fits(&what, &format!("{at}/content/{}/schema", escaped(&kind)), &body);
    }
}

#[tokio::test]
async fn errors_are_as_the_document_says() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("REQUEST_BODY_MAX", "65536").start().await;
    let document = Document::of(&server).await;
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for (path, method, of) in document.operations() {
        let verb: Method = method.parse().expect("a method");
        let address = path.replace("{kind}", "model").replace(['{', '}'], "");
        let request = |key: Option<&str>| {
            let request = server.client().request(verb.clone(), server.url(&address));
            let request = request.header("content-type", "application/json");
            match key {
                Some(key) => request.bearer_auth(key),
                None => request,
            }
        };
        // On a developer's machine operators need no key to look at a process.
        let secured = of["security"] != json!([])
            && of["operationId"] != "responses.connect"
            && !path.starts_with("/health");
        let mut answers = vec![request(Some(API_KEY)).send().await.expect("an answer")];
        if secured {
            answers.push(request(None).send().await.expect("an answer"));
            assert_eq!(answers[1].status(), 401, "{method} {path}");
        }
        if path.starts_with("/admin") {
            let other = request(Some(OTHER_KEY)).send().await.expect("an answer");
            assert_eq!(other.status(), 403, "{method} {path}");
            answers.push(other);
        }
        if of.get("requestBody").is_some() {
            let broken = request(Some(API_KEY)).body("{\"broken\": ").send().await.expect("an answer");
            assert!([400, 404].contains(&broken.status().as_u16()), "{method} {path}: {}", broken.status());
            answers.push(broken);
        }
        for answer in answers {
            *seen.entry(answer.status().as_u16()).or_default() += 1;
            is_described(&document, &path, &method.to_lowercase(), answer).await;
        }
    }
    for status in [200, 400, 401, 403, 404, 426] {
        assert!(seen.contains_key(&status), "{status} was never seen: {seen:?}");
    }
    let long = server.client().post(server.url("/v1/responses")).bearer_auth(API_KEY);
    let long = long.header("content-type", "application/json").body(vec![b' '; 65_537]).send().await;
    is_described(&document, "/v1/responses", "post", long.expect("an answer")).await;
}

/// Of a source of each manner: what is not refused as a method is described, and what is described is not refused.
async fn every_method_that_is_taken_is_described(document: &Document, app: &FunctionApp) {
    for (template, sources) in [
        ("/api/webhooks/{source}", ["stripe", "event-grid"]),
        ("/api/webhooks/{source}/{event}", ["crm/feedback.create", "event-grid/anything"]),
    ] {
        let described: BTreeSet<String> = document.0["paths"][template]
            .as_object()
            .expect("a path")
            .keys()
            .filter(|key| key.parse::<Method>().is_ok() && *key != "servers")
            .map(|key| key.to_uppercase())
            .collect();
        let mut taken = BTreeSet::new();
        for source in sources {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let verb: Method = method.parse().expect("a method");
                let request = app.client().request(verb, app.url(&format!("/api/webhooks/{source}")));
                let request = request.header("webhook-request-origin", "eventgrid.azure.net").body("");
                let answer = request.send().await.expect("an answer");
                let status = answer.status();
                if status != 405 && status != 404 {
                    taken.insert(method.to_owned());
                    is_described(document, template, &method.to_lowercase(), answer).await;
                }
            }
        }
        assert_eq!(taken, described, "{template}");
    }
    let ask = app.client().request(Method::OPTIONS, app.url("/api/webhooks/stripe")).send().await;
    let refused = ask.expect("an answer");
    assert_eq!(refused.status(), 405);
    is_described(document, "/api/webhooks/{source}", "options", refused).await;
}

#[tokio::test]
async fn what_the_function_app_answers_is_described_too() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let app = FunctionApp::of(&database, &storage).start().await;
    // Without a host, which would say itself where a request comes from.
    let handler = FunctionApp::of(&database, &storage).start_handler().await;
    let document = Document::of(&server).await;
    // An optional part of a route is two paths; what a check may be is described one by one.
    let mut routes = BTreeSet::new();
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the repository").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("function.json")) else { continue };
        let function: Value = serde_json::from_str(&text).expect("JSON");
        let Some(route) = function["bindings"][0]["route"].as_str() else { continue };
        let (short, part) = route.rsplit_once('/').expect("two parts");
        routes.extend([format!("/api/{short}"), format!("/api/{short}/{}", part.replace('?', ""))]);
    }
    let paths = document.0["paths"].as_object().expect("paths");
    let checks = ["live", "ready", "status", "metrics"].map(|check| format!("/api/health/{check}"));
    let described: BTreeSet<String> = paths
        .keys()
        .filter(|path| path.starts_with("/api/"))
        .map(|path| if checks.contains(path) { "/api/health/{check}".to_owned() } else { path.clone() })
        .collect();
    assert_eq!(described, routes);
    assert!(checks.iter().all(|check| paths.contains_key(check)), "{paths:?}");
    for path in checks.iter().map(String::as_str).chain(["/api/health"]) {
        let answer = app.client().get(app.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        is_described(&document, path, "get", answer).await;
        if path.ends_with("status") || path.ends_with("metrics") {
            let elsewhere =
                handler.client().get(handler.url(path)).header("x-forwarded-for", "203.0.113.9:4711");
            let refused = elsewhere.send().await.expect("an answer");
            assert_eq!(refused.status(), 401, "{path}");
            is_described(&document, path, "get", refused).await;
        }
    }
    let unknown = app.client().get(app.url("/api/health/nonsense")).send().await.expect("an answer");
    assert_eq!(unknown.status(), 404, "no other check is there");

    every_method_that_is_taken_is_described(&document, &app).await;

    let types: BTreeSet<&str> = ProblemKind::ALL.iter().map(|kind| kind.type_uri()).collect();
    for (source, template) in [
        ("stripe", "/api/webhooks/{source}"),
        ("nobody", "/api/webhooks/{source}"),
        ("crm/feedback.create", "/api/webhooks/{source}/{event}"),
    ] {
        for kind in ["application/json", "image/png"] {
            let post =
                app.client().post(app.url(&format!("/api/webhooks/{source}"))).header("content-type", kind);
            let answer = post.body("{}").send().await.expect("an answer");
            assert!(answer.status().is_client_error(), "{source}: {}", answer.status());
            let answer = http::Response::from(answer);
            let (head, body) = answer.into_parts();
            let bytes = http_body_util::BodyExt::collect(body).await.expect("a body").to_bytes();
            let problem: Value = serde_json::from_slice(&bytes).expect("JSON");
            assert!(types.contains(problem["type"].as_str().unwrap()), "{problem}");
            assert_eq!(problem["status"], head.status.as_u16(), "{problem}");
            is_described(&document, template, "post", http::Response::from_parts(head, bytes).into()).await;
        }
    }
}
