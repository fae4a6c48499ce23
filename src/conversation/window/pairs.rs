//! Tool calls and their outputs: what providers take only together.
//!
//! A turn that was cut in mid call leaves half of one, a caller may never answer one, and may delete either half. Every
//! provider refuses the other half alone, so it is not shown, or nothing could be said in that conversation any more.
//! The same goes for reasoning without what it led to.

use std::collections::HashMap;

use crate::openresponses::{Item, ItemStatus, Role};

/// Leaves out of `past`, oldest first: calls that were cut, calls that neither `past` nor `new` answers, and outputs
/// without their call. Reasoning that led to nothing, or to nothing but such calls, goes with them.
pub fn leave_out_unpaired<'n, T>(
    past: &mut Vec<T>,
    item: impl Fn(&T) -> &Item,
    new: impl Iterator<Item = &'n Item>,
) {
    let mut shown = shown(&past.iter().map(item).collect::<Vec<_>>(), new).into_iter();
    past.retain(|_| shown.next().unwrap_or(true));
}

fn shown<'n>(past: &[&Item], new: impl Iterator<Item = &'n Item>) -> Vec<bool> {
    let alone = |item: &&Item| !matches!(item, Item::FunctionCall(_) | Item::FunctionCallOutput(_));
    let mut shown: Vec<bool> = past.iter().map(alone).collect();
    // Where the newest call of an id is; some models give the same ids in every turn.
    let mut calls: HashMap<&str, Option<usize>> = HashMap::new();
    let past_items = past.iter().enumerate().map(|(at, item)| (Some(at), *item));
    let new: Vec<&Item> = new.collect();
    for (at, item) in past_items.chain(new.iter().map(|item| (None, *item))) {
        match item {
            Item::FunctionCall(call) if at.is_some() && call.status == ItemStatus::Incomplete => {
                calls.remove(call.call_id.as_str());
            }
            Item::FunctionCall(call) => {
                calls.insert(&call.call_id, at);
            }
            Item::FunctionCallOutput(output) => {
                if let Some(call) = calls.get(output.call_id.as_str()) {
                    [*call, at].into_iter().flatten().for_each(|at| shown[at] = true);
                }
            }
            _ => {}
        }
    }
    for (at, item) in past.iter().enumerate() {
        if matches!(item, Item::Reasoning(_)) {
            let later = past[at + 1..].iter().copied().zip(shown[at + 1..].iter().copied());
            let later = later.chain(new.iter().map(|item| (*item, true)));
            shown[at] = leads_somewhere(later);
        }
    }
    shown
}

/// Whether what follows reasoning is something the model said, or a call that is shown.
fn leads_somewhere<'n>(later: impl Iterator<Item = (&'n Item, bool)>) -> bool {
    let mut later = later.skip_while(|(item, _)| matches!(item, Item::Reasoning(_))).peekable();
    match later.peek() {
        Some((Item::Message(message), _)) => message.role == Role::Assistant,
        _ => later.take_while(|(item, _)| matches!(item, Item::FunctionCall(_))).any(|(_, shown)| shown),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn items(items: &[Value]) -> Vec<Item> {
        items.iter().map(|item| serde_json::from_value(item.clone()).unwrap()).collect()
    }

    fn call(call_id: &str, status: &str) -> Value {
        json!({ "type": "function_call", "id": call_id, "call_id": call_id, "name": "f", "arguments": "{", "status": status })
    }

    fn done(call_id: &str) -> Value {
        call(call_id, "completed")
    }

    fn output(call_id: &str) -> Value {
        json!({ "type": "function_call_output", "id": "fco", "call_id": call_id, "output": "1", "status": "completed" })
    }

    fn said() -> Value {
        json!({ "type": "message", "id": "msg", "status": "completed", "role": "user",
                "content": [{ "type": "input_text", "text": "x" }] })
    }

    fn answer() -> Value {
        json!({ "type": "message", "id": "msg", "status": "completed", "role": "assistant",
                "content": [{ "type": "output_text", "text": "x", "annotations": [], "logprobs": [] }] })
    }

    fn thought() -> Value {
        json!({ "type": "reasoning", "id": "rs", "summary": [], "status": "completed" })
    }

    /// Which of the past are shown.
    fn left(past: &[Value], new: &[Value]) -> Vec<usize> {
        let mut numbered: Vec<_> = items(past).into_iter().enumerate().collect();
        leave_out_unpaired(&mut numbered, |(_, item)| item, items(new).iter());
        numbered.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn a_call_and_its_output_stay() {
        assert_eq!(left(&[said(), done("a"), output("a"), said()], &[said()]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_call_without_an_output_is_left_out() {
        assert_eq!(left(&[said(), done("a")], &[said()]), [0]);
        assert_eq!(left(&[said(), call("a", "incomplete")], &[said()]), [0]);
    }

    #[test]
    fn a_cut_call_is_left_out_even_if_it_was_answered() {
        assert_eq!(left(&[call("a", "incomplete"), output("a"), said()], &[]), [2]);
        assert_eq!(left(&[said(), call("a", "incomplete")], &[output("a")]), [0]);
    }

    #[test]
    fn a_call_that_the_new_input_answers_stays() {
        assert_eq!(left(&[said(), done("a")], &[output("a")]), [0, 1]);
    }

    #[test]
    fn of_parallel_calls_the_answered_ones_stay() {
        let past = [done("a"), done("b"), done("c"), output("b")];
        assert_eq!(left(&past, &[output("c")]), [1, 2, 3]);
    }

    #[test]
    fn an_output_without_its_call_is_left_out() {
        assert_eq!(left(&[said(), output("a"), said()], &[]), [0, 2]);
        assert_eq!(left(&[output("a"), done("a")], &[]), [0_usize; 0], "its call comes first");
    }

    #[test]
    fn an_id_that_is_used_again_is_another_call() {
        assert_eq!(left(&[done("a"), output("a"), done("a")], &[said()]), [0, 1]);
        assert_eq!(left(&[done("a"), said(), done("a"), output("a")], &[]), [1, 2, 3]);
        assert_eq!(left(&[done("a")], &[done("a"), output("a")]), [0_usize; 0], "the new one is answered");
    }

    #[test]
    fn reasoning_goes_with_the_calls_it_led_to() {
        assert_eq!(left(&[said(), thought(), done("a")], &[said()]), [0]);
        assert_eq!(left(&[thought(), done("a"), done("b"), output("b")], &[]), [0, 2, 3]);
        assert_eq!(left(&[thought(), answer(), done("a")], &[]), [0, 1]);
    }

    #[test]
    fn reasoning_that_led_to_nothing_is_left_out() {
        assert_eq!(left(&[said(), thought(), thought()], &[said()]), [0]);
        assert_eq!(left(&[said(), thought(), said(), thought(), answer()], &[]), [0, 2, 3, 4]);
        assert_eq!(left(&[thought()], &[done("a"), output("a")]), [0], "the new input has what it led to");
    }
}
