//! httpTrigger of a function that has more than an http output.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};

use super::{Members, Sys, body, merge_binding_data, quoted};

/// A request as the host hands it over.
pub struct HttpEnvelope<'a> {
    pub binding: &'a str,
    /// The public address, with query.
    pub url: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// Route parameters in template order; `None` for an optional one that is absent.
    pub params: &'a [(String, Option<String>)],
    /// Decoded query pairs in order.
    pub query: &'a [(String, String)],
    pub body: &'a [u8],
}

/// The body of the envelope request.
pub fn http_request(request: &HttpEnvelope<'_>, sys: &Sys<'_>) -> serde_json::Result<Vec<u8>> {
    let query = joined(request.query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let text = body_text(request);
    let mut data = Members::default()
        .with("Url", Value::from(request.url))
        .with("Method", Value::from(request.method.as_str()))
        .with("Query", strings(&query))
        .with("Headers", header_arrays(request.headers))
        .with("Params", params(request.params))
        .with("Identities", identities());
    if let Some(text) = &text {
        data = data.with("Body", Value::from(text.as_str()));
    }

    let mut metadata = Members::default();
    if let Some(text) = &text {
        merge_binding_data(&mut metadata, text);
    }
    // The function key is kept out of binding data, though not out of Url, Query and Headers.
    for (name, value) in query.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("code")) {
        metadata.merge(name, quoted(&Value::from(value.as_str())));
    }
    for (name, value) in request.params {
        if let Some(value) = value {
            metadata.merge(name, quoted(&Value::from(value.as_str())));
        }
    }
    let flat = joined(
        request.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())),
    );
    metadata.merge("Query", strings(&query));
    metadata.merge("Headers", strings(&flat));
    body(&Members::default().with(request.binding, data), &metadata.with("sys", sys.members()))
}

/// `None` unless Content-Length is above zero: a chunked body is silently absent.
fn body_text(request: &HttpEnvelope<'_>) -> Option<String> {
    let text = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let length: u64 = text(header::CONTENT_LENGTH)?.parse().ok()?;
    if length == 0 {
        return None;
    }
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let binary = media_type.starts_with("application/octet-stream") || media_type.starts_with("multipart/");
    // Bytes that are not UTF-8 under any other type are spoilt, as the real host spoils them.
    Some(if binary {
        STANDARD.encode(request.body)
    } else {
        String::from_utf8_lossy(request.body).into_owned()
    })
}

/// Values of repeated names, joined by commas, in order of first appearance.
fn joined<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let mut joined: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs {
        match joined.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(value);
            }
            None => joined.push((name.to_owned(), value.to_owned())),
        }
    }
    joined
}

fn strings(pairs: &[(String, String)]) -> Members {
    pairs
        .iter()
        .fold(Members::default(), |members, (name, value)| members.with(name, Value::from(value.as_str())))
}

fn params(params: &[(String, Option<String>)]) -> Members {
    params.iter().fold(Members::default(), |members, (name, value)| members.with(name, json!(value)))
}

fn header_arrays(headers: &HeaderMap) -> Members {
    headers.keys().fold(Members::default(), |members, name| {
        let values: Vec<&str> =
            headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
        members.with(name.as_str(), json!(values))
    })
}

fn identities() -> Vec<super::Node> {
    let claim = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name";
    let anonymous = Members::default()
        .with("AuthenticationType", Value::Null)
        .with("IsAuthenticated", Value::from(false))
        .with("Claims", json!([]))
        .with("NameClaimType", Value::from(claim));
    vec![anonymous.into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn encode(headers: &[(&'static str, &'static str)], content: &[u8]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let request = HttpEnvelope {
            binding: "req",
            url: "http://localhost:7071/api/orders/7?tag=a&tag=b",
            method: &Method::POST,
            headers: &map,
            params: &[("id".to_owned(), Some("7".to_owned()))],
            query: &[("tag".to_owned(), "a".to_owned()), ("tag".to_owned(), "b".to_owned())],
            body: content,
        };
        let sys = Sys {
            function: "orders",
            now: "2026-01-01T10:00:00Z".parse().unwrap(),
            rand_guid: "g".to_owned(),
        };
        String::from_utf8(http_request(&request, &sys).unwrap()).unwrap()
    }

    #[test]
    fn is_byte_for_byte_the_contracts_example_but_for_the_case_of_header_names() {
        // functions-host.md §3, httpTrigger. Header names are lower case here: the HTTP library keeps no other.
        let expected = concat!(
            r#"{"Data":{"req":{"Url":"http://localhost:7071/api/orders/7?tag=a&tag=b","Method":"POST","Query":{"tag":"a,b"},"#,
            r#""Headers":{"content-type":["application/json"],"x-two":["1","2"],"content-length":["9"]},"Params":{"id":"7"},"#,
            r#""Identities":[{"AuthenticationType":null,"IsAuthenticated":false,"Claims":[],"NameClaimType":"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"}],"#,
            r#""Body":"{\"qty\":2}"}},"Metadata":{"qty":"\"2\"","tag":"\"a,b\"","id":"\"7\"","Query":{"tag":"a,b"},"#,
            r#""Headers":{"content-type":"application/json","x-two":"1,2","content-length":"9"},"#,
            r#""sys":{"MethodName":"orders","UtcNow":"2026-01-01T10:00:00.0000000Z","RandGuid":"g"}}}"#,
        );
        let headers =
            [("Content-Type", "application/json"), ("X-Two", "1"), ("X-Two", "2"), ("Content-Length", "9")];
        let headers = headers.map(|(name, value)| (&*name.to_ascii_lowercase().leak(), value));
        assert_eq!(encode(&headers, br#"{"qty":2}"#), expected);
    }

    #[test]
    fn a_chunked_body_is_absent_and_binary_is_base64() {
        let chunked: Value =
            serde_json::from_str(&encode(&[("transfer-encoding", "chunked")], b"{}")).unwrap();
        assert!(chunked["Data"]["req"].get("Body").is_none());
        let headers = [("content-type", "application/octet-stream"), ("content-length", "2")];
        let binary: Value = serde_json::from_str(&encode(&headers, b"\xff\x00")).unwrap();
        assert_eq!(binary["Data"]["req"]["Body"], "/wA=");
    }
}
