//! The order that formats with messages want of tool calls.

use std::sync::Arc;

use crate::openresponses::Item;

/// The items in their order, but calls of tools right before the outputs that answer them. A conversation may have gone
/// on before a call was answered, which Responses APIs take and formats with messages refuse. Until then the call was not
/// shown: so what was shown before stays as it was, for the provider's cache, and what is new comes last. Reasoning goes
/// with the calls it led to.
pub(super) fn calls_before_outputs(items: &[Arc<Item>]) -> Vec<&Item> {
    let mut moved: Vec<Option<usize>> = vec![None; items.len()];
    for (at, item) in items.iter().enumerate() {
        if let Item::FunctionCallOutput(_) = **item
            && let Some(call) = call_of(items, at)
            && items[call..at].iter().any(|between| matches!(**between, Item::Message(_)))
        {
            moved[call].get_or_insert(at);
        }
    }
    if moved.iter().all(Option::is_none) {
        return items.iter().map(|item| &**item).collect();
    }
    // From behind, so that reasoning before reasoning finds where that goes.
    for at in (0..items.len()).rev().filter(|at| is_reasoning(&items[*at])) {
        let mut run =
            (at + 1..items.len()).take_while(|next| is_call(&items[*next]) || is_reasoning(&items[*next]));
        let first = moved.get(at + 1).copied().flatten();
        moved[at] = first.filter(|_| run.all(|next| moved[next].is_some()));
    }
    let mut ordered: Vec<&Item> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate().filter(|(at, _)| moved[*at].is_none()) {
        let begins = is_output(item) && !at.checked_sub(1).is_some_and(|before| is_output(&items[before]));
        if begins {
            let end = at + items[at..].iter().take_while(|item| is_output(item)).count();
            let goes_here = |place: &Option<usize>| place.is_some_and(|place| (at..end).contains(&place));
            ordered.extend(
                items.iter().zip(&moved).filter(|(_, place)| goes_here(place)).map(|(item, _)| &**item),
            );
        }
        ordered.push(item);
    }
    ordered
}

fn is_call(item: &Item) -> bool {
    matches!(item, Item::FunctionCall(_))
}

fn is_output(item: &Item) -> bool {
    matches!(item, Item::FunctionCallOutput(_))
}

fn is_reasoning(item: &Item) -> bool {
    matches!(item, Item::Reasoning(_))
}

/// The newest call before an output with its id, which some models give in every turn.
fn call_of(items: &[Arc<Item>], output: usize) -> Option<usize> {
    let Item::FunctionCallOutput(answer) = &*items[output] else { return None };
    let call =
        |item: &Arc<Item>| matches!(&**item, Item::FunctionCall(call) if call.call_id == answer.call_id);
    items[..output].iter().rposition(call)
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
        let order = calls_before_outputs(&items);
        let number = |wanted: &&Item| items.iter().position(|item| std::ptr::eq(&**item, *wanted)).unwrap();
        order.iter().map(number).collect()
    }

    #[test]
    fn what_is_in_order_stays() {
        for items in [
            vec![said(), call("a"), output("a"), said()],
            vec![thought(), call("a"), thought(), call("b"), output("b"), output("a")],
            vec![call("a"), output("a"), call("a"), output("a")],
            vec![call("a"), said()],
            vec![output("a"), said(), output("a")],
        ] {
            assert_eq!(ordered(&items), (0..items.len()).collect::<Vec<_>>(), "{items:?}");
        }
    }

    #[test]
    fn a_call_that_was_answered_later_goes_before_its_output() {
        assert_eq!(ordered(&[said(), call("a"), said(), said(), output("a")]), [0, 2, 3, 1, 4]);
        let apart = [call("a"), call("b"), said(), output("b"), said(), output("a"), said()];
        assert_eq!(ordered(&apart), [2, 1, 3, 4, 0, 5, 6]);
        let together = [call("a"), call("b"), said(), output("b"), output("a")];
        assert_eq!(ordered(&together), [2, 0, 1, 3, 4]);
        let with_another = [call("a"), said(), call("b"), output("b"), output("a")];
        assert_eq!(ordered(&with_another), [1, 2, 0, 3, 4]);
        assert_eq!(ordered(&[call("a"), said(), call("a"), said(), output("a")]), [0, 1, 3, 2, 4]);
    }

    #[test]
    fn reasoning_goes_with_its_calls() {
        assert_eq!(ordered(&[thought(), call("a"), said(), output("a")]), [2, 0, 1, 3]);
        assert_eq!(ordered(&[thought(), thought(), call("a"), said(), output("a")]), [3, 0, 1, 2, 4]);
        let one_answered = [thought(), call("a"), call("b"), output("b"), said(), output("a")];
        assert_eq!(ordered(&one_answered), [0, 2, 3, 4, 1, 5]);
    }
}
