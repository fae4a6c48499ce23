//! The console in `web/`, as far as this program was built with it. Nothing of it knows a secret: whoever opens it brings
//! a key of their own, so its files go to everybody who may reach the server.

use bytes::Bytes;
use colloquy::config::SignIn;
use colloquy::openresponses::ApiError;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;
use warp::reply::Response;

use crate::app::App;
use crate::http::Request;
use crate::routes::{not_allowed, unknown};

/// A file of the console: as it is, and compressed with gzip if that is worth it.
struct File {
    path: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
}

// FILES: what build.rs found in web/dist.
include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// Only what the server itself serves runs; images may also be those that somebody attaches. Fetched may be what the
/// server gives, and from where people sign in.
fn policy(sign_in: Option<&SignIn>) -> HeaderValue {
    let with = |issuer: &str| {
        HeaderValue::try_from(format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
             connect-src 'self'{issuer}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ))
    };
    let issuer = sign_in.map_or_else(String::new, |sign_in| format!(" {}", sign_in.origin));
    with(&issuer).or_else(|_| with("")).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The names of assets have a hash of their content in them.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// The console's part of the map.
pub fn dispatch(app: &App, request: &Request, path: &str) -> (&'static str, Result<Response, ApiError>) {
    if path == "/console.json" {
        return ("console.settings", told(app, request));
    }
    ("console", file(app, request, path))
}

/// What the page has to know before anybody has signed in. Also for one that another host serves.
fn told(app: &App, request: &Request) -> Result<Response, ApiError> {
    let console = &app.config.server.console;
    if !console.served && console.sign_in.is_none() {
        return Err(unknown(&request.method, "/console.json"));
    }
    if ![Method::GET, Method::HEAD].contains(&request.method) {
        return Err(not_allowed("GET, HEAD"));
    }
    let mut response = crate::http::json(&json!({ "sign_in": console.sign_in }));
    response.headers_mut().insert(CACHE_CONTROL, ASK_AGAIN);
    Ok(response)
}

/// The file under `path`, `/` being the page; 404 as for any unknown address if there is none or the console is off.
fn file(app: &App, request: &Request, path: &str) -> Result<Response, ApiError> {
    let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
    let console = &app.config.server.console;
    let file = FILES.iter().find(|file| file.path == name).filter(|_| console.served);
    let file = file.ok_or_else(|| unknown(&request.method, path))?;
    if ![Method::GET, Method::HEAD].contains(&request.method) {
        return Err(not_allowed("GET, HEAD"));
    }
    Ok(answer(file, &request.headers, console.sign_in.as_ref()))
}

fn answer(file: &File, asked: &HeaderMap, sign_in: Option<&SignIn>) -> Response {
    let gzip = file.gzip.filter(|_| takes_gzip(asked));
    let mut response = Response::new(Bytes::from_static(gzip.unwrap_or(file.plain)).into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind(file.path));
    headers.insert(CACHE_CONTROL, if file.path.starts_with("assets/") { FOR_EVER } else { ASK_AGAIN });
    headers.insert(CONTENT_SECURITY_POLICY, policy(sign_in));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if gzip.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    let listed = asked.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    listed.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim().eq_ignore_ascii_case("gzip")
            && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

fn kind(path: &str) -> HeaderValue {
    HeaderValue::from_static(match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    })
}

#[cfg(test)]
mod tests {
    use colloquy::config::SentToken;

    use super::*;

    fn answered(path: &'static str, encoding: &'static str) -> Response {
        let file = File { path, plain: b"plain", gzip: Some(b"small") };
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        answer(&file, &asked, None)
    }

    #[test]
    fn what_has_a_hash_in_its_name_is_kept_and_the_page_is_asked_for_again() {
        assert_eq!(answered("assets/index-1a2b.js", "").headers()[CACHE_CONTROL], FOR_EVER);
        assert_eq!(answered("index.html", "").headers()[CACHE_CONTROL], ASK_AGAIN);
    }

    #[test]
    fn compressed_only_to_those_who_can_read_it() {
        for (encoding, compressed) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, gzip;q=0.8", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            let response = answered("index.html", encoding);
            assert_eq!(response.headers().contains_key(CONTENT_ENCODING), compressed, "{encoding}");
        }
    }

    #[test]
    fn the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline() {
        let strict = policy(None);
        let strict = strict.to_str().unwrap();
        assert!(!strict.contains("unsafe") && !strict.contains("http") && !strict.contains('*'), "{strict}");
        let sign_in = SignIn {
            issuer: "https://login.example.com/t/v2.0".into(),
            client_id: "spa".into(),
            scope: "openid".into(),
            token: SentToken::Access,
            origin: "https://login.example.com".into(),
        };
        let open = policy(Some(&sign_in));
        let connect = "connect-src 'self'";
        assert_eq!(open, strict.replace(connect, &format!("{connect} https://login.example.com")));
    }
}
