//! Servers that cost as little as they can, so that what is measured beside them is ours.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is there at once.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Serves until its standard input ends. Prints its address. `answer` is also told how many connections there were.
pub fn serve<F, A>(answer: F) -> anyhow::Result<()>
where
    F: Fn(Request<Incoming>, usize) -> A + Copy + Send + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { accept(TcpListener::from_std(listener)?, answer).await })
    });
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

async fn accept<F, A>(listener: TcpListener, answer: F) -> std::io::Result<()>
where
    F: Fn(Request<Incoming>, usize) -> A + Copy + Send + 'static,
    A: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.fetch_add(1, Ordering::Relaxed);
        let connections = Arc::clone(&connections);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, connections.load(Ordering::Relaxed)));
            // Whoever is done leaves.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}
