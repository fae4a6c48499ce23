//! Route templates, matched as the host's ASP.NET routing matches them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// A parsed template: literals, `{name}`, and at the end `{name?}` or `{*rest}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter(String),
    Optional(String),
    Rest(String),
}

/// The path of a request cannot be what it claims to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MalformedPath;

impl Template {
    /// Errors say which segment is wrong. Constraints (`{id:int}`), defaults (`{a=1}`) and segments that mix
    /// text with a parameter are refused: no function needs them.
    pub(super) fn parse(route: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        let parts: Vec<&str> = route.split('/').filter(|s| !s.is_empty()).collect();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let Some(inner) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
                if part.contains(['{', '}', '*', '?']) {
                    return Err(format!("segment `{part}` mixes text and a parameter"));
                }
                segments.push(Segment::Literal((*part).to_owned()));
                continue;
            };
            let (name, segment): (&str, fn(String) -> Segment) =
                match (inner.strip_prefix('*'), inner.strip_suffix('?')) {
                    (Some(name), _) => (name.trim_start_matches('*'), Segment::Rest),
                    (None, Some(name)) => (name, Segment::Optional),
                    (None, None) => (inner, Segment::Parameter),
                };
            let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !named {
                return Err(format!("segment `{part}` is not {{name}}, {{name?}} or {{*name}}"));
            }
            if names.iter().any(|n| n.eq_ignore_ascii_case(name)) {
                return Err(format!("parameter `{name}` appears twice"));
            }
            let segment = segment(name.to_owned());
            if !last && !matches!(segment, Segment::Parameter(_)) {
                return Err(format!("segment `{part}` may only stand at the end"));
            }
            names.push(name);
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// The parameters, if the path's decoded segments (see [`segments_of`]) match. A parameter left out is
    /// absent.
    pub(super) fn matches(&self, path: &[String]) -> Option<BTreeMap<String, String>> {
        let mut params = BTreeMap::new();
        let mut rest = path;
        for segment in &self.segments {
            match (segment, rest) {
                (Segment::Literal(text), [first, ..]) if text.eq_ignore_ascii_case(first) => {}
                (Segment::Parameter(name) | Segment::Optional(name), [first, ..]) if !first.is_empty() => {
                    params.insert(name.clone(), first.clone());
                }
                (Segment::Optional(_) | Segment::Rest(_), []) => return Some(params),
                (Segment::Rest(name), all) => {
                    params.insert(name.clone(), all.join("/"));
                    return Some(params);
                }
                _ => return None,
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        rest.is_empty().then_some(params)
    }

    /// Which of two matching templates wins: the one whose first differing segment is more exact.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 1,
            Segment::Parameter(_) | Segment::Optional(_) => 2,
            Segment::Rest(_) => 3,
        };
        self.segments.iter().map(rank).cmp(other.segments.iter().map(rank))
    }
}

/// The segments of a request's path, percent-decoded one by one, so that `%2F` separates nothing.
///
/// A trailing slash is ignored, as the host ignores it. Bytes that are not UTF-8 stay encoded. `.` and `..`
/// match nothing a template could mean, so they are kept as an empty segment, which no template matches.
pub(super) fn segments_of(path: &str) -> Result<Vec<String>, MalformedPath> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/')
        .map(|raw| {
            let decoded = percent_decode_str(raw).decode_utf8().map_or_else(|_| raw.to_owned(), Into::into);
            match decoded.as_str() {
                // The host's own server refuses it, and no database stores it.
                text if text.contains('\0') => Err(MalformedPath),
                "." | ".." => Ok(String::new()),
                _ => Ok(decoded),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = Template::parse(template).expect("a good template");
        let segments = segments_of(path).expect("a good path");
        template.matches(&segments).map(|p| p.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn literals_ignore_case_and_a_trailing_slash() {
        assert_eq!(params("api/health", "/API/Health/"), pairs(&[]));
        assert_eq!(params("api/health", "/api/health/live"), None);
        assert_eq!(params("api/health", "/api"), None);
        assert_eq!(params("api/health", "/api//health"), None);
        assert_eq!(params("", "/"), pairs(&[]));
    }

    #[test]
    fn parameters_are_decoded_and_keep_their_case() {
        assert_eq!(
            params("api/webhooks/{source}/{event?}", "/api/webhooks/Stripe"),
            pairs(&[("source", "Stripe")])
        );
        assert_eq!(
            params("api/webhooks/{source}/{event?}", "/api/webhooks/a%20b/c%2Fd+e"),
            pairs(&[("event", "c/d+e"), ("source", "a b")])
        );
        assert_eq!(params("{a}", "/%E2%82%AC"), pairs(&[("a", "€")]));
        assert_eq!(params("{a}", "/%FF"), pairs(&[("a", "%FF")]), "not UTF-8: left encoded");
        assert_eq!(params("{a}/{b}", "//x"), None, "a parameter is never empty");
        assert_eq!(params("{a}/x", "/%2e%2e/x"), None, "dot segments match nothing");
        assert_eq!(params("{a}", "/.."), None);
    }

    #[test]
    fn the_rest_takes_everything_or_nothing() {
        assert_eq!(params("files/{*path}", "/files/a/b%20c"), pairs(&[("path", "a/b c")]));
        assert_eq!(params("files/{*path}", "/files"), pairs(&[]));
        assert_eq!(params("{*path}", "/"), pairs(&[]));
    }

    #[test]
    fn an_encoded_nul_is_malformed() {
        assert_eq!(segments_of("/a/b%00c"), Err(MalformedPath));
    }

    #[test]
    fn bad_templates_name_the_segment() {
        for (template, says) in [
            ("a/{id:int}", "{id:int}"),
            ("a/{id=1}", "{id=1}"),
            ("{a?}/b", "{a?}"),
            ("{*a}/b", "{*a}"),
            ("file-{a}", "file-{a}"),
            ("{a}/{A}", "twice"),
            ("{}", "{}"),
        ] {
            let error = Template::parse(template).expect_err(template);
            assert!(error.contains(says), "{template}: {error}");
        }
    }

    #[test]
    fn the_more_exact_template_wins() {
        let order =
            |a: &str, b: &str| Template::parse(a).expect("a").precedence(&Template::parse(b).expect("b"));
        assert_eq!(order("a/b", "a/{x}"), Ordering::Less);
        assert_eq!(order("a/{x}", "a/{*x}"), Ordering::Less);
        assert_eq!(order("a", "a/{x?}"), Ordering::Less);
        assert_eq!(order("{*x}", "a/b/c"), Ordering::Greater);
    }
}
