//! The console's files, as the server gives them to browsers. What is in them is tested in `web/`.

use reqwest::StatusCode;
use reqwest::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
};

use crate::support::server::Server;
use crate::support::{TestDatabase, TestStorage, repository};

/// Without Node the server is built without the console.
fn is_built() -> bool {
    repository().join("web/dist/index.html").exists()
}

#[tokio::test]
async fn the_page_is_served_under_a_strict_policy_and_its_assets_for_ever() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).start().await;
    let page = server.client().get(server.url("/")).send().await.unwrap();
    if !is_built() {
        assert_eq!(page.status(), StatusCode::NOT_FOUND, "there is none to serve");
        return;
    }
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(page.headers()[CACHE_CONTROL], "no-cache");
    assert_eq!(page.headers()["x-frame-options"], "DENY");
    let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe-"), "nothing inline, nothing evaluated: {policy}");

    let page = page.text().await.unwrap();
    let script = page.split('"').find(|text| text.starts_with("/assets/") && text.ends_with(".js")).unwrap();
    let ask = server.client().get(server.url(script)).header(ACCEPT_ENCODING, "gzip").send().await.unwrap();
    assert_eq!(ask.status(), StatusCode::OK);
    assert_eq!(ask.headers()[CACHE_CONTROL], "public, max-age=31536000, immutable");
    assert_eq!(ask.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
    assert_eq!(ask.headers()[CONTENT_ENCODING], "gzip");
    let unknown = server.client().get(server.url("/assets/other.js")).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let posted = server.client().post(server.url("/")).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    // What is no page keeps the policy that lets nothing in at all.
    let models = server.client().get(server.url("/v1/models")).send().await.unwrap();
    assert_eq!(models.headers()[CONTENT_SECURITY_POLICY], "default-src 'none'; frame-ancestors 'none'");
}

#[tokio::test]
async fn switched_off_it_is_not_there() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let server = Server::of(&database, &storage).set("CONSOLE", "false").start().await;
    let page = server.client().get(server.url("/")).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
    assert!(page.text().await.unwrap().contains("unknown_url"));
    let told = server.client().get(server.url("/console.json")).send().await.unwrap();
    assert_eq!(told.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whom_to_sign_in_with_is_told_to_everybody_and_the_page_may_call_them() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let told = async |server: &Server| {
        let answer = server.client().get(server.url("/console.json")).send().await.unwrap();
        (answer.status(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let server = Server::of(&database, &storage).start().await;
    assert_eq!(told(&server).await, (StatusCode::OK, serde_json::json!({ "sign_in": null })));

    // Also where another host serves the page.
    let server = Server::of(&database, &storage)
        .set("CONSOLE", "false")
        .set("CONSOLE_OIDC_ISSUER", "https://login.example.com/tenant/v2.0")
        .set("CONSOLE_OIDC_CLIENT_ID", "spa")
        .start()
        .await;
    let expected = serde_json::json!({ "sign_in": {
        "issuer": "https://login.example.com/tenant/v2.0", "client_id": "spa",
        "scope": "openid profile offline_access", "token": "access",
    } });
    assert_eq!(told(&server).await, (StatusCode::OK, expected));
    let posted = server.client().post(server.url("/console.json")).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);

    let server = Server::of(&database, &storage)
        .set("CONSOLE_OIDC_ISSUER", "https://login.example.com/tenant/v2.0")
        .set("CONSOLE_OIDC_CLIENT_ID", "spa")
        .start()
        .await;
    let page = server.client().get(server.url("/")).send().await.unwrap();
    if is_built() {
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("connect-src 'self' https://login.example.com;"), "{policy}");
    }
}
