use super::*;
use crate::config::AppEnvironment;
use crate::config::app::AppConfig;

pub(super) fn switch(stop: Option<Stop>, until: Option<&str>) -> Switch {
    Switch {
        stop,
        by: "test".into(),
        at: Timestamp::UNIX_EPOCH,
        reason: None,
        until: until.map(|text| text.parse().unwrap()),
    }
}

fn set(switches: &mut Switches, kind: SwitchKind, name: &str, stop: Option<Stop>, until: Option<&str>) {
    switches.of_mut(kind).insert(name.to_owned(), switch(stop, until));
}

const SOON: &str = "2026-11-21T12:00:01Z";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn later() -> Timestamp {
    SOON.parse().unwrap()
}

#[test]
fn a_switch_beats_configuration_until_it_expires() {
    let mut switches = Switches::default();
    set(&mut switches, SwitchKind::Source, "stripe", Some(Stop::Refuse), Some(SOON));
    assert_eq!(switches.source("stripe", Some(Stop::Hold), now()), Some(Stop::Refuse));
    assert_eq!(switches.source("stripe", Some(Stop::Hold), later()), Some(Stop::Hold));
    assert_eq!(switches.source("github", None, now()), None);
}

#[test]
fn a_model_stops_with_all_its_deployments() {
    let mut switches = Switches::default();
    set(&mut switches, SwitchKind::Deployment, "one", Some(Stop::Refuse), None);
    assert_eq!(switches.model("fast", ["one", "two"], now()), None, "the other goes on");
    set(&mut switches, SwitchKind::Deployment, "two", Some(Stop::Hold), Some(SOON));
    let stopped = switches.model("fast", ["one", "two"], now()).unwrap();
    assert_eq!((stopped.code(), stopped.until), ("model_held", Some(later())));
    assert_eq!(switches.model("fast", ["one", "two"], later()), None);
    set(&mut switches, SwitchKind::Model, "fast", Some(Stop::Refuse), None);
    assert_eq!(switches.model("fast", ["three"], now()).unwrap().code(), "model_refused");
}

const CONFIG: &str = r#"
    [features]
    websocket = { production = false }
    compaction = { dev = false, staging = false, production = false }
    [sources.crm]
    kind = "espocrm"
    [targets.desk]
    url = "https://desk.example"
    [deployments.demo]
    provider = "demo"
    [models.small]
    deployments = ["demo"]
    [[routes]]
    name = "answer"
    source = "crm"
    action = "respond"
    model = "small"
    owner = "sales"
    instructions = "Answer."
    input = "{{ event.payload }}"
    callback = "desk"
    [[routes]]
    name = "tell"
    source = "crm"
    action = "forward"
    target = "desk"
"#;

fn app() -> AppConfig {
    AppConfig::parse(CONFIG, None, &[]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

#[test]
fn work_waits_for_what_its_route_needs() {
    let app = app();
    let held = |switches: &Switches| switches.held_work(&app, AppEnvironment::Dev, now());
    assert_eq!(held(&Switches::default()), HeldWork::default());
    for (kind, name) in [
        (SwitchKind::Route, "answer"),
        (SwitchKind::Model, "small"),
        (SwitchKind::Deployment, "demo"),
        (SwitchKind::Owner, "sales"),
        (SwitchKind::Feature, "respond"),
    ] {
        let mut switches = Switches::default();
        set(&mut switches, kind, name, Some(Stop::Hold), Some(SOON));
        assert_eq!(held(&switches).job_routes, ["answer"], "{kind}");
        let told = if kind == SwitchKind::Route { vec!["answer"] } else { vec![] };
        assert_eq!(held(&switches).callback_routes, told, "{kind}: an answer that was given is told");
        assert_eq!(switches.refused_job("answer", &app, AppEnvironment::Dev, now()), None);
        assert_eq!(switches.held_work(&app, AppEnvironment::Dev, later()), HeldWork::default());
        set(&mut switches, kind, name, Some(Stop::Refuse), None);
        assert_eq!(held(&switches), HeldWork::default(), "{kind}: refused is not held");
        let refused = switches.refused_job("answer", &app, AppEnvironment::Dev, now()).unwrap();
        assert!(refused.code().ends_with("_refused"), "{kind}");
        assert_eq!(switches.refused_job("tell", &app, AppEnvironment::Dev, now()), None);
    }
    let mut switches = Switches::default();
    set(&mut switches, SwitchKind::Target, ALL, Some(Stop::Hold), None);
    assert!(held(&switches).all_targets);
    set(&mut switches, SwitchKind::Target, "desk", Some(Stop::Refuse), None);
    assert_eq!(switches.refused_callback("tell", "desk", now()).unwrap().code(), "target_refused");
    assert_eq!(switches.refused_callback("tell", "other", now()), None);
}

#[test]
fn features_are_on_by_environment_and_a_switch_beats_that_both_ways() {
    let app = app();
    let of = |switches: &Switches, feature, environment| {
        switches.feature(feature, &app.features, environment, now()).map(|stopped| stopped.code())
    };
    let mut switches = Switches::default();
    assert_eq!(of(&switches, Feature::Websocket, AppEnvironment::Dev), None);
    assert_eq!(of(&switches, Feature::Websocket, AppEnvironment::Production), Some("feature_refused"));
    assert_eq!(of(&switches, Feature::Compaction, AppEnvironment::Dev), Some("feature_refused"));
    assert_eq!(of(&switches, Feature::Chat, AppEnvironment::Production), None, "on unless it is said");
    set(&mut switches, SwitchKind::Feature, "websocket", None, None);
    assert_eq!(of(&switches, Feature::Websocket, AppEnvironment::Production), None, "on in spite of it");
    set(&mut switches, SwitchKind::Feature, "websocket", Some(Stop::Hold), None);
    assert_eq!(of(&switches, Feature::Websocket, AppEnvironment::Dev), Some("feature_held"));
}

#[test]
fn what_callers_are_told_says_until_when_and_not_why() {
    let mut stopped =
        Stopped { kind: SwitchKind::Model, name: "small".to_owned(), stop: Stop::Hold, until: Some(later()) };
    let error = stopped.to_api(now());
    assert_eq!((error.status.as_u16(), error.code), (503, "model_held"));
    assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
    assert!(error.message.contains(SOON), "{}", error.message);
    stopped.stop = Stop::Refuse;
    let error = stopped.to_api(now());
    assert_eq!((error.status.as_u16(), error.code, error.should_retry), (403, "model_refused", Some(false)));
}

#[test]
fn what_an_earlier_version_wrote_is_read_and_what_a_later_one_wrote_is_kept() {
    let earlier = r#"{"sources":{"crm":{"stop":"hold","by":"ops","at":"2026-11-21T12:00:00Z"}}}"#;
    let mut switches: Switches = serde_json::from_str(earlier).unwrap();
    assert_eq!(switches.source("crm", None, now()), Some(Stop::Hold));
    let later = r#"{"sources":{},"tenants":{"a":{"stop":"pause"}}}"#;
    switches = serde_json::from_str(later).unwrap();
    let written = serde_json::to_value(&switches).unwrap();
    assert_eq!(written["tenants"]["a"]["stop"], "pause");
}
