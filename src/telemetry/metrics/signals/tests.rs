use std::collections::BTreeSet;

use super::*;

#[test]
fn the_page_holds_the_table() {
    crate::testing::assert_tables(
        "docs/operations.md",
        &[("signals", signals_markdown())],
        "metrics::signals",
    );
}

#[test]
fn every_metric_has_a_row_and_every_row_a_name_of_its_own() {
    assert_eq!(rows::without_row(), [], "give it a row in src/telemetry/metrics/signals/rows.rs");
    let names: BTreeSet<&str> = SIGNALS.iter().map(|signal| signal.name).collect();
    assert_eq!(names.len(), SIGNALS.len());
    for name in names {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
    }
}

#[test]
fn rows_ask_what_their_metric_can_answer() {
    for signal in SIGNALS {
        let name = signal.name;
        if let (Some(warn), Some(critical)) = (signal.warn, signal.critical) {
            let sharper = match signal.measure {
                Measure::Lowest => critical.at <= warn.at,
                _ => critical.at >= warn.at,
            };
            assert!(sharper && (critical.at, critical.minutes) != (warn.at, warn.minutes), "{name}");
            assert!(critical.severity <= warn.severity, "{name}");
        }
        let Source::Ours { metric, only, .. } = signal.source else { continue };
        let definition = metric.definition();
        let fits = match signal.measure {
            Measure::P95 => matches!(definition.kind, Kind::Histogram(_)),
            Measure::Highest | Measure::Throughout | Measure::Average | Measure::Lowest => {
                definition.kind == Kind::Gauge
            }
            Measure::Total | Measure::Share(_) => definition.kind != Kind::Gauge,
        };
        assert!(fits, "{name}: {:?} of a {:?}", signal.measure, definition.kind);
        let matching = if let Measure::Share(matching) = signal.measure { matching } else { &[] };
        for (attribute, _) in only.iter().chain(matching) {
            assert!(definition.attributes.contains(attribute), "{name}: no attribute {attribute}");
        }
        let seconds = definition.unit == "s";
        let has_level = signal.warn.or(signal.critical).is_some();
        let counts = matches!(signal.measure, Measure::Total | Measure::Share(_));
        assert!(!has_level || counts || seconds == (signal.unit == Unit::Seconds), "{name}: unit");
        assert!(
            !has_level
                || (definition.unit == "1")
                    <= (signal.unit == Unit::Percent || signal.measure == Measure::Lowest),
            "{name}: unit"
        );
    }
}

/// The pairs that row I3 of the requirements lists.
#[test]
fn the_documents_thresholds_are_there() {
    let level = |name: &str| {
        let signal = SIGNALS.iter().find(|signal| signal.name == name).unwrap_or_else(|| panic!("{name}"));
        (signal.warn.map(|level| level.at), signal.critical.map(|level| level.at))
    };
    assert_eq!(level("server-errors"), (Some(1.0), Some(5.0)));
    assert_eq!(level("webhook-errors"), (Some(1.0), Some(5.0)));
    assert_eq!(level("database-connections"), (Some(80.0), Some(90.0)));
    assert_eq!(level("pool"), (Some(80.0), Some(90.0)));
    assert_eq!((level("due-rows").0, level("queue-depth").0), (Some(1_000.0), Some(1_000.0)));
    assert_eq!((level("model-time").0, level("response-time").0), (Some(10.0), Some(5.0)));
    assert_eq!(level("first-token").1, Some(4.0));
    assert_eq!(level("budget"), (Some(80.0), Some(100.0)));
    assert_eq!((level("external-errors").0, level("external-failing").1), (Some(5.0), Some(5.0)));
    assert_eq!((level("runtime").0, level("connections").0), (Some(90.0), Some(80.0)));
    assert_eq!(
        (level("cpu").0, level("memory").0, level("redis-memory").0),
        (Some(80.0), Some(85.0), Some(80.0))
    );
    let down =
        SIGNALS.iter().find(|signal| signal.name == "down").and_then(|signal| signal.critical).unwrap();
    assert_eq!((down.severity, down.channel), (0, Channel::Page));
}

#[test]
fn programs_get_the_whole_table() {
    let told = signals_json();
    assert_eq!(told["signals"].as_array().map(Vec::len), Some(SIGNALS.len()));
    assert_eq!(told["metrics"].as_array().map(Vec::len), Some(METRICS.len()));
    let errors = told["signals"].as_array().unwrap().iter().find(|signal| signal["name"] == "server-errors");
    assert_eq!(
        errors.unwrap()["critical"],
        serde_json::json!({ "at": 5.0, "minutes": 5, "severity": 1, "channel": "page" })
    );
}
