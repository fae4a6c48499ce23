//! The listener and its connections: limits on heads, on silence, on numbers, and an orderly end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use colloquy::functions::survive;
use colloquy::tasks::Tasks;
use colloquy::telemetry::metrics;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use warp::reply::Response;

/// What one connection may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub head_max: usize,
    pub head_timeout: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write_patience: Duration,
}

/// Connections open now, of those allowed.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    pub limit: usize,
}

impl Connections {
    /// None yet, of so many.
    pub fn new(limit: usize) -> Self {
        Self { open: AtomicUsize::new(0), limit }
    }

    /// Those that became WebSockets count, too.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

struct Counted(Arc<Connections>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until `stopping`. Connections end when their exchange does, or when `cutting` says so.
pub async fn serve<S>(
    listener: TcpListener,
    limits: Limits,
    connections: Arc<Connections>,
    service: S,
    tasks: Tasks,
    stopping: CancellationToken,
    cutting: CancellationToken,
) -> io::Result<()>
where
    S: Service<hyper::Request<Incoming>, Response = Response> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http1 = http1::Builder::new();
    http1.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(limits.head_max);
    loop {
        let stream = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    survive(error).await?;
                    continue;
                }
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(code = "connection.delayed", %error, "TCP_NODELAY could not be set");
        }
        let counted = Counted(Arc::clone(&connections));
        if connections.open.fetch_add(1, Ordering::Relaxed) >= connections.limit {
            metrics::connection_refused();
            tasks.spawn("refuse connection", refuse(stream, counted));
            continue;
        }
        let stream = Stalling::new(stream, limits.write_patience, counted);
        let connection = http1.serve_connection(TokioIo::new(stream), service.clone()).with_upgrades();
        let mut connection = Box::pin(connection);
        let (stopping, cutting) = (stopping.clone(), cutting.clone());
        tasks.spawn("connection", async move {
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection => ended,
                        () = cutting.cancelled() => Ok(()),
                    }
                }
            };
            if let Err(error) = ended {
                // A caller that left, or a port scan: nothing to act on.
                tracing::debug!(code = "connection.broken", %error, "a connection ended early");
            }
        });
    }
}

/// Says that there is no room, without reading anything.
async fn refuse(mut stream: TcpStream, counted: Counted) {
    const BODY: &str = "{\"error\":{\"message\":\"The server has as many connections as it may (CONNECTION_LIMIT).\",\
        \"type\":\"service_unavailable\",\"code\":\"connection_limit\",\"param\":null}}";
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 2\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let patience = Duration::from_secs(1);
    if let Ok(Err(error)) = tokio::time::timeout(patience, stream.write_all(answer.as_bytes())).await {
        tracing::debug!(code = "connection.broken", %error, "a refused connection ended early");
    }
    drop(counted);
}

/// A stream whose peer must go on reading: a viewer that takes nothing for too long loses its connection, and resumes.
struct Stalling {
    stream: TcpStream,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    /// It counts as open until it is closed, also when it has become a WebSocket.
    _counted: Counted,
}

impl Stalling {
    fn new(stream: TcpStream, patience: Duration, counted: Counted) -> Self {
        Self { stream, patience, stalled: None, _counted: counted }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let due = Instant::now() + self.patience;
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => {
                tracing::info!(
                    code = "connection.stalled",
                    "a peer took nothing of what was written to it for WRITE_PATIENCE; its connection is closed"
                );
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Stalling {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
