//! Which of `store`, `background`, `stream`, `conversation` and `previous_response_id` go together.
//!
//! One table: the code goes by it, `docs/protocol.md` shows it, and a test tries every combination.

use crate::openresponses::{ApiError, CreateResponse, excerpt};

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http,
    WebSocket,
}

/// What a request asks for, as far as this table is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    pub store: bool,
    pub background: bool,
    pub stream: bool,
    pub conversation: bool,
    pub previous: bool,
}

/// One line: where the fields are as given (`None`: either way), the request is refused.
#[derive(Debug)]
pub struct Rule {
    store: Option<bool>,
    background: Option<bool>,
    conversation: Option<bool>,
    previous: Option<bool>,
    /// The field that the error names.
    param: &'static str,
    code: &'static str,
    why: &'static str,
}

/// Everything not refused here is allowed.
pub const RULES: &[Rule] = &[
    Rule {
        store: None,
        background: None,
        conversation: Some(true),
        previous: Some(true),
        param: "previous_response_id",
        code: "mutually_exclusive_parameters",
        why: "'conversation' and 'previous_response_id' both say what goes before; give one of them.",
    },
    Rule {
        store: Some(false),
        background: Some(true),
        conversation: None,
        previous: None,
        param: "background",
        code: "invalid_value",
        why: "A background response is fetched later, so it must be stored: leave 'store' out or set it to true.",
    },
    Rule {
        store: Some(false),
        background: None,
        conversation: Some(true),
        previous: None,
        param: "conversation",
        code: "invalid_value",
        why: "A turn of a conversation becomes part of it, so it must be stored: leave 'store' out or set it to true.",
    },
];

impl Combination {
    /// What a request asks for; what is left out counts as its default.
    pub fn of(request: &CreateResponse) -> Self {
        Self {
            store: request.stores(),
            background: request.background.unwrap_or(false),
            stream: request.stream.unwrap_or(false),
            conversation: request.conversation.is_some(),
            previous: request.previous_response_id.is_some(),
        }
    }

    fn refused(&self) -> Option<&'static Rule> {
        let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        RULES.iter().find(|rule| {
            fits(rule.store, self.store)
                && fits(rule.background, self.background)
                && fits(rule.conversation, self.conversation)
                && fits(rule.previous, self.previous)
        })
    }
}

/// Checks a request against the table.
pub fn check(request: &CreateResponse, transport: Transport) -> Result<(), ApiError> {
    match (transport, request.kind.as_deref()) {
        (Transport::Http, Some(_)) => {
            return Err(ApiError::invalid("unknown_parameter", "type", "Unknown parameter: 'type'."));
        }
        (Transport::WebSocket, None) => return Err(ApiError::missing("type")),
        (Transport::WebSocket, Some(kind)) if kind != "response.create" => {
            let message =
                format!("Invalid value: '{}'. Supported values are: 'response.create'.", excerpt(kind));
            return Err(ApiError::invalid_value("type", message));
        }
        _ => {}
    }
    if transport == Transport::WebSocket {
        let sent = [
            ("stream", request.stream.is_some()),
            ("stream_options", request.stream_options.is_some()),
            ("background", request.background.is_some()),
        ];
        if let Some((param, _)) = sent.into_iter().find(|(_, sent)| *sent) {
            let message = format!("'{param}' must not be sent over a WebSocket, which always streams.");
            return Err(ApiError::unsupported(param, message));
        }
    } else if request.stream_options.is_some() && request.stream != Some(true) {
        return Err(ApiError::invalid_value("stream_options", "'stream_options' needs 'stream' to be true."));
    }
    if request.callback.is_some() && !(request.background == Some(true) && request.stores()) {
        let message = "'callback' tells of the end of a background response, which is stored: set 'background' to true \
                       and leave 'store' out, or leave 'callback' out.";
        return Err(ApiError::invalid_value("callback", message));
    }
    match Combination::of(request).refused() {
        Some(rule) => Err(ApiError::invalid(rule.code, rule.param, rule.why)),
        None => Ok(()),
    }
}

/// The table of `docs/protocol.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "| `store` | `background` | `stream` | `conversation` | `previous_response_id` | answer |\n|---|---|---|---|---|---|\n",
    );
    for bits in 0..32_u8 {
        let bit = |place: u8| bits & (1 << place) != 0;
        let combination = Combination {
            store: !bit(4),
            background: bit(3),
            stream: bit(2),
            conversation: bit(1),
            previous: bit(0),
        };
        let word = |yes: bool| if yes { "yes" } else { "no" };
        let answer = match (combination.refused(), combination.background, combination.stream) {
            (Some(rule), _, _) => format!("400 `{}` on `{}`", rule.code, rule.param),
            (None, true, true) => "stream; goes on when the client leaves".to_owned(),
            (None, true, false) => "at once, `queued`; fetched later".to_owned(),
            (None, false, true) => "stream".to_owned(),
            (None, false, false) => "the whole response".to_owned(),
        };
        let Combination { store, background, stream, conversation, previous } = combination;
        page.push_str(&format!(
            "| {} | {} | {} | {} | {} | {answer} |\n",
            word(store),
            word(background),
            word(stream),
            word(conversation),
            word(previous)
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_settled() {
        let mut allowed = 0;
        for bits in 0..32_u8 {
            let bit = |place: u8| bits & (1 << place) != 0;
            let body = serde_json::json!({
                "model": "demo", "input": "hi",
                "store": bit(4), "background": bit(3), "stream": bit(2),
                "conversation": bit(1).then_some("conv_1"),
                "previous_response_id": bit(0).then_some("resp_1"),
            });
            let request = CreateResponse::parse(body.to_string().as_bytes()).unwrap();
            let refused = check(&request, Transport::Http)
                .err()
                .map(|error| (error.status.as_u16(), error.param.unwrap()));
            let expected = match (bit(4), bit(3), bit(1), bit(0)) {
                (_, _, true, true) => Some("previous_response_id"),
                (false, true, _, _) => Some("background"),
                (false, _, true, _) => Some("conversation"),
                _ => None,
            };
            assert_eq!(refused, expected.map(|param| (400, param.to_owned())), "{body}");
            allowed += u8::from(refused.is_none());
        }
        // Stored: 2 × 2 × (neither, conversation, previous). Not stored: stream or not × (neither, previous).
        assert_eq!(allowed, 12 + 4);
    }

    #[test]
    fn a_socket_takes_no_fields_of_http() {
        for field in ["stream", "background"] {
            let body = format!(r#"{{"model": "demo", "input": "hi", "{field}": false}}"#);
            let mut request = CreateResponse::parse(body.as_bytes()).unwrap();
            assert!(check(&request, Transport::Http).is_ok());
            assert_eq!(check(&request, Transport::WebSocket).unwrap_err().param.as_deref(), Some("type"));
            request.kind = Some("response.create".into());
            assert_eq!(check(&request, Transport::WebSocket).unwrap_err().param.as_deref(), Some(field));
            assert_eq!(check(&request, Transport::Http).unwrap_err().param.as_deref(), Some("type"));
        }
    }

    #[test]
    fn the_page_shows_the_table() {
        crate::testing::assert_tables("docs/protocol.md", &[("combinations", markdown())], "combinations");
    }
}
