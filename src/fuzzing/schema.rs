//! Schemas of answers, and what models answer.

use serde_json::Value;

use super::split;
use crate::schema::Schema;

/// A schema, a line `---`, an answer. Whatever is wrong with the answer is told without quoting it.
pub fn schemas(data: &[u8]) {
    const MOST: usize = 8;
    let (schema, answer) = split(data, b"\n---\n");
    let (Ok(schema), Ok(answer)) =
        (serde_json::from_slice::<Value>(schema), serde_json::from_slice::<Value>(answer))
    else {
        return;
    };
    let said = schema.to_string();
    let Ok(schema) = Schema::new(schema) else { return };
    let misfits = schema.misfits(&answer, MOST);
    assert!(misfits.len() <= MOST);
    assert_eq!(misfits, schema.misfits(&answer, MOST));
    let mut words = Vec::new();
    texts(&answer, &mut words);
    // What the schema says itself may be told.
    for word in words.iter().filter(|word| word.len() > 12 && !said.contains(**word)) {
        assert!(misfits.iter().all(|misfit| !misfit.to_string().contains(*word)), "{misfits:?}");
    }
}

fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(members) => members.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}
