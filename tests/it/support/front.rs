//! One address in front of two servers: what a load balancer without affinity does, for programs that know one address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::server::Server;

/// Gives requests to the servers in turn, whatever connection they come on. Ends when this is dropped.
pub struct Front {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

struct Behind {
    client: reqwest::Client,
    addresses: [String; 2],
    turn: AtomicUsize,
}

impl Front {
    pub async fn of(servers: [&Server; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let behind = Arc::new(Behind {
            // Without a limit: streams last.
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            addresses: servers.map(|server| server.url("")),
            turn: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("TCP_NODELAY");
                let behind = Arc::clone(&behind);
                connections.spawn(async move {
                    let service = service_fn(|request| pass(Arc::clone(&behind), request));
                    // Clients leave in the middle: that is passed on, not judged.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Self { address, _tasks: tasks }
    }

    /// The base address for SDKs.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

async fn pass(
    behind: Arc<Behind>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, reqwest::Error>>, reqwest::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let place = behind.turn.fetch_add(1, Ordering::Relaxed) % behind.addresses.len();
    let mut headers = parts.headers;
    for hop in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(hop);
    }
    let request = behind.client.request(parts.method, format!("{}{}", behind.addresses[place], parts.uri));
    let answer = request.headers(headers).body(body).send().await?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            response = response.header(name, value);
        }
    }
    let frames = answer.bytes_stream().map(|piece| piece.map(Frame::data));
    Ok(response.body(StreamBody::new(frames).boxed_unsync()).expect("a response"))
}
