use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::config::AppConfig;
use crate::openresponses::{CreateResponse, FunctionCall, ItemStatus, Message};

fn route(more: &str) -> Route {
    let file = format!(
        r#"
[sources.crm]
kind = "espocrm"
[deployments.demo]
provider = "demo"
[models.small]
deployments = ["demo"]
[[routes]]
source = "crm"
action = "respond"
model = "small"
instructions = "Answer."
input = "{{{{ event.payload }}}}"
{more}"#
    );
    let app = AppConfig::parse(&file, None, &[]).unwrap();
    Route::new(&app.routes[0]).unwrap().unwrap()
}

fn response(route: &Route, output: Vec<Item>) -> Response {
    let event = crate::respond::EventData {
        id: crate::ids::EventId::new(),
        source: "crm".into(),
        event_type: "x".into(),
        key: "k".into(),
        subject: None,
        received_at: jiff::Timestamp::UNIX_EPOCH,
        run: 1,
        payload: json!("hello"),
        headers: serde_json::Map::new(),
    };
    let limits = crate::respond::template::Limits { fuel: 10_000, max_bytes: 10_000 };
    let request: CreateResponse = route.ask(&event, uuid::Uuid::nil(), limits, None).unwrap().request;
    let mut response = Response::begun(&request, "resp_1".into(), "small".into(), 0);
    response.output = output.into_iter().map(Arc::new).collect();
    response
}

fn says(text: &str) -> Item {
    Item::Message(Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role: Role::Assistant,
        content: vec![ContentPart::output_text(text.to_owned())],
        phase: None,
    })
}

const SCHEMA: &str = r#"text.format = { type = "json_schema", name = "a", schema = '{ "required": ["n"], "properties": { "n": { "type": "integer" } } }' }"#;

#[test]
fn an_answer_is_taken_only_in_the_form_it_must_have() {
    let route_of = route(SCHEMA);
    let of = |text: &str| Answer::of(&route_of, &response(&route_of, vec![says(text)]));
    assert_eq!(of(r#"{"n": 1}"#), Ok(Answer::Json(json!({ "n": 1 }))));
    for wrong in [r#"{"n": "s3cr3t"}"#, "{}", "sure: {\"n\": 1}", "```json\n{\"n\": 1}\n```"] {
        match of(wrong) {
            Err(Rejected::Misshapen { answer, problems, calls }) => {
                assert_eq!((answer.as_str(), calls.len()), (wrong, 0));
                assert!(!problems.is_empty() && !problems.join(" ").contains("s3cr3t"), "{problems:?}");
            }
            other => panic!("{wrong}: {other:?}"),
        }
    }
    assert_eq!(of("  "), Err(Rejected::Empty));
    let plain = route("");
    assert_eq!(Answer::of(&plain, &response(&plain, vec![says("Hi.")])), Ok(Answer::Text("Hi.".into())));
    let object = route("text.format = { type = \"json_object\" }");
    assert!(Answer::of(&object, &response(&object, vec![says("[1]")])).is_err());
}

#[test]
fn a_refusal_is_no_answer() {
    let route = route(SCHEMA);
    let refusal = Item::Message(Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role: Role::Assistant,
        content: vec![ContentPart::Refusal { refusal: "No.".into() }],
        phase: None,
    });
    assert_eq!(Answer::of(&route, &response(&route, vec![refusal])), Err(Rejected::Refused));
}

#[test]
fn only_functions_of_the_route_are_called_and_with_arguments_that_fit() {
    let route = route(
        r#"tools = [{ type = "function", name = "close", parameters = { type = "object", required = ["id"], properties = { id = { type = "string" } } } }]"#,
    );
    let call = |name: &str, arguments: &str| {
        let call = Item::FunctionCall(FunctionCall {
            id: String::new(),
            call_id: "c1".into(),
            name: name.into(),
            arguments: arguments.into(),
            status: ItemStatus::Completed,
        });
        Answer::of(&route, &response(&route, vec![call]))
    };
    let taken = Call { call_id: "c1".into(), name: "close".into(), arguments: json!({ "id": "x" }) };
    assert_eq!(call("close", r#"{"id":"x"}"#), Ok(Answer::Calls(vec![taken])));
    for (name, arguments) in [("close", "{}"), ("close", "nonsense"), ("open", r#"{"id":"x"}"#)] {
        match call(name, arguments) {
            Err(Rejected::Misshapen { calls, .. }) => assert_eq!(calls, ["c1"]),
            other => panic!("{name} {arguments}: {other:?}"),
        }
    }
}
