//! The id that finds one request in answers, logs and rows.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::functions;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's id where it is fit to be logged, else one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

/// The request's id.
pub fn of(headers: &HeaderMap) -> RequestId {
    RequestId(functions::request_id(headers).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
}

impl RequestId {
    pub fn header_value(&self) -> HeaderValue {
        // Its characters were chosen by `of`.
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("invalid"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_is_kept_and_any_other_is_replaced() {
        let with =
            |value: &'static str| of(&HeaderMap::from_iter([(HEADER, HeaderValue::from_static(value))]));
        assert_eq!(with("req_12345678").to_string(), "req_12345678");
        for bad in ["", "short", "with space in it", "\"quoted-and-long\""] {
            assert_ne!(with(bad).to_string(), bad);
        }
        assert!(Uuid::parse_str(&of(&HeaderMap::new()).to_string()).is_ok());
    }
}
