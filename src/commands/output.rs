//! Tables and JSON.
//!
//! What is printed after its reader has gone (`… | head`) is dropped: a command that changes something still changes
//! all of it. Any other failure to write is reported at the end, by [`finish`].

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use jiff::{SpanRound, Timestamp, Unit};
use serde::Serialize;

use crate::database::inspect::WorkLine;

/// Prints a line to stdout, as `println!` does.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::commands::output::line(format_args!($($argument)*)) };
}

/// Prints a line to stderr, as `eprintln!` does.
#[macro_export]
macro_rules! note {
    ($($argument:tt)*) => { $crate::commands::output::aside(format_args!($($argument)*)) };
}

/// Why the first line that could not be written was not.
static BROKEN: OnceLock<io::Error> = OnceLock::new();

/// See [`say!`](crate::say).
pub fn line(text: fmt::Arguments<'_>) {
    if BROKEN.get().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        BROKEN.get_or_init(|| error);
    }
}

/// See [`note!`](crate::note). Without a reader there is nobody left to tell.
pub fn aside(text: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Whether nobody reads any more: what only prints may stop.
pub fn is_closed() -> bool {
    BROKEN.get().is_some()
}

/// Says at the end what kept output from being written; a reader that left is no failure.
pub fn finish() -> anyhow::Result<()> {
    match BROKEN.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::anyhow!("stdout could not be written: {error}"))
        }
        _ => Ok(()),
    }
}

/// How to print.
#[derive(Args, Clone, Copy)]
pub struct Output {
    /// Print JSON: one document, or one object a line where output goes on.
    #[arg(long)]
    pub json: bool,
}

/// How much to list, and how to print it.
#[derive(Args, Clone, Copy)]
pub struct Listing {
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    #[command(flatten)]
    output: Output,
}

impl Listing {
    /// Prints items as JSON, or as a table under headings, or the empty state.
    pub fn print<T: Serialize, const N: usize>(
        self,
        items: &[T],
        headings: [&str; N],
        row: impl Fn(&T) -> [String; N],
        empty: &str,
    ) -> anyhow::Result<()> {
        if self.output.json {
            return json(&items);
        }
        table(headings, items.iter().map(row), empty);
        Ok(())
    }

    /// Whether JSON was asked for.
    pub fn is_json(self) -> bool {
        self.output.json
    }
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
        say!("{table}");
    } else {
        say!("{empty}");
    }
}

/// Prints name and value pairs, skipping what is empty.
pub fn fields(fields: impl IntoIterator<Item = (&'static str, String)>) {
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        say!("{name:<14} {value}");
    }
}

/// Prints a value as indented JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(value)?);
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

/// Text as far as a table has room for it.
pub fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    shortened_to(text, LONGEST)
}

/// The first `most` characters.
pub fn shortened_to(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// When a row of work is due; of what does not wait, nothing.
pub fn due(work: &WorkLine) -> String {
    if work.state == "pending" { ago(work.due_at) } else { String::new() }
}

/// Prints a row of work and its tries. `row` and `object` are what its kind calls them.
pub fn work(row: &'static str, object: &'static str, work: &WorkLine) {
    fields([
        (row, work.id.clone()),
        (object, work.object.clone()),
        ("event", or_empty(work.event.as_ref())),
        ("response", or_empty(work.response.as_ref())),
        ("route", work.route.clone()),
        ("run", work.run.to_string()),
        ("state", work.state.clone()),
        ("attempts", work.attempts.to_string()),
        ("outages", work.outages.to_string()),
        ("made", work.created_at.to_string()),
        ("awaits", work.awaits.to_owned()),
        ("due", due(work)),
        ("leased until", or_empty(work.lease_until.as_ref())),
        ("finished", or_empty(work.finished_at.as_ref())),
        ("last code", or_empty(work.error_code.as_ref())),
        ("last error", or_empty(work.error.as_ref())),
    ]);
    tries(work);
}

/// Prints every try of a callback and the beginning of what was answered; of a job, whose tries are not kept one by
/// one, nothing.
pub fn tries(work: &WorkLine) {
    let Some(tries) = work.tries.as_ref().and_then(serde_json::Value::as_array) else { return };
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    say!("");
    table(
        ["TRY", "AT", "MILLIS", "STATUS", "ERROR", "ANSWER"],
        tries.iter().map(|a_try| {
            let answer = text(&a_try["response"]).replace(['\r', '\n'], " ");
            ["attempt", "at", "millis", "status", "error_code"]
                .map(|name| text(&a_try[name]))
                .into_iter()
                .chain([shortened_to(&answer, 120)])
                .collect::<Vec<_>>()
                .try_into()
                .unwrap_or_default()
        }),
        "No try yet.",
    );
}

/// A value or nothing.
pub fn or_empty<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
