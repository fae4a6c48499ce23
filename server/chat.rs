//! `/v1/chat/completions`.

use std::sync::Arc;

use colloquy::chatcompletions::{Asked, ChatRequest, ChatViewer, Progress, completion};
use colloquy::conversation::combinations::Transport;
use colloquy::openresponses::ApiError;
use colloquy::switches::Feature;
use http::HeaderMap;
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::responses::{call, refused_early};
use crate::stream::{self, Frames};

/// `POST /v1/chat/completions`.
pub async fn create(app: &Arc<App>, mut request: Request) -> Result<Response, ApiError> {
    let who = app.authenticate(&request.headers).await?;
    let body = request.json_bytes().await?;
    let Asked { request: parameters, stream, include_usage, terms } =
        ChatRequest::parse(&body)?.translate()?;
    app.engine.permit_feature(Feature::Chat).await?;
    let admitted = app.admit(&who, body.len())?;
    let mut rates = HeaderMap::new();
    admitted.describe(&mut rates);
    let call = call(&request.headers, Transport::Http, &body)?;
    drop(body);
    let answer = async {
        let turn = app.engine.create(&who, parameters, call, admitted).await?;
        let limits = &app.config.server;
        if stream {
            let viewer = ChatViewer::new(Arc::clone(&turn), include_usage);
            refused_early(app, &turn).await?;
            return Ok(stream::sse(viewer, limits));
        }
        let _watching = turn.live.watch();
        refused_early(app, &turn).await?;
        let live = Arc::clone(&turn.live);
        let write = move |response: &_| completion(response, turn.failure());
        stream::json(live, limits.json_keep_alive, limits.heartbeat, write).await
    };
    let mut response = answer.await.map_err(|error| terms.apply(error))?;
    response.headers_mut().extend(rates);
    Ok(response)
}

impl Frames for ChatViewer {
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        self.poll(out) == Progress::More
    }

    async fn changed(&mut self) {
        ChatViewer::changed(self).await;
    }
}
