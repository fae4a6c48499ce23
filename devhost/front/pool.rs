//! HTTP/1.1 connections to the handler, kept and used again.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::body::Body;

/// The host tries to connect this often, with growing pauses: a handler that restarts is waited for.
const CONNECT_ATTEMPTS: u32 = 10;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// Idle connections kept.
const KEPT: usize = 64;

/// Connections to one address.
pub struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Body>>>,
    tasks: TaskTracker,
}

/// A request that could not be sent, or broke before its answer.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("no connection after {CONNECT_ATTEMPTS} attempts: {0}")]
    Connect(std::io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Pool {
    pub fn new(address: SocketAddr, tasks: TaskTracker) -> Self {
        Pool { address, idle: Mutex::new(Vec::new()), tasks }
    }

    /// Sends one request; its body is sent at most once. Dropping the answer's body closes the connection.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, PoolError> {
        while let Some(mut sender) = self.take() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.keep(sender, response)),
                // The handler had closed this connection: nothing of the request has left, so it may be sent again.
                Err(mut failure) => match failure.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failure.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        Ok(self.keep(sender, response))
    }

    fn keep(&self, sender: SendRequest<Body>, response: Response<Incoming>) -> Response<Incoming> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Not ready before the answer's body is read; `take` passes over it until then.
        idle.retain(|sender| !sender.is_closed());
        if idle.len() < KEPT {
            idle.push(sender);
        }
        response
    }

    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, PoolError> {
        let mut pause = SHORTEST_PAUSE;
        let mut attempt = 1;
        let stream = loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => break stream,
                Err(cause) if attempt == CONNECT_ATTEMPTS => return Err(PoolError::Connect(cause)),
                Err(_) => {}
            }
            sleep(pause).await;
            attempt += 1;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        // Only a matter of delay.
        stream.set_nodelay(true).ok();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How the connection ends is told to whoever waits for an answer on it.
        self.tasks.spawn(async move { connection.await.ok() });
        Ok(sender)
    }
}
