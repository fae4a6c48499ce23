//! A provider that costs as little as it can: chat completions from a table, as many pieces as the path says, one every so
//! many milliseconds, or all at once.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::time::Instant;

use crate::stand_in::{Body, whole};

/// `POST /PIECES/MILLISECONDS/chat/completions` is answered, as a stream if one is asked for; whatever else is asked gets
/// the number of connections taken so far.
pub async fn answer(request: Request<Incoming>, connections: usize) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let asked = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut path = parts.uri.path().split('/').skip(1).map_while(|part| part.parse::<u64>().ok());
    let (Some(pieces), Some(pace)) = (path.next(), path.next()) else {
        return Ok(Response::new(whole(connections.to_string())));
    };
    let (pieces, pace) = (usize::try_from(pieces).unwrap_or_default(), Duration::from_millis(pace));
    let streamed = [&b"\"stream\":true"[..], b"\"stream\": true"];
    let (body, kind) = if streamed.iter().any(|asks| memchr::memmem::find(&asked, asks).is_some()) {
        (paced(pieces, pace), "text/event-stream")
    } else {
        (whole(ANSWER.replace("WORDS", &"word ".repeat(pieces))), "application/json")
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    Ok(response)
}

fn paced(pieces: usize, pace: Duration) -> Body {
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
    StreamBody::new(frames).boxed_unsync()
}

const ANSWER: &str = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"WORDS\"},\"finish_reason\":\"stop\",\
    \"logprobs\":null}],\"usage\":{\"prompt_tokens\":250,\"completion_tokens\":50,\"total_tokens\":300}}";
const PIECE: &[u8] = b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null,\"logprobs\":null}]}\n\n";
const FINISH: &[u8] =
    b"data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
    \"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"logprobs\":null}]}\n\n";
const END: &[u8] =
    b"data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":250,\"completion_tokens\":50,\
    \"total_tokens\":300}}\n\ndata: [DONE]\n\n";
