//! Strangers beside those who work: floods over every limit, and clients that read nothing or never end what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// At once, of each kind.
const CROWD: usize = 20;
/// Its limit is [`LIMIT`] requests a minute.
pub const FLOODER: &str = "clq_test_key_of_somebody_in_a_hurry";
pub const LIMIT: u64 = 5;
/// `REQUEST_BODY_MAX`.
pub const BODY_MAX: usize = 256 * 1024;

/// Where they come.
pub struct Doors {
    pub server: u16,
    pub app: u16,
}

/// Comes again and again until `ended`. Gives what they were told, by code, and what was no clear refusal.
pub async fn come(doors: &Doors, mut ended: watch::Receiver<bool>) -> (BTreeMap<String, usize>, Vec<String>) {
    let client =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("a client");
    let (mut refused, mut wrong) = (BTreeMap::new(), Vec::new());
    while !*ended.borrow_and_update() {
        let held = join_all((0..CROWD).map(|number| held(doors, number))).await;
        let crowd = (0..CROWD * 3).map(|number| one(doors, &client, number));
        for (what, answer) in join_all(crowd).await {
            let Some((status, body)) = answer else { continue };
            let said = body["error"]["code"].as_str().or_else(|| body["type"].as_str()?.rsplit('/').next());
            match said {
                Some(said) if (400..600).contains(&status) => {
                    *refused.entry(said.to_owned()).or_default() += 1
                }
                // Within its limit.
                _ if status == 200 && what == "over its rate" => {}
                _ => wrong.push(format!("somebody {what} was told {status} {body}")),
            }
        }
        // Those who read nothing do so for a while.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(3)) => {}
            _ = ended.changed() => {}
        }
        drop(held);
    }
    (refused, wrong)
}

/// Asks for too much. No answer: the connection was closed on it, as it may be.
async fn one(doors: &Doors, client: &reqwest::Client, number: usize) -> (&'static str, Option<(u16, Value)>) {
    let server = |path: &str| client.post(format!("http://127.0.0.1:{}{path}", doors.server));
    let (what, request) = match number % 3 {
        0 => {
            let forged = client.post(format!("http://127.0.0.1:{}/api/webhooks/stripe", doors.app));
            let forged = forged.header("stripe-signature", format!("t=1763700000,v1={}", "0".repeat(64)));
            ("with a forged delivery", forged.header("content-type", "application/json").body("{}"))
        }
        1 => {
            let body = json!({ "model": "demo", "input": "hi", "store": false, "max_output_tokens": 16 });
            ("over its rate", server("/v1/responses").bearer_auth(FLOODER).json(&body))
        }
        _ => {
            let large =
                server("/v1/responses").bearer_auth(FLOODER).header("content-type", "application/json");
            ("with too large a body", large.body(vec![b' '; BODY_MAX + 1]))
        }
    };
    let Ok(answer) = request.send().await else { return (what, None) };
    let status = answer.status().as_u16();
    let Ok(text) = answer.text().await else { return (what, None) };
    (what, Some((status, serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::from(text)))))
}

/// A connection that never ends its head, or never reads its answer.
async fn held(doors: &Doors, number: usize) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4 * 1024).ok()?;
    let mut stream = socket.connect(([127, 0, 0, 1], doors.server).into()).await.ok()?;
    let request = if number.is_multiple_of(2) {
        "POST /v1/responses HTTP/1.1\r\nhost: x\r\nx-slow: ".to_owned()
    } else {
        format!("GET /openapi.json HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {FLOODER}\r\n\r\n")
    };
    stream.write_all(request.as_bytes()).await.ok()?;
    Some(stream)
}
