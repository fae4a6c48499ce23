use proptest::prelude::*;

use super::*;
use crate::openresponses::{
    ContentPart, FunctionCall, FunctionCallOutput, ItemStatus, Message, Output, Role,
};

fn message(position: i64, tokens: u64) -> Past {
    let item = Item::Message(Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role: Role::User,
        content: vec![ContentPart::InputText { text: "x".into() }],
        phase: None,
    });
    Past { position, tokens, item: Arc::new(item) }
}

fn call(position: i64, call_id: &str) -> Past {
    let item = Item::FunctionCall(FunctionCall {
        id: String::new(),
        call_id: call_id.into(),
        name: "f".into(),
        arguments: "{}".into(),
        status: ItemStatus::Completed,
    });
    Past { position, tokens: 10, item: Arc::new(item) }
}

fn output(position: i64, call_id: &str) -> Past {
    let item = Item::FunctionCallOutput(FunctionCallOutput {
        id: String::new(),
        call_id: call_id.into(),
        output: Output::Text("1".into()),
        status: ItemStatus::Completed,
    });
    Past { position, tokens: 10, item: Arc::new(item) }
}

#[test]
fn what_fits_is_shown_whole() {
    let past: Vec<_> = (0..10).map(|position| message(position, 10)).collect();
    let window = fit(&past, 50, 50, 200, Truncation::Disabled).unwrap();
    assert_eq!((window.items.len(), window.from, window.tokens), (10, 0, 100));
}

#[test]
fn what_does_not_fit_is_refused_unless_it_may_be_cut() {
    let past: Vec<_> = (0..10).map(|position| message(position, 20)).collect();
    let error = fit(&past, 50, 50, 200, Truncation::Disabled).unwrap_err();
    assert_eq!((error.code, error.status.as_u16()), ("context_length_exceeded", 400));
    let window = fit(&past, 50, 50, 200, Truncation::Auto).unwrap();
    assert!(window.tokens <= 100);
    assert!(fit(&[], 180, 50, 200, Truncation::Auto).is_err(), "the new input alone is too long");
}

#[test]
fn the_cut_stays_for_several_turns() {
    let mut past: Vec<Past> = Vec::new();
    let mut cuts = Vec::new();
    for position in 0..200 {
        past.push(message(position, 10));
        let window = fit(&past, 20, 20, 400, Truncation::Auto).unwrap();
        past.retain(|past| past.position >= window.from);
        if cuts.last() != Some(&window.from) {
            cuts.push(window.from);
        }
    }
    // A quarter of the window is ten items: 200 turns, of which the first 36 need no cut.
    assert!(cuts.len() <= 19, "{cuts:?}");
}

proptest! {
    /// Whatever the thread: what is shown fits, is its end, and holds no output without its call.
    #[test]
    fn a_window_is_a_whole_end(kinds in prop::collection::vec(0..3_u8, 1..60), size in 120..600_u64) {
        let mut past = Vec::new();
        for kind in kinds {
            let position = i64::try_from(past.len()).unwrap();
            match kind {
                0 => past.push(message(position, 10)),
                1 => {
                    past.push(call(position, &position.to_string()));
                    past.push(output(position + 1, &position.to_string()));
                }
                _ => {
                    past.push(call(position, &format!("a{position}")));
                    past.push(call(position + 1, &format!("b{position}")));
                    past.push(output(position + 2, &format!("b{position}")));
                    past.push(output(position + 3, &format!("a{position}")));
                }
            }
        }
        let window = fit(&past, 30, 30, size, Truncation::Auto).unwrap();
        prop_assert!(window.tokens + 60 <= size);
        let shown: Vec<_> = past.iter().filter(|past| past.position >= window.from).collect();
        prop_assert_eq!(shown.len(), window.items.len());
        for item in &window.items {
            if let Item::FunctionCallOutput(output) = &**item {
                let has = window.items.iter().any(|other| matches!(&**other, Item::FunctionCall(call) if call.call_id == output.call_id));
                prop_assert!(has, "an output lost its call");
            }
        }
    }
}
