//! What Azure's asynchronous filter says of text that was sent already.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The annotations of one answer, as far as they matter.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// Where the answer begins. Offsets count from the beginning of the prompt, which has a form there that nobody
    /// tells; but annotations speak of what was sent, so the least of their offsets is no earlier than the answer.
    answer_from: Option<u64>,
    kept: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Offsets {
    start_offset: Option<u64>,
}

impl Annotations {
    /// How much of the answer stays, if this takes some of it back. Everything from the text at fault on goes: what
    /// follows it was not cleared. `stops`: the frame ends the answer for its content.
    pub fn judge(&mut self, offsets: &RawValue, results: Option<&RawValue>, stops: bool) -> Option<u64> {
        let Offsets { start_offset } = serde_json::from_str(offsets.get()).unwrap_or_default();
        self.answer_from = [self.answer_from, start_offset].into_iter().flatten().min();
        let results = results.and_then(|results| serde_json::from_str::<Value>(results.get()).ok());
        if !stops && !results.is_some_and(|results| is_filtered(&results)) {
            return None;
        }
        // Where it does not say from where on, everything goes.
        let keep = start_offset.zip(self.answer_from).map_or(0, |(start, from)| start - from);
        if self.kept.is_some_and(|kept| kept <= keep) {
            return None;
        }
        self.kept = Some(keep);
        Some(keep)
    }
}

/// Whether any category was filtered. One that was only detected is for the reader's information.
fn is_filtered(results: &Value) -> bool {
    match results {
        Value::Object(fields) => {
            fields.get("filtered") == Some(&Value::Bool(true)) || fields.values().any(is_filtered)
        }
        Value::Array(list) => list.iter().any(is_filtered),
        _ => false,
    }
}
