//! The order that formats with messages want of tool calls.

use std::sync::Arc;

use crate::openresponses::Item;

/// The items in their order, but outputs of tools right behind the calls they answer. A conversation may have gone on
/// before a call was answered, which Responses APIs take and formats with messages refuse.
pub(super) fn outputs_behind_calls(items: &[Arc<Item>]) -> Vec<&Item> {
    let mut ordered: Vec<&Item> = Vec::with_capacity(items.len());
    let mut moved = vec![false; items.len()];
    let mut calls: Vec<usize> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        if moved[at] {
            continue;
        }
        ordered.push(item);
        if matches!(**item, Item::FunctionCall(_)) {
            calls.push(at);
        }
        // Parallel calls are answered together.
        if calls.is_empty() || calls_follow(&items[at + 1..]) {
            continue;
        }
        for call in calls.drain(..) {
            if let Some(output) = output_of(items, call).filter(|output| !moved[*output]) {
                moved[output] = true;
                ordered.push(&items[output]);
            }
        }
    }
    ordered
}

fn calls_follow(items: &[Arc<Item>]) -> bool {
    let next = items.iter().find(|item| !matches!(***item, Item::Reasoning(_)));
    next.is_some_and(|next| matches!(**next, Item::FunctionCall(_)))
}

/// Some models give the same ids in every turn: what follows another call of that id answers that one.
fn output_of(items: &[Arc<Item>], call: usize) -> Option<usize> {
    let Item::FunctionCall(called) = &*items[call] else { return None };
    let later = items.iter().enumerate().skip(call + 1);
    let mut same = later.filter(|(_, item)| match &***item {
        Item::FunctionCall(other) => other.call_id == called.call_id,
        Item::FunctionCallOutput(output) => output.call_id == called.call_id,
        _ => false,
    });
    same.next().filter(|(_, item)| matches!(***item, Item::FunctionCallOutput(_))).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn call(id: &str) -> Value {
        json!({ "type": "function_call", "id": "fc", "call_id": id, "name": "f", "arguments": "{}", "status": "completed" })
    }

    fn output(id: &str) -> Value {
        json!({ "type": "function_call_output", "id": "fco", "call_id": id, "output": "1", "status": "completed" })
    }

    fn said() -> Value {
        json!({ "type": "message", "id": "msg", "status": "completed", "role": "user",
                "content": [{ "type": "input_text", "text": "x" }] })
    }

    fn thought() -> Value {
        json!({ "type": "reasoning", "id": "rs", "summary": [], "status": "completed" })
    }

    /// The numbers of the items in the order they go out.
    fn ordered(items: &[Value]) -> Vec<usize> {
        let items: Vec<Arc<Item>> =
            items.iter().map(|item| Arc::new(serde_json::from_value(item.clone()).unwrap())).collect();
        let order = outputs_behind_calls(&items);
        let number = |wanted: &&Item| items.iter().position(|item| std::ptr::eq(&**item, *wanted)).unwrap();
        order.iter().map(number).collect()
    }

    #[test]
    fn what_is_in_order_stays() {
        for items in [
            vec![said(), call("a"), output("a"), said()],
            vec![call("a"), thought(), call("b"), output("a"), output("b")],
            vec![call("a"), output("a"), call("a"), output("a")],
            vec![call("a"), said()],
        ] {
            assert_eq!(ordered(&items), (0..items.len()).collect::<Vec<_>>(), "{items:?}");
        }
    }

    #[test]
    fn an_output_that_came_later_goes_behind_its_call() {
        assert_eq!(ordered(&[said(), call("a"), said(), said(), output("a")]), [0, 1, 4, 2, 3]);
        assert_eq!(
            ordered(&[call("a"), call("b"), said(), output("b"), said(), output("a")]),
            [0, 1, 5, 3, 2, 4]
        );
        assert_eq!(ordered(&[call("a"), said(), call("a"), said(), output("a")]), [0, 1, 2, 4, 3]);
    }
}
