//! A provider that costs as little as it can, so that what is measured beside it is ours: chat completions from a table,
//! as many pieces as the path says, one every so many milliseconds, or all at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Serves until its standard input ends. Prints its address.
pub fn provide() -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { serve(TcpListener::from_std(listener)?).await })
    });
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.fetch_add(1, Ordering::Relaxed);
        let connections = Arc::clone(&connections);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, connections.load(Ordering::Relaxed)));
            // Whoever is done leaves.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// `POST /PIECES/MILLISECONDS/chat/completions` is answered; whatever else is asked gets the number of connections taken
/// so far.
async fn answer(request: Request<Incoming>, connections: usize) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    body.collect().await.ok();
    let mut path = parts.uri.path().split('/').skip(1).map_while(|part| part.parse::<u64>().ok());
    let (Some(pieces), Some(pace)) = (path.next(), path.next()) else {
        return Ok(Response::new(Full::new(Bytes::from(connections.to_string())).boxed_unsync()));
    };
    let (pieces, pace) = (usize::try_from(pieces).unwrap_or_default(), Duration::from_millis(pace));
    let started = Instant::now();
    let frames = stream::iter(0..pieces + 2).then(move |nth| async move {
        if !pace.is_zero() {
            let due = pace * u32::try_from(nth.min(pieces)).unwrap_or(u32::MAX);
            tokio::time::sleep_until(started + due).await;
        }
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(match nth.cmp(&pieces) {
            std::cmp::Ordering::Less => PIECE,
            std::cmp::Ordering::Equal => FINISH,
            std::cmp::Ordering::Greater => END,
        })))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}

const PIECE: &[u8] = b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null,\"logprobs\":null}]}\n\n";
const FINISH: &[u8] =
    b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"logprobs\":null}]}\n\n";
const END: &[u8] =
    b"data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":250,\"completion_tokens\":50,\
    \"total_tokens\":300}}\n\ndata: [DONE]\n\n";
