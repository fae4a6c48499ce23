//! That `docs/webhooks.md` gives every kind's answers, sizes and secrets as they are.

use super::support::every_kind;
use crate::config::app::SourceKind;

fn name(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Stripe => "stripe",
        SourceKind::StandardWebhooks => "standard-webhooks",
        SourceKind::Github => "github",
        SourceKind::Espocrm => "espocrm",
        SourceKind::EventGrid => "event-grid",
        SourceKind::AzureMonitor => "azure-monitor",
        SourceKind::AzureDevops => "azure-devops",
        SourceKind::Sailpoint => "sailpoint",
        SourceKind::Runpod => "runpod",
        SourceKind::Hmac => "hmac",
        SourceKind::Bearer => "bearer",
        SourceKind::Basic => "basic",
    }
}

fn rows_of<'d>(docs: &'d str, kind: &str) -> Vec<Vec<&'d str>> {
    let quoted = format!("`{kind}`");
    let rows = docs
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[0].contains(&quoted)).collect()
}

#[test]
fn every_kind_has_its_rows_and_they_are_right() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md")).unwrap();
    for source in every_kind() {
        let kind = name(source.kind());
        let rows = rows_of(&docs, kind);
        assert_eq!(rows.len(), 3, "{kind}");
        let answers = &rows[2];
        assert!(answers[2].starts_with(source.busy_status().as_str()), "{kind}: {answers:?}");
        let limit = match source.limits().max_body_bytes / 1024 {
            kib @ ..1024 => format!("{kib} KiB"),
            kib => format!("{} MiB", kib / 1024),
        };
        assert_eq!(answers[3], limit, "{kind}");
        assert!(source.limits().content_types.iter().any(|media| media == "application/json"));
        let named_form = answers[4].contains("form");
        let takes_form = source.limits().content_types.iter().any(|media| media.ends_with("form-urlencoded"));
        assert_eq!(named_form, takes_form, "{kind}");
    }
}

#[test]
fn every_key_of_a_source_is_explained() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/webhooks.md")).unwrap();
    let settings = [
        "kind",
        "auth",
        "max_body_bytes",
        "max_events",
        "content_types",
        "rate_per_minute",
        "tolerance_seconds",
        "key_lifetime_seconds",
        "retention_days",
        "stopped",
        "subscriptions",
        "hmac.header",
        "hmac.algorithm",
        "hmac.encoding",
        "hmac.prefix",
        "hmac.key_encoding",
        "hmac.timestamp_header",
        "hmac.signed",
        "event.key_header",
        "event.key_pointer",
        "event.type_header",
        "event.type_pointer",
        "event.split_pointer",
        "sailpoint.output",
        "sailpoint.async_output",
        "sailpoint.callback_hosts",
        "sailpoint.allow_networks",
        "sailpoint.allow_http",
    ];
    let explained = |key: &str| {
        let quoted = format!("`{key}`");
        docs.lines().any(|line| line.split('|').nth(1).is_some_and(|cell| cell.contains(&quoted)))
    };
    assert_eq!(settings.iter().filter(|key| !explained(key)).collect::<Vec<_>>(), Vec::<&&str>::new());
    // What the documentation shows as a whole configuration is one.
    let toml = docs.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let app = crate::config::app::AppConfig::parse(toml, None, &[]).unwrap();
    assert!(app.sources.contains_key("slack"));
}
