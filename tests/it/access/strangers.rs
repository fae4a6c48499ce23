//! Crossing owners, on every route there is: somebody else's id is answered byte for byte as one that never was.
//!
//! Routes are read from the maps in `server/`, so a new one is tried as soon as it is there; one that takes a body must
//! say here which.

use http::Method;
use serde_json::{Value, json};

use super::{id, key_of, talk, two};
use crate::support::server::Server;
use crate::support::{SOON, eventually, repository};

/// A route of conversations or responses that names something: a method, and segments of which `{…}` are ids.
#[derive(Clone, Debug, PartialEq)]
struct Route {
    method: Method,
    segments: Vec<String>,
}

/// What ids of a kind are called in the maps.
const NAMES: [&str; 3] = ["id", "item", "grantee"];

/// The routes of a map: `(Method::GET, [id, "items"])` or `["v1", "responses", id] if at(&[M::GET])`.
fn routes(file: &str, prefix: &[&str]) -> Vec<Route> {
    let source = std::fs::read_to_string(repository().join(file)).expect(file);
    let methods = |text: &str| -> Vec<Method> {
        let all = [("GET", Method::GET), ("POST", Method::POST), ("DELETE", Method::DELETE)];
        let named =
            |name: &str| text.contains(&format!("Method::{name}")) || text.contains(&format!("M::{name}"));
        all.into_iter().filter(|(name, _)| named(name)).map(|(_, method)| method).collect()
    };
    let mut found = Vec::new();
    for line in source.lines().filter(|line| line.contains("=>")) {
        let (Some(open), Some(close)) = (line.find('['), line.find(']')) else { continue };
        let segments = line[open + 1..close].split(", ").filter(|segment| !segment.is_empty());
        let segments: Option<Vec<String>> = segments
            .map(|segment| match segment.strip_prefix('"').and_then(|segment| segment.strip_suffix('"')) {
                Some(literal) => Some(literal.to_owned()),
                None => NAMES.contains(&segment).then(|| format!("{{{segment}}}")),
            })
            .collect();
        let Some(segments) = segments else { continue };
        let whole: Vec<String> = prefix.iter().map(|segment| (*segment).to_owned()).chain(segments).collect();
        let about = whole.len() > 2
            && whole[0] == "v1"
            && ["responses", "conversations"].contains(&whole[1].as_str());
        if about && whole.iter().any(|segment| segment.starts_with('{')) {
            // What stands before the arrow, but for the segments.
            let arm = line.split("=>").next().unwrap_or_default();
            let arm = methods(&arm.replacen(&line[open..=close], "", 1));
            found.extend(arm.into_iter().map(|method| Route { method, segments: whole.clone() }));
        }
    }
    found
}

fn every_route() -> Vec<Route> {
    let mut all = routes("server/routes.rs", &[]);
    all.extend(routes("server/conversations.rs", &["v1", "conversations"]));
    all.extend(routes("server/grants.rs", &["v1", "conversations", "{id}", "grants"]));
    all
}

impl Route {
    fn path(&self, id: &str, item: &str) -> String {
        let segment = |segment: &String| match segment.as_str() {
            "{id}" => id.to_owned(),
            "{item}" => item.to_owned(),
            "{grantee}" => "somebody".to_owned(),
            literal => literal.to_owned(),
        };
        let segments: Vec<String> = self.segments.iter().map(segment).collect();
        format!("/{}", segments.join("/"))
    }

    /// A body that is right, so that nothing but the id can be refused.
    fn body(&self) -> Option<Value> {
        let tail: Vec<&str> = self.segments[2..].iter().map(String::as_str).collect();
        match (self.method.as_str(), tail.as_slice()) {
            ("GET" | "DELETE", _) | ("POST", [_, "cancel"]) => None,
            ("POST", [_]) => Some(json!({ "title": "mine now" })),
            ("POST", [_, "fork"]) => Some(json!({})),
            ("POST", [_, "items"]) => Some(json!({ "items": [{ "role": "user", "content": "me" }] })),
            ("POST", [_, "grants"]) => Some(json!({ "grantee": "me", "access": "write" })),
            _ => panic!("{self:?} is new: say here which body it takes"),
        }
    }

    fn is_about(&self, what: &str) -> bool {
        self.segments[1] == what
    }
}

/// Status and body, in bytes.
async fn answer(
    server: &Server,
    method: &Method,
    path: &str,
    body: Option<Value>,
    key: &str,
) -> (u16, String) {
    let mut request = server.client().request(method.clone(), server.url(path)).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// An id of the same kind that never was.
fn never(id: &str) -> String {
    let end = id.len() - 12;
    format!("{}{}", &id[..end], "0".repeat(12))
}

#[tokio::test]
async fn somebody_elses_id_is_answered_as_one_that_never_was_on_every_route() {
    let (database, mut first, mut second) = two().await;
    let (ada, eve) = (key_of(&first, "ada").await, key_of(&first, "eve").await);
    let (conversation, response) = talk(&first, &ada).await;
    let (_, items) =
        first.call(Method::GET, &format!("/v1/conversations/{conversation}/items"), None, &ada).await;
    let item = id(&items["data"][0]);
    let all = every_route();
    for must in [
        ("GET", "conversations"),
        ("POST", "conversations"),
        ("DELETE", "conversations"),
        ("GET", "responses"),
    ] {
        let found = all.iter().any(|route| route.method == must.0 && route.is_about(must.1));
        assert!(found, "the maps are read wrongly: no {must:?} in {all:?}");
    }
    assert!(all.len() >= 15, "{all:?}");
    let before = database.count("SELECT count(*) FROM items").await;
    for (route, server) in all.iter().zip([&first, &second].into_iter().cycle()) {
        let theirs = if route.is_about("responses") { &response } else { &conversation };
        let nobodys = never(theirs);
        let variants: &[&str] = match route.method.as_str() {
            "GET" => &["", "?limit=1&order=asc", "?stream=true", "?stream=true&starting_after=1"],
            _ => &[""],
        };
        for query in variants {
            let path = format!("{}{query}", route.path(theirs, &item));
            let (status, theirs_said) = answer(server, &route.method, &path, route.body(), &eve).await;
            let path = format!("{}{query}", route.path(&nobodys, &never(&item)));
            let (_, nobodys_said) = answer(server, &route.method, &path, route.body(), &eve).await;
            let plain = |said: &str, id: &str, item: &str| said.replace(id, "ID").replace(item, "ITEM");
            assert_eq!(
                plain(&theirs_said, theirs, &item),
                plain(&nobodys_said, &nobodys, &never(&item)),
                "{route:?} {query}"
            );
            // Parameters that a route does not take are refused before anything is looked for.
            let refused_early = !query.is_empty() && status == 400;
            assert!(status == 404 || refused_early, "{route:?} {query}: {status} {theirs_said}");
        }
        // The bare route is what counts: with the right words it was the id alone that was not there.
        let (status, said) =
            answer(server, &route.method, &route.path(theirs, &item), route.body(), &eve).await;
        assert!(status == 404 && said.contains("not_found"), "{route:?}: {status} {said}");
    }
    // Nothing of ada's has changed by all that.
    assert_eq!(database.count("SELECT count(*) FROM items").await, before);
    assert_eq!(database.count("SELECT count(*) FROM grants").await, 0);
    let (status, mine) =
        first.call(Method::GET, &format!("/v1/conversations/{conversation}"), None, &ada).await;
    assert_eq!((status, &mine["title"]), (200, &json!("My name is Ada.")), "{mine}");
    assert_eq!(first.call(Method::GET, &format!("/v1/responses/{response}"), None, &ada).await.0, 200);
    // To her it is as if it never was; operators hear of it.
    for server in [&mut first, &mut second] {
        told_of_crossing(server, &conversation).await;
        let log = server.process().log();
        let crossings: Vec<_> = log.iter().filter(|line| line.contains("owner_crossed")).collect();
        assert!(crossings.iter().all(|line| !line.contains(&never(&conversation))), "{crossings:#?}");
        assert!(crossings.iter().all(|line| !line.contains("owner\":")), "{crossings:#?}");
    }
}

/// Waits until a server says that somebody asked for what is another's.
async fn told_of_crossing(server: &mut Server, id: &str) {
    eventually("operators to be told", SOON, async || {
        let metrics = server.get("/health/metrics").await.text().await.unwrap();
        metrics.contains("access.owner_crossed")
            && server
                .process()
                .log()
                .iter()
                .any(|line| line.contains("access.owner_crossed") && line.contains(id))
    })
    .await;
}

#[tokio::test]
async fn operators_are_told_of_ids_in_bodies_too() {
    let (_database, mut first, _second) = two().await;
    let (ada, eve) = (key_of(&first, "ada").await, key_of(&first, "eve").await);
    let (conversation, response) = talk(&first, &ada).await;
    for (field, id) in [("conversation", &conversation), ("previous_response_id", &response)] {
        let mut body = json!({ "model": "demo", "input": "hi" });
        body[field] = json!(id);
        let (status, _) = first.call(Method::POST, "/v1/responses", Some(body), &eve).await;
        assert!([400, 404].contains(&status), "{status}");
        told_of_crossing(&mut first, id).await;
    }
}

/// Ids in bodies and queries, where there is no route for them.
#[tokio::test]
async fn somebody_elses_ids_in_a_request_are_as_ones_that_never_were() {
    let (_database, first, second) = two().await;
    let (ada, eve) = (key_of(&first, "ada").await, key_of(&first, "eve").await);
    let (conversation, response) = talk(&first, &ada).await;
    let (own, own_response) = talk(&second, &eve).await;
    let (_, items) =
        first.call(Method::GET, &format!("/v1/conversations/{conversation}/items"), None, &ada).await;
    let item = id(&items["data"][0]);
    let turn = |field: &str, value: Value| {
        let mut body = json!({ "model": "demo", "input": "hi" });
        body[field] = value;
        ("/v1/responses".to_owned(), Some(body))
    };
    let requests = |conversation: &str, response: &str, item: &str| {
        vec![
            turn("conversation", json!(conversation)),
            turn("conversation", json!({ "id": conversation })),
            turn("previous_response_id", json!(response)),
            turn("input", json!([{ "type": "item_reference", "id": item }])),
            (format!("/v1/conversations/{own}/fork"), Some(json!({ "item_id": item }))),
            (
                "/v1/responses/compact".to_owned(),
                Some(json!({ "model": "demo", "previous_response_id": response })),
            ),
            (format!("/v1/conversations?after={conversation}"), None),
            (format!("/v1/conversations/{own}/items?after={item}"), None),
            (format!("/v1/conversations/{own}/items/{item}"), None),
            (format!("/v1/responses/{own_response}/input_items?after={item}"), None),
        ]
    };
    let (none, none_response, no_item) = (never(&conversation), never(&response), never(&item));
    let pairs =
        requests(&conversation, &response, &item).into_iter().zip(requests(&none, &none_response, &no_item));
    for ((path, body), (nowhere, empty)) in pairs {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        for server in [&first, &second] {
            let theirs = answer(server, &method, &path, body.clone(), &eve).await;
            let nobodys = answer(server, &method, &nowhere, empty.clone(), &eve).await;
            let plain = |said: &str| {
                let mut said = said.to_owned();
                for (id, name) in
                    [(&conversation, "C"), (&none, "C"), (&response, "R"), (&none_response, "R")]
                {
                    said = said.replace(id.as_str(), name);
                }
                let bare = |id: &str| id.split_once('_').unwrap().1.to_owned();
                said.replace(&bare(&item), "I").replace(&bare(&no_item), "I")
            };
            assert_eq!((theirs.0, plain(&theirs.1)), (nobodys.0, plain(&nobodys.1)), "{path} {body:?}");
        }
    }
}
