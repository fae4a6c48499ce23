//! What cannot be a name, a reason or a place in a list is refused in words, and reaches neither the database nor its log.

use http::Method;
use serde_json::{Value, json};

use super::put;
use crate::support::server::{API_KEY, OTHER_KEY, Server};
use crate::support::{FunctionApp, TestDatabase, TestStorage};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

/// 400 in the shape of all errors, on this parameter.
async fn refused(server: &Server, key: &str, method: Method, path: &str, body: Option<Value>, param: &str) {
    let told = format!("{method} {path} {body:?}");
    let (status, answer) = server.call(method, path, body, key).await;
    let error = &answer["error"];
    assert_eq!(
        (status, &error["code"], &error["param"]),
        (400, &json!("invalid_value"), &json!(param)),
        "{told}: {answer}"
    );
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(param) && !message.contains('\0'), "{told}: {message}");
}

async fn server() -> (TestDatabase, TestStorage, Server) {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    (database, storage, server)
}

#[tokio::test]
async fn control_characters_in_paths_and_queries_are_refused() {
    let (database, _storage, server) = server().await;
    for (method, path) in [
        (GET, "/admin/owners/%00"),
        (DELETE, "/admin/owners/%00"),
        (GET, "/admin/owners/a%00/export?file=items"),
        (DELETE, "/admin/switches/owner/%00"),
        (DELETE, "/admin/switches/owner/a%C2%85"),
        (POST, "/admin/targets/%00/enable"),
        (GET, "/admin/jobs/%0A"),
    ] {
        refused(&server, API_KEY, method, path, None, "path").await;
    }
    for (path, params) in [
        ("/admin/events", &["source", "type", "key", "state", "since", "after"][..]),
        ("/admin/jobs", &["kind", "route", "event", "after"]),
        ("/admin/callbacks", &["target", "route", "after"]),
        ("/admin/dead-letters", &["kind", "queue", "source", "route", "code", "state", "after"]),
        ("/admin/turns", &["owner", "model", "after"]),
        ("/admin/audit", &["actor", "action", "subject", "after"]),
        ("/admin/budgets", &["day", "scope", "subject", "after"]),
        ("/admin/usage", &["owner", "api_key", "model", "from", "after"]),
        ("/admin/grants", &["owner", "grantee", "conversation", "after"]),
        ("/admin/keys", &["owner", "after"]),
        ("/admin/owners/x/export", &["file", "after", "reason"]),
    ] {
        for param in params {
            refused(&server, API_KEY, GET, &format!("{path}?{param}=a%00b"), None, param).await;
        }
    }
    // Who is no operator.
    let conversation = "/v1/conversations/conv_0193aaaabbbb7ccc8dddeeeeeeeeeeee";
    for (method, path, param) in [
        (DELETE, format!("{conversation}/grants/%00"), "path"),
        (GET, format!("{conversation}/grants?after=%00"), "after"),
        (GET, format!("{conversation}/items?after=%00"), "after"),
        (GET, "/v1/conversations?search=%00".to_owned(), "search"),
        (GET, "/v1/responses/resp_%00".to_owned(), "path"),
        (GET, "/v1/models/%00".to_owned(), "path"),
        (GET, "/v1/usage?from=%00".to_owned(), "from"),
    ] {
        refused(&server, OTHER_KEY, method, &path, None, param).await;
    }
    assert_eq!(database.count("SELECT count(*) FROM api_audit").await, 0);
}

#[tokio::test]
async fn control_characters_in_what_operators_say_are_refused_and_nothing_is_done() {
    let (database, storage, server) = server().await;
    let id = "0193aaaabbbb7ccc8dddeeeeeeeeeeee";
    let said = |more: Value| {
        let mut body = json!({ "reason": "a\0b" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let (none, key) = (json!({}), json!({ "name": "k", "owner": "ada" }));
    let grant = json!({ "conversation": format!("conv_{id}"), "grantee": "bob", "access": "read" });
    for (method, path, body) in [
        (Method::PUT, "/admin/switches/source/stripe".to_owned(), json!({ "stop": "refuse", "for": "40s" })),
        (DELETE, "/admin/switches/source/stripe".to_owned(), none.clone()),
        (POST, "/admin/keys".to_owned(), key.clone()),
        (POST, format!("/admin/keys/key_{id}/expire"), none.clone()),
        (POST, format!("/admin/keys/key_{id}/rotate"), none.clone()),
        (POST, format!("/admin/dead-letters/dl_{id}/discard"), none.clone()),
        (POST, format!("/admin/dead-letters/dl_{id}/replay"), none.clone()),
        (POST, "/admin/dead-letters/discard".to_owned(), json!({ "filter": {} })),
        (POST, "/admin/dead-letters/replay".to_owned(), json!({ "filter": {} })),
        (POST, format!("/admin/events/evt_{id}/replay"), none.clone()),
        (POST, format!("/admin/turns/resp_{id}/cancel"), none.clone()),
        (POST, "/admin/targets/consumer/enable".to_owned(), none.clone()),
        (POST, "/admin/grants".to_owned(), grant.clone()),
        (DELETE, format!("/admin/grants/conv_{id}/bob"), none.clone()),
        (DELETE, "/admin/owners/ada".to_owned(), none),
    ] {
        refused(&server, API_KEY, method, &path, Some(said(body)), "reason").await;
    }
    for (path, body, param) in [
        ("/admin/dead-letters/replay", json!({ "filter": { "source": "a\0" } }), "filter.source"),
        (
            "/admin/dead-letters/discard",
            json!({ "filter": { "code": "\u{7f}" }, "reason": "x" }),
            "filter.code",
        ),
        ("/admin/keys", json!({ "name": "k\n", "owner": "ada" }), "name"),
        (
            "/admin/keys",
            json!({ "name": "k", "owner": "ada", "limits": { "callback_targets": ["a", "\0"] } }),
            "limits.callback_targets[1]",
        ),
    ] {
        refused(&server, API_KEY, POST, path, Some(body), param).await;
    }
    let set = ["switches", "set", "owner", "ada", "--refuse", "--yes", "--reason", "one\ntwo"];
    assert!(!server.command(&set).status.success());
    assert_eq!(server.read("/admin/switches").await.1["data"], json!([]));
    assert_eq!(database.count("SELECT count(*) FROM api_audit").await, 0);
    drop(storage);
}

#[tokio::test]
async fn a_kind_of_dead_letters_that_there_is_not_is_refused_and_no_empty_list() {
    let (database, storage, server) = server().await;
    refused_kind(&server, Method::GET, "/admin/dead-letters?kind=nonsense", None, "kind").await;
    for path in ["/admin/dead-letters/replay", "/admin/dead-letters/discard"] {
        let body = json!({ "filter": { "kind": "nonsense" }, "reason": "x" });
        refused_kind(&server, POST, path, Some(body), "filter.kind").await;
    }
    for kind in ["job", "callback", "message"] {
        assert_eq!(server.read(&format!("/admin/dead-letters?kind={kind}")).await.0, 200, "{kind}");
    }
    let app = FunctionApp::of(&database, &storage).hurried().start_without(&["maintain"]).await;
    let listed = app.command(&["dead-letters", "list", "--kind", "nonsense"]).await;
    let said = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(!listed.status.success() && said.contains("callback"), "{said}");
}

async fn refused_kind(server: &Server, method: Method, path: &str, body: Option<Value>, param: &str) {
    let (status, answer) = server.call(method, path, body, API_KEY).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{path}: {answer}");
}

#[tokio::test]
async fn an_export_goes_on_only_behind_what_can_be_a_line_of_its_file() {
    let (database, _storage, server) = server().await;
    for file in ["conversations", "items", "turns", "callbacks", "events", "keys", "usage"] {
        for after in ["garbage", "%27", "0193aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee%2F99999999999", "%2F1"] {
            let path = format!("/admin/owners/x/export?file={file}&after={after}");
            refused(&server, API_KEY, GET, &path, None, "after").await;
        }
    }
    assert_eq!(database.count("SELECT count(*) FROM api_audit").await, 0, "nothing was read out");
    let id = "0193aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
    for (file, after) in
        [("items", format!("{id}%2F7")), ("turns", id.to_owned()), ("grants", "x".to_owned())]
    {
        let path = format!("/admin/owners/x/export?file={file}&after={after}");
        assert_eq!(server.read(&path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn days_and_instants_beyond_what_the_database_knows_are_no_failure() {
    let (_database, _storage, server) = server().await;
    for path in [
        "/admin/events?since=-009999-01-02T00:00:00Z",
        "/admin/events?before=9999-12-30T00:00:00Z",
        "/admin/dead-letters?since=-009999-01-02T00:00:00Z",
        "/admin/audit?since=-009999-01-02T00:00:00Z",
        "/admin/usage?from=-009999-01-01",
        "/admin/usage?to=9999-12-31",
        "/admin/budgets?day=-009999-01-01",
        "/v1/usage?from=-009999-01-01",
    ] {
        let (status, answer) = server.read(path).await;
        assert!(status == 200 || status == 400, "{path}: {status} {answer}");
    }
}

/// A switch works without the database, and not against it: a row that it refuses is one that nobody would miss.
#[tokio::test]
async fn a_switch_whose_audit_row_is_refused_is_not_set() {
    let (database, _storage, server) = server().await;
    let hold = json!({ "stop": "hold", "reason": "a test" });
    let admin = database.client().await;
    let refuse = "ALTER TABLE api_audit ADD CONSTRAINT not_demo CHECK (subject <> 'demo')";
    admin.batch_execute(refuse).await.expect("a constraint");
    let (status, error) = put(&server, "/admin/switches/model/demo", hold.clone()).await;
    assert_eq!((status, &error["error"]["code"]), (500, &json!("server_error")), "{error}");
    assert_eq!(server.read("/admin/switches").await.1["data"], json!([]));
    admin.batch_execute("ALTER TABLE api_audit DROP CONSTRAINT not_demo").await.expect("none");
    assert_eq!(put(&server, "/admin/switches/model/demo", hold.clone()).await.0, 200);
    admin.batch_execute("ALTER TABLE api_audit RENAME TO elsewhere").await.expect("away");
    let (status, set) = put(&server, "/admin/switches/model/demo", hold).await;
    assert_eq!((status, &set["audited"]), (200, &json!(false)), "{set}");
    let long = format!("/admin/switches/owner/{}", "n".repeat(600));
    let (status, error) = put(&server, &long, json!({ "stop": "hold", "reason": "x" })).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("owner_invalid")), "{error}");
}
