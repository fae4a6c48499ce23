use std::collections::BTreeMap;

use serde_json::json;

use super::super::distance::distance;
use super::super::shape::{AUTH, EVENT, HMAC, Key, ROUTE, SAILPOINT, SOURCE, SOURCE_KINDS, TARGET};
use super::super::{
    AuthConfig, EventLocation, HmacConfig, RespondConfig, SailpointConfig, SourceConfig, SourceKind, Stop,
    TargetConfig,
};
use super::*;
use crate::config::fixed;

const JOBS: &[&str] = &["echo", "sailpoint-complete"];

fn parsed(text: &str) -> AppConfig {
    parse(text, Some(&fixed([])), JOBS).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

/// Each mistake as an operator sees it.
fn mistakes(text: &str) -> Vec<String> {
    let found = parse(text, Some(&fixed([("SECRET_ISH", "hunter2")])), JOBS).unwrap_err();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let app = parsed(
        r#"
        [sources.stripe]
        kind = "stripe"
        tolerance_seconds = 3_00
        stopped = "hold"

        [sources.acme]
        kind = "hmac"
        rate_per_minute = 600
        content_types = ["application/json", "text/*"]
        [sources.acme.hmac]
        header = "X-Acme-Signature"
        prefix = "v0="
        timestamp_header = "X-Acme-Time"
        signed = "v0:{timestamp}:{body}"
        [sources.acme.event]
        key_pointer = "/id"

        [sources.grid]
        kind = "event-grid"
        auth = { entra = { tenant = "t", audience = "api://a" } }
        subscriptions = ["one"]

        [sources.monitor]
        kind = "azure-monitor"
        auth = "bearer"

        [sources.devops]
        kind = "azure-devops"
        auth.header.name = "x-token"

        [sources.sailpoint]
        kind = "sailpoint"
        [sources.sailpoint.sailpoint]
        output = { approved = true, until = 2026-01-01, share = 0.5, tags = ["a", 1] }
        callback_hosts = ["tenant.api.identitynow.com"]

        [[routes]]
        source = "stripe"
        type = "invoice.*"
        action = "forward"
        target = "ledger"

        [[routes]]
        name = "acme-echo"
        source = "acme"
        action = "job"
        job = "echo"

        [targets.ledger]
        url = "http://10.1.2.3/hooks"
        allow_http = true
        allow_networks = ["10.1.0.0/16"]
        "#,
    );
    assert_eq!(app.sources.len(), 6);
    assert_eq!(app.sources["stripe"].tolerance_seconds, Some(300));
    assert_eq!(app.sources["stripe"].stopped, Some(Stop::Hold));
    assert_eq!(app.sources["monitor"].auth, Some(AuthConfig::Bearer {}));
    assert_eq!(app.sources["devops"].auth, Some(AuthConfig::Header { name: "x-token".into() }));
    assert_eq!(
        app.sources["sailpoint"].sailpoint.as_ref().and_then(|config| config.output.clone()),
        Some(json!({"approved": true, "until": "2026-01-01", "share": 0.5, "tags": ["a", 1]}))
    );
    assert_eq!(app.routes[0].name, "stripe-forward-0");
    assert_eq!(app.routes[0].event_type, "invoice.*");
    assert_eq!(app.routes[1].event_type, "*");
    assert_eq!(app.targets["ledger"].allow_networks.len(), 1);
}

#[test]
fn every_mistake_is_found_in_one_run_with_its_place() {
    let found = mistakes(
        r#"[sources.stripe]
kind = "strpe"
tolerance_secs = 5
max_body_bytes = "big"

[sources."Bad_Name"]
kind = "github"

[sources.acme]
kind = "hmac"

[[routes]]
source = "nobody"
action = "forward"

[[routes]]
name = "twice"
source = "stripe"
action = "job"
job = "ech"

[[routes]]
name = "twice"
source = "acme"
action = "record"
target = "x"

[targets.ledger]
url = "http://example.com/"
allow_networks = ["10.1.0.0"]

[tragets.oops]
"#,
    );
    let expected = [
        r#"sources.stripe.kind (line 2, column 8): "strpe" is no known word; did you mean stripe?"#,
        r#"sources.stripe.tolerance_secs (line 3, column 1): "tolerance_secs" is no known key; did you mean tolerance_seconds?"#,
        "sources.stripe.max_body_bytes (line 4, column 18): expected a whole number from 1 to 104857600",
        "sources.Bad_Name (line 6, column 10): expected a name of lower-case letters, digits and single hyphens, at most 64",
        "sources.acme.hmac (line 9, column 10): is missing; kind = \"hmac\" needs a table with at least header",
        "routes[0].source (line 13, column 1): there is no [sources.nobody]",
        "routes[0].target (line 12, column 1): is missing; action = \"forward\" needs one",
        "routes[1].job (line 20, column 1): \"ech\" is no known kind of job; there are: echo, sailpoint-complete",
        "routes[2].name (line 23, column 1): \"twice\" is taken by a route before it",
        "routes[2].target (line 26, column 1): belongs only to action = \"forward\"",
        "targets.ledger.allow_networks[0] (line 30, column 19): expected a network such as 10.1.0.0/16",
        r#"tragets (line 32, column 2): "tragets" is no known key; did you mean targets?"#,
    ];
    for mistake in expected {
        assert!(found.iter().any(|text| text == mistake), "missing {mistake}\nin {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn rules_between_keys() {
    let one = |text: &str| {
        let found = mistakes(text);
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        found[0].clone()
    };
    let hmac =
        |rest: &str| format!("[sources.a]\nkind = \"hmac\"\n[sources.a.hmac]\nheader = \"x-s\"\n{rest}");
    assert!(one(&hmac("signed = \"{timestamp}{body}\"")).contains("needs timestamp_header"));
    assert!(one(&hmac("timestamp_header = \"x-t\"")).contains("is not protected"));
    assert!(one(&hmac("signed = \"body\"")).contains("does not contain {body}"));
    assert!(one("[sources.a]\nkind = \"stripe\"\nauth = \"bearer\"").contains("does not sign the body"));
    assert!(one("[sources.a]\nkind = \"bearer\"\nauth = \"basic\"").contains("contradicts"));
    assert!(one("[sources.a]\nkind = \"github\"\nsubscriptions = [\"x\"]").contains("event-grid"));
    assert!(one("[sources.a]\nkind = \"runpod\"\nauth = \"header\"").contains("header needs name"));
    assert!(
        one("[sources.a]\nkind = \"runpod\"\nauth = { bearer = {}, basic = {} }")
            .contains("one of bearer, basic")
    );
    assert!(one("[sources.a--b]\nkind = \"github\"").contains("single hyphens"));
    assert!(one("[sources.a]").contains("sources.a.kind (line 1, column 10): is missing"));
    assert!(one("[targets.a]\nurl = \"https://user:pw@a.example/\"").contains("without user"));
    assert!(one("[targets.a]\nurl = \"http://a.example/\"\nallow_http = true").contains("allow_networks"));
    assert!(one("[targets.a]\nurl = \"https://a.example/?x\"\nprefix = true").contains("without a query"));
    assert!(one("[[routes]]\nsource = \"x\"\naction = \"react\"").contains("record, forward, job"));
    assert!(one("sources = 5").contains("tables by name"));
    assert!(one("[sources.a]\nkind = \"github\"\nmax_body_bytes = -1").contains("whole number"));
}

#[test]
fn broken_syntax_is_reported_by_line() {
    let found = mistakes("[sources.a]\nkind = \"stripe\n\n[targets");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].starts_with("colloquy.toml (line 2, column "), "{found:#?}");
    assert!(found[1].starts_with("colloquy.toml (line 4, column "), "{found:#?}");
}

#[test]
fn values_come_from_the_environment_and_are_never_shown() {
    let text = "[sources.a]\nkind = \"github\"\nrate_per_minute = \"${RATE}\"\n\
                [targets.t]\nurl = \"https://${HOST}/hooks\"\nallow_http = \"${PLAIN}\"";
    let environment = fixed([("RATE", "60"), ("HOST", "example.com"), ("PLAIN", "false")]);
    let app = parse(text, Some(&environment), JOBS).unwrap();
    assert_eq!(app.sources["a"].rate_per_minute, 60);
    assert_eq!(app.targets["t"].url, "https://example.com/hooks");

    let found = mistakes(
        "[sources.a]\nkind = \"${SECRET_ISH}\"\nrate_per_minute = \"${SECRET_ISH}\"\n[targets.t]\nurl = \"${NOPE}\"",
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().all(|mistake| !mistake.contains("hunter2")), "{found:#?}");
    assert!(found[2].contains("the environment variable NOPE is not set"), "{found:#?}");
}

#[test]
fn without_an_environment_the_structure_alone_is_checked() {
    let text = "[sources.a]\nkind = \"github\"\nrate_per_minute = \"${RATE}\"\n[targets.t]\nurl = \"${URL}\"";
    assert!(parse(text, None, JOBS).is_ok());
    let found = parse(&format!("{text}\nurll = 1"), None, JOBS).unwrap_err();
    assert_eq!(found.len(), 1);
}

/// The keys a struct takes, from what serde says to a key that none has.
fn keys_of<T: serde::de::DeserializeOwned + std::fmt::Debug>(whole: serde_json::Value) -> Vec<String> {
    let mut with_extra = whole.clone();
    with_extra.as_object_mut().unwrap().insert("~".into(), true.into());
    serde_json::from_value::<T>(whole).expect("the example is whole");
    let error = serde_json::from_value::<T>(with_extra).unwrap_err().to_string();
    let list = error.split_once("expected ").unwrap_or_else(|| panic!("{error}")).1;
    let mut keys: Vec<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn shapes_and_structs_agree() {
    let names = |keys: &[Key]| {
        let mut names: Vec<String> = keys.iter().map(|key| key.name.to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(SOURCE), keys_of::<SourceConfig>(json!({"kind": "stripe"})));
    assert_eq!(names(HMAC), keys_of::<HmacConfig>(json!({"header": "x"})));
    assert_eq!(names(EVENT), keys_of::<EventLocation>(json!({})));
    assert_eq!(names(SAILPOINT), keys_of::<SailpointConfig>(json!({})));
    let mut route = keys_of::<RespondConfig>(json!({}));
    route.extend(["name", "source", "type", "action", "target", "job"].map(str::to_owned));
    route.sort_unstable();
    assert_eq!(names(ROUTE), route);
    assert_eq!(names(TARGET), keys_of::<TargetConfig>(json!({"url": "u"})));
    for kind in SOURCE_KINDS {
        serde_json::from_value::<SourceKind>(json!(kind)).unwrap();
    }
    for (word, keys) in AUTH {
        let values: BTreeMap<&str, &str> = keys.iter().map(|key| (key.name, "x")).collect();
        serde_json::from_value::<AuthConfig>(json!({*word: values})).unwrap();
    }
}

#[test]
fn distances_between_words() {
    assert_eq!(distance("kind", "kind"), 0);
    assert_eq!(distance("kidn", "kind"), 1);
    assert_eq!(distance("", "kind"), 4);
    assert_eq!(distance("sitting", "kitten"), 3);
}
