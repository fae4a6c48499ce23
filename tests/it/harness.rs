//! The harness itself: what other tests rely on without looking.

use std::time::Duration;

use tokio_postgres::NoTls;

use crate::support::{
    Answer, Consumer, PrivateAzurite, PrivatePostgres, Proxy, SOON, TestDatabase, eventually, sign_standard,
    sign_stripe,
};

#[test]
fn signatures_are_those_of_the_published_vectors() {
    let stripe = sign_stripe(
        "whsec_test_secret",
        1_700_000_000,
        br#"{"id":"evt_1","object":"event","type":"invoice.paid"}"#,
    );
    assert_eq!(stripe, "t=1700000000,v1=dfb4777aaaec4ea29ff455dd4df7fe6b2ef71096ad3a93a158db7e100109ea91");
    let body = br#"{"email":"test@example.com","username":"test_user"}"#;
    let standard = sign_standard(
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1_649_367_553,
        body,
    );
    assert_eq!(standard, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
}

#[tokio::test]
async fn a_database_is_reached_through_transaction_pooling_and_dropped_at_the_end() {
    let database = TestDatabase::empty().await;
    let name = database.name().to_owned();
    let (client, connection) =
        tokio_postgres::connect(&database.url, NoTls).await.expect("through the pooler");
    tokio::spawn(connection);
    let row =
        client.query_typed("SELECT current_database()::text", &[]).await.expect("a query without a name");
    assert_eq!(row[0].get::<_, String>(0), name);

    drop(database);
    let other = TestDatabase::empty().await;
    assert_eq!(other.count(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")).await, 0);
}

#[tokio::test]
async fn a_database_is_a_migrated_copy_of_its_own() {
    let (one, other) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert!(one.count(tables).await > 0, "migrations make tables");
    one.client().await.batch_execute("CREATE TABLE only_here ()").await.expect("a table");
    assert_eq!(one.count(tables).await, other.count(tables).await + 1);
}

#[tokio::test]
async fn a_consumer_tells_signed_from_forged_and_answers_as_told() {
    let consumer = Consumer::start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let now = jiff::Timestamp::now().as_second();
    let signature = sign_standard(crate::support::CONSUMER_SECRET, "msg_1", now, b"{}");
    let send = async |signature: &str| {
        let request =
            client.post(consumer.url()).header("webhook-id", "msg_1").header("webhook-timestamp", now);
        request
            .header("webhook-signature", signature)
            .body("{}")
            .send()
            .await
            .map(|answer| answer.status().as_u16())
    };
    consumer
        .next([Answer::Status(503), Answer::After(Duration::from_millis(50), Box::new(Answer::Status(410)))]);
    assert_eq!(send(&signature).await.unwrap(), 503);
    assert_eq!(send("v1,forged").await.unwrap(), 410);
    consumer.next([Answer::Cut]);
    assert!(send(&signature).await.is_err(), "cut in the middle");
    assert_eq!(send(&signature).await.unwrap(), 200);

    let verdicts: Vec<_> = consumer.callbacks().iter().map(|callback| callback.verified.is_ok()).collect();
    assert_eq!(verdicts, [true, false, true, true]);
    assert_eq!(consumer.accepted_by_id()["msg_1"], 1);
}

#[tokio::test]
async fn a_proxy_delays_and_cuts() {
    let consumer = Consumer::start().await;
    let proxy = Proxy::to(consumer.port(), Duration::from_millis(20)).await;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
    let send = async || client.post(format!("http://127.0.0.1:{}/", proxy.port())).send().await;
    let start = std::time::Instant::now();
    send().await.expect("an answer");
    assert!(start.elapsed() >= Duration::from_millis(40), "held back in each direction");
    proxy.cut();
    assert!(send().await.is_err());
    proxy.open();
    eventually("passage again", SOON, async || send().await.is_ok()).await;
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn a_private_cluster_keeps_what_was_committed_over_kill_and_freeze() {
        let mut server = PrivatePostgres::start().await;
        run(&server, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await.expect("a table");
        server.kill().await;
        assert!(!answers(&server).await, "a killed server does not answer");
        server.start_again().await;
        eventually("the pooler to reach the server again", SOON, async || answers(&server).await).await;

        server.freeze();
        assert!(!answers(&server).await, "a frozen server does not answer");
        server.thaw();
        eventually("an answer after the thaw", SOON, async || answers(&server).await).await;
        server.stop().await;
        assert!(!answers(&server).await, "a stopped server does not answer");
    }

    /// PgBouncer holds a query back for two minutes while its server is away, so an answer needs a limit.
    async fn answers(server: &PrivatePostgres) -> bool {
        let answer =
            tokio::time::timeout(Duration::from_millis(500), run(server, "SELECT n FROM kept")).await;
        answer.is_ok_and(|answer| answer.is_ok())
    }

    async fn run(server: &PrivatePostgres, statements: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&server.pooled_url("postgres"), NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(statements).await
    }

    #[tokio::test]
    async fn a_private_azurite_comes_back_on_its_ports() {
        let mut azurite = PrivateAzurite::start().await;
        let before = azurite.connection_string();
        azurite.stop().await;
        azurite.start_again().await;
        azurite.kill();
        azurite.start_again().await;
        assert_eq!(azurite.connection_string(), before);
    }
}
