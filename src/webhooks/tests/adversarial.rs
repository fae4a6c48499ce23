//! Authentic bodies made to hurt: deep, huge, ambiguous.

use std::time::{Duration, Instant};

use super::support::{every_kind, post, source, text};

#[test]
fn nesting_of_any_depth_is_walked_without_a_stack() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let stripe = source("kind = \"stripe\"", "s");
    let body = format!(r#"{{"id":"evt_1","type":"t","data":{}}}"#, deep(100_000));
    assert_eq!(post(body).event(&stripe).key, "evt_1");
    let body =
        format!(r#"{{"x":{}1{},"id":"evt_2","type":"t"}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    assert_eq!(post(body).event(&stripe).key, "evt_2");
    // Never closed, or nothing but brackets: refused or kept, but survived by every kind.
    for source in every_kind() {
        for body in ["[".repeat(100_000), "{\"a\":".repeat(50_000), deep(100_000)] {
            post(body).receive(&source).map(|_| ()).unwrap_or(());
        }
    }
}

#[test]
fn numbers_stay_as_they_were_written() {
    let generic =
        source("kind = \"bearer\"\nevent = { key_pointer = \"/n\", split_pointer = \"/list\" }", "t");
    let numbers = [
        "1e400",
        "-0.0",
        "123456789012345678901234567890.10",
        "1E+2",
        "0.1000000000000000055511151231257827",
    ];
    let list = numbers.map(|n| format!("{{ \"n\" : {n} }}")).join(",");
    let events = post(format!("{{\"list\":[{list}]}}")).events(&generic);
    for (event, number) in events.iter().zip(numbers) {
        assert_eq!(event.key, number);
        assert_eq!(text(&event.payload), format!("{{ \"n\" : {number} }}"));
    }
}

#[test]
fn a_name_that_occurs_twice_is_refused_where_it_matters() {
    let stripe = source("kind = \"stripe\"", "s");
    for body in [
        r#"{"id":"evt_1","id":"evt_2","type":"t"}"#,
        r#"{"id":"evt_1","\u0069d":"evt_2","type":"t"}"#,
        r#"{"id":"evt_1","type":"t","type":"t"}"#,
    ] {
        assert!(post(body).receive(&stripe).unwrap_err().to_string().contains("occurs twice"), "{body}");
    }
    assert!(post(r#"{"id":"evt_1","type":"t","x":1,"x":2}"#).receive(&stripe).is_ok());
}

#[test]
fn text_that_is_no_unicode_names_nothing() {
    let stripe = source("kind = \"stripe\"", "s");
    assert!(post(r#"{"id":"\ud800","type":"t"}"#).receive(&stripe).is_err());
    let event = post(r#"{"id":"evt_1","type":"t","data":{"object":{"id":"\ud800"}}}"#).event(&stripe);
    assert_eq!(event.subject, None);
    let event = post("{\"id\":\"evt_1\",\"type\":\"a\\u0000b\"}").event(&stripe);
    assert_eq!(event.event_type, "a\u{fffd}b");
}

#[test]
fn a_body_that_is_almost_json_is_malformed() {
    let stripe = source("kind = \"stripe\"", "s");
    for body in [
        "",
        " ",
        "null",
        "\"id\"",
        "{\"id\":\"a\",\"type\":\"t\"} {}",
        "{\"id\":\"a\",\"type\":\"t\",}",
        "{'id':'a'}",
        "\u{feff}{\"id\":\"a\",\"type\":\"t\"}",
        "{\"id\":\"a\",\"type\":\"t\"",
        "{\"id\":null,\"type\":\"t\"}",
        "{\"id\":[\"a\"],\"type\":\"t\"}",
    ] {
        assert!(post(body).receive(&stripe).is_err(), "{body}");
    }
    assert!(post(" \n{\"id\":\"a\",\"type\":\"t\"}\r\n").receive(&stripe).is_ok());
}

#[test]
fn many_members_and_elements_take_no_more_than_their_length() {
    let stripe = source("kind = \"stripe\"", "s");
    let members = (0..200_000).map(|n| format!("\"m{n}\":0,")).collect::<String>();
    let crm = source("kind = \"espocrm\"", "k");
    let elements = format!("[{}{{}}]", "{},".repeat(1_000_000));
    let started = Instant::now();
    assert!(post(format!("{{{members}\"id\":\"evt_1\",\"type\":\"t\"}}")).receive(&stripe).is_ok());
    assert!(post(elements).receive(&crm).is_err());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
