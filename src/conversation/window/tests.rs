use proptest::prelude::*;

use super::*;
use crate::openresponses::{
    ContentPart, FunctionCall, FunctionCallOutput, ItemStatus, Message, Output, Role,
};

fn message(before: u64, tokens: u64) -> Past {
    let item = Item::Message(Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role: Role::User,
        content: vec![ContentPart::InputText { text: "x".into() }],
        phase: None,
    });
    Past { tokens_before: before, tokens, item: Arc::new(item) }
}

fn call(before: u64, call_id: &str) -> Past {
    let item = Item::FunctionCall(FunctionCall {
        id: String::new(),
        call_id: call_id.into(),
        name: "f".into(),
        arguments: "{}".into(),
        status: ItemStatus::Completed,
    });
    Past { tokens_before: before, tokens: 10, item: Arc::new(item) }
}

fn output(before: u64, call_id: &str) -> Past {
    let item = Item::FunctionCallOutput(FunctionCallOutput {
        id: String::new(),
        call_id: call_id.into(),
        output: Output::Text("1".into()),
        status: ItemStatus::Completed,
    });
    Past { tokens_before: before, tokens: 10, item: Arc::new(item) }
}

fn messages(count: u64, tokens: u64) -> Vec<Past> {
    (0..count).map(|at| message(at * tokens, tokens)).collect()
}

fn shown(past: &[Past]) -> u64 {
    past.iter().map(|past| past.tokens).sum()
}

#[test]
fn what_fits_is_shown_whole() {
    assert_eq!(fit(&messages(10, 10), true, 50, 50, 200), 0);
}

#[test]
fn what_does_not_fit_is_cut() {
    let past = messages(10, 20);
    let start = fit(&past, true, 50, 50, 200);
    assert!(shown(&past[start..]) <= 100);
    assert_eq!(fit(&past, true, 180, 50, 200), past.len(), "there is no room for any of it");
}

#[test]
fn what_was_deleted_takes_no_room() {
    // The first hundred items are deleted, and some in between.
    let past: Vec<_> = messages(120, 10)
        .into_iter()
        .skip(100)
        .enumerate()
        .filter(|(at, _)| at % 2 == 0)
        .map(|(_, past)| past)
        .collect();
    assert_eq!(fit(&past, true, 50, 50, 200), 0);
    let start = fit(&past, true, 51, 50, 200);
    assert!(start > 0 && start < past.len(), "{start}");
}

/// A message of so many letters: a third of them tokens, and four.
fn says(role: Role, letters: usize) -> Arc<Item> {
    Arc::new(Item::Message(Message {
        id: String::new(),
        status: ItemStatus::Completed,
        role,
        content: vec![ContentPart::InputText { text: "x".repeat(letters) }],
        phase: None,
    }))
}

#[test]
fn input_is_cut_from_its_start_but_for_instructions() {
    let user = |letters| says(Role::User, letters);
    let items = vec![user(30), says(Role::Developer, 30), user(30), user(30)];
    let left = |room| fit_input(items.clone(), room);
    assert_eq!(left(56).len(), 4, "it fits");
    let cut = left(55);
    assert_eq!(cut.len(), 3);
    assert!(Arc::ptr_eq(&cut[0], &items[1]));
    assert_eq!(left(28).len(), 2);
    assert_eq!(left(0).len(), 2, "the newest stays");
    assert!(fit_input(Vec::new(), 0).is_empty());
}

#[test]
fn the_newest_output_keeps_its_call() {
    let (called, answered) = (call(0, "a").item, output(0, "a").item);
    let items = vec![says(Role::User, 300), called, answered];
    assert_eq!(fit_input(items, 0).len(), 2);
}

#[test]
fn the_cut_stays_for_several_turns() {
    let past = messages(200, 10);
    let mut cuts = Vec::new();
    for turn in 1..=past.len() {
        // As the database gives it: the newest, a little more than the window holds.
        let loaded = &past[turn.saturating_sub(41)..turn];
        let start = fit(loaded, false, 20, 20, 400);
        let cut = loaded.get(start).map(|past| past.tokens_before);
        if cuts.last() != Some(&cut) {
            cuts.push(cut);
        }
    }
    // A quarter of the window is ten items: 200 turns, of which the first 36 need no cut.
    assert!(cuts.len() <= 18, "{cuts:?}");
}

proptest! {
    /// Whatever the thread: what is shown fits, and holds no output without its call.
    #[test]
    fn a_window_is_a_whole_end(kinds in prop::collection::vec(0..3_u8, 1..60), size in 120..600_u64) {
        let mut past: Vec<Past> = Vec::new();
        for kind in kinds {
            let before = u64::try_from(past.len()).unwrap() * 10;
            match kind {
                0 => past.push(message(before, 10)),
                1 => {
                    past.push(call(before, &before.to_string()));
                    past.push(output(before + 10, &before.to_string()));
                }
                _ => {
                    past.push(call(before, &format!("a{before}")));
                    past.push(call(before + 10, &format!("b{before}")));
                    past.push(output(before + 20, &format!("b{before}")));
                    past.push(output(before + 30, &format!("a{before}")));
                }
            }
        }
        let start = fit(&past, true, 30, 30, size);
        let shown_items = &past[start..];
        prop_assert!(shown(shown_items) + 60 <= size);
        for past in shown_items {
            if let Item::FunctionCallOutput(output) = &*past.item {
                let has = shown_items.iter().any(|other| matches!(&*other.item, Item::FunctionCall(call) if call.call_id == output.call_id));
                prop_assert!(has, "an output lost its call");
            }
        }
    }
}
