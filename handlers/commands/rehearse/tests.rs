use std::path::PathBuf;

use colloquy::config::{RespondLimits, fixed};

use super::*;

const MODELS: &str = "
[deployments.demo]
provider = \"demo\"
[models.small]
deployments = [\"demo\"]
";

/// Of each kind what its table says, which event the sample is, and a field that it has.
fn told(kind: SourceKind) -> (&'static str, &'static str, &'static str) {
    match kind {
        SourceKind::Stripe => ("", "invoice.paid", "data.object.id"),
        SourceKind::StandardWebhooks => ("", "user.created", "data.first_name"),
        SourceKind::Github => ("", "push", "pusher.name"),
        SourceKind::Espocrm => ("", "Feedback.create", "name"),
        SourceKind::EventGrid => ("", "Microsoft.KeyVault.SecretNearExpiry", "data.VaultName"),
        SourceKind::AzureMonitor => ("", "alert.fired", "data.essentials.severity"),
        SourceKind::AzureDevops => ("", "build.complete", "resource.buildNumber"),
        SourceKind::Sailpoint => ("", "idn:post-provisioning", "requestedFor.name"),
        SourceKind::Runpod => ("", "job.completed", "output.images"),
        SourceKind::Hmac => (
            "hmac = { header = \"x-signature\" }\nevent = { key_header = \"X-Id\", type_header = \"X-Type\" }",
            "order.paid",
            "order.carrier",
        ),
        // In the path.
        SourceKind::Bearer => ("", "order.paid", "order.carrier"),
        SourceKind::Basic => {
            ("event = { key_pointer = \"/id\", type_pointer = \"/type\" }", "order.shipped", "order.carrier")
        }
    }
}

const KINDS: [SourceKind; 12] = [
    SourceKind::Stripe,
    SourceKind::StandardWebhooks,
    SourceKind::Github,
    SourceKind::Espocrm,
    SourceKind::EventGrid,
    SourceKind::AzureMonitor,
    SourceKind::AzureDevops,
    SourceKind::Sailpoint,
    SourceKind::Runpod,
    SourceKind::Hmac,
    SourceKind::Bearer,
    SourceKind::Basic,
];

fn file(kind: SourceKind, event_type: &str, templates: &str) -> String {
    format!(
        "{MODELS}
[sources.sender]
kind = \"{}\"
{}
[[routes]]
name = \"answer\"
source = \"sender\"
type = \"{event_type}\"
action = \"respond\"
model = \"small\"
{templates}
",
        kind.as_str(),
        told(kind).0
    )
}

fn rehearsed_in(text: &str, root: &Path, limits: &RespondLimits) -> Findings {
    let app = AppConfig::parse(text, None, &[]).unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{text}"));
    templates(&app, Read { name: "colloquy.toml", text, environment: None }, root, limits)
}

fn rehearsed(text: &str) -> Findings {
    rehearsed_in(text, Path::new("/nowhere"), &RespondLimits::default())
}

/// Line and column of what stands somewhere in a file, as a mistake tells them.
fn place(text: &str, of: &str) -> String {
    let at = text.find(of).unwrap_or_else(|| panic!("{of} is not in {text}"));
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let column = text[line_start..at].chars().count() + 1;
    format!("(line {}, column {column})", text[..at].matches('\n').count() + 1)
}

/// A folder with samples, gone in the end.
struct Samples(PathBuf);

impl Samples {
    fn of(files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("colloquy-samples-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(root.join(SAMPLES)).unwrap();
        for (name, body) in files {
            std::fs::write(root.join(SAMPLES).join(name), body).unwrap();
        }
        Self(root)
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn routes_of_every_kind_of_source_are_rehearsed() {
    for kind in KINDS {
        let (_, event_type, field) = told(kind);
        let good = format!(
            "instructions = \"Judge it.\"
             input = \"{{{{ event.payload.{field} }}}} {{{{ event.type }}}} {{{{ event.headers['content-type'] }}}}\"
             conversation = \"{{{{ event.key }}}}\""
        );
        let text = file(kind, event_type, &good);
        let found = rehearsed(&text);
        assert!(found.mistakes.is_empty() && found.notes.is_empty(), "{kind:?}: {found:?}");
        let broken = text.replace(&format!("payload.{field}"), "payload.nonexist_field");
        let found = rehearsed(&broken);
        let place = place(&broken, "event.payload.nonexist_field");
        let told = format!("routes[0].input {place}: `event.payload.nonexist_field` is not defined with the");
        assert!(found.notes.is_empty() && found.mistakes.len() == 1, "{kind:?}: {found:?}");
        assert!(found.mistakes[0].contains(&told), "{kind:?}: {told}\n{found:?}");
        let advice = "put a sample of it into tests/fixtures/events/sender.<type>.json";
        assert!(found.mistakes[0].ends_with(advice), "{found:?}");
    }
}

#[test]
fn an_event_is_what_the_name_of_its_sample_says() {
    let templates = "instructions = \"Judge it.\"\ninput = \"{{ event.type }} {{ event.payload.word }}\"";
    let pull = r#"{ "action": "opened", "word": "w" }"#;
    let cases = [
        (SourceKind::Github, "push", "sender.push.json", r#"{ "word": "w" }"#),
        (SourceKind::Github, "pull_request.opened", "sender.pull_request.opened.json", pull),
        (SourceKind::Github, "pull_request.*", "sender.json", pull),
        (SourceKind::Github, "*", "sender.pull_request.json", pull),
        (SourceKind::Bearer, "order.*", "sender.order.paid.json", r#"{ "word": "w" }"#),
        (SourceKind::Hmac, "order.*", "sender.order.paid.json", r#"{ "word": "w" }"#),
        (SourceKind::StandardWebhooks, "user.*", "sender.json", r#"{ "type": "user.deleted", "word": "w" }"#),
        (SourceKind::Espocrm, "Account.*", "sender.Account.update.json", r#"[{ "word": "w" }]"#),
    ];
    for (kind, event_type, name, body) in cases {
        let text = file(kind, event_type, templates);
        let samples = Samples::of(&[(name, body), ("sender-else.json", "not JSON")]);
        let found = rehearsed_in(&text, &samples.0, &RespondLimits::default());
        assert!(found.mistakes.is_empty() && found.notes.is_empty(), "{kind:?} {event_type}: {found:?}");
        let found = rehearsed_in(&text.replace("word", "nonexist"), &samples.0, &RespondLimits::default());
        assert!(found.notes.is_empty() && found.mistakes.len() == 1, "{kind:?} {event_type}: {found:?}");
        assert!(found.mistakes[0].ends_with(&format!("with the sample {name}")), "{found:?}");
    }
    // What no sample is of is said, and is no mistake.
    for (kind, event_type) in [(SourceKind::Github, "issues.opened"), (SourceKind::Stripe, "charge.failed")] {
        let found = rehearsed(&file(kind, event_type, templates));
        assert!(found.mistakes.is_empty() && found.notes.len() == 1, "{found:?}");
        assert!(
            found.notes[0].contains("put one into") || found.notes[0].contains("Put one into"),
            "{found:?}"
        );
    }
}

#[test]
fn every_template_that_is_broken_is_told_and_keys_that_cannot_work() {
    let broken = "instructions = \"{{ event.payload.one }}\"
payload_in_instructions = true
input = \"{{ event.payload.two }}\"
conversation = \"{{ event.payload.three }}\"";
    let found = rehearsed(&file(SourceKind::Espocrm, "Feedback.create", broken));
    assert_eq!(found.mistakes.len(), 3, "{found:?}");
    for (mistake, name) in found.mistakes.iter().zip(["one", "two", "three"]) {
        assert!(mistake.contains(&format!("`event.payload.{name}` is not defined")), "{found:?}");
    }
    for key in ["\" \"", "\"a\\nb {{ event.subject }}\"", "\"{{ event.payload.id * 20 }}\""] {
        let templates = format!("instructions = \"a\"\ninput = \"b\"\nconversation = {key}");
        let text = file(SourceKind::Espocrm, "Feedback.create", &templates);
        let found = rehearsed(&text);
        assert_eq!(found.mistakes.len(), 1, "{found:?}");
        let place = place(&text, key);
        let told = format!("routes[0].conversation {place}: gives no key of 1 to 256 characters on one line");
        assert!(found.mistakes[0].contains(&told), "{told}\n{found:?}");
    }
}

#[test]
fn limits_are_those_given() {
    let templates = "instructions = \"a\"\ninput = \"{{ 'x' * 5000 }}{% for i in range(200) %}{% endfor %}\"";
    let text = file(SourceKind::Espocrm, "Feedback.create", templates);
    let with = |limits: RespondLimits| rehearsed_in(&text, Path::new("/nowhere"), &limits).mistakes;
    assert!(with(RespondLimits::default()).is_empty());
    let short = with(RespondLimits { text_max_bytes: 1024, ..RespondLimits::default() });
    assert!(short[0].contains("RESPOND_TEXT_MAX_BYTES"), "{short:?}");
    let little = with(RespondLimits { template_fuel: 100, ..RespondLimits::default() });
    assert!(little[0].contains("RESPOND_TEMPLATE_FUEL"), "{little:?}");
}

#[test]
fn a_place_is_the_files_whatever_the_string() {
    for input in [
        r#""{{ event.payload.name }}\nText: {{ event.payload.nonexist }}""#,
        r#""$${ {{ event.payload.name }} \"{{ event.payload.nonexist }}\"""#,
        "\"\"\"\n{{ event.payload.name }} \\\n   \\\"é\\\" \"\"{{ event.payload.nonexist }}\"\n\"\"\"",
        "'{{ event.payload.name }}\\n {{ event.payload.nonexist }}'",
        "'''\n$${X} {{ event.payload.name }}\n  '{{ event.payload.nonexist }}\n'''",
    ] {
        // Seen with a sample, and seen without one.
        for name in ["event.payload.nonexist", "event.nonexist"] {
            let input = input.replace("event.payload.nonexist", name);
            let text = file(
                SourceKind::Espocrm,
                "Feedback.create",
                &format!("instructions = \"a\"\ninput = {input}"),
            );
            let place = place(&text, name);
            let told = format!("routes[0].input {place}: `{name}` is not defined");
            let mistakes = match AppConfig::parse(&text, None, &[]) {
                Ok(_) => rehearsed(&text).mistakes,
                Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
            assert!(mistakes[0].contains(&told), "{input}: {told}\n{mistakes:?}");
        }
    }
}

#[test]
fn what_the_environment_has_a_part_in_is_rehearsed_with_it() {
    let templates =
        "instructions = \"For ${COMPANY}.\"\ninput = \"${COMPANY}: {{ event.payload.nonexist }}\"";
    let text = file(SourceKind::Espocrm, "Feedback.create", templates);
    let found = rehearsed(&text);
    assert!(found.mistakes.is_empty(), "{found:?}");
    assert!(found.notes[0].contains("instructions, input, of which the environment is a part"), "{found:?}");
    let environment = fixed([("COMPANY", "Acme and sons")]);
    let app = AppConfig::parse(&text, Some(&environment), &[]).unwrap();
    let read = Read { name: "colloquy.toml", text: &text, environment: Some(&environment) };
    let found = templates_of(&app, read);
    let told = format!("routes[0].input {}:", place(&text, "event.payload.nonexist"));
    assert!(found.notes.is_empty() && found.mistakes[0].contains(&told), "{told}\n{found:?}");
}

fn templates_of(app: &AppConfig, read: Read<'_>) -> Findings {
    templates(app, read, Path::new("/nowhere"), &RespondLimits::default())
}
