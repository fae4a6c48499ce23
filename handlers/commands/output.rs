//! Tables and JSON.

use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::{SpanRound, Timestamp, Unit};
use serde::Serialize;

/// How to print.
#[derive(Args, Clone, Copy)]
pub struct Output {
    /// Print JSON: one document, or one object a line where output goes on.
    #[arg(long)]
    pub json: bool,
}

/// Prints rows as a table under headings, or the empty state.
pub fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>, empty: &str) {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(headings);
    let mut some = false;
    for row in rows {
        table.add_row(row);
        some = true;
    }
    if some {
        println!("{table}");
    } else {
        println!("{empty}");
    }
}

/// Prints name and value pairs, skipping what is empty.
pub fn fields(fields: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        println!("{name:<14} {value}");
    }
}

/// Prints a value as indented JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// How long ago, roughly: `3m 12s ago`; what is to come: `in 5m`.
pub fn ago(at: Timestamp) -> String {
    let now = Timestamp::now();
    let (span, past) = if at <= now { (now - at, true) } else { (at - now, false) };
    let smallest =
        if span.total(Unit::Hour).is_ok_and(|hours| hours >= 1.0) { Unit::Minute } else { Unit::Second };
    let round = SpanRound::new().largest(Unit::Hour).smallest(smallest);
    let text = span.round(round).map_or_else(|_| String::from("?"), |span| format!("{span:#}"));
    if past { format!("{text} ago") } else { format!("in {text}") }
}

/// A value or nothing.
pub fn or_empty<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
