//! `GET /` every 25 ms until something answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Waits until a connection is accepted and any answer, or any failure but a refused connection, came back.
pub async fn wait(address: SocketAddr, tasks: &TaskTracker) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        polls.tick().await;
        if let Ok(stream) = TcpStream::connect(address).await {
            return ask(stream, address, tasks).await;
        }
    }
}

/// What is answered does not matter, nor whether it is HTTP.
async fn ask(stream: TcpStream, address: SocketAddr, tasks: &TaskTracker) {
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { return };
    tasks.spawn(connection);
    let request = Request::get("/").header(header::HOST, address.to_string()).body(Empty::<Bytes>::new());
    if let Ok(request) = request {
        sender.send_request(request).await.ok();
    }
}
