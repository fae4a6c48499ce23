use super::*;
use crate::config::app::AppConfig;

const FILE: &str = r#"
[sources.crm]
kind = "espocrm"
[targets.crm]
url = "https://crm.example/"
[deployments.demo]
provider = "demo"
max_output_tokens = 1000
[models.small]
deployments = ["demo"]
[[routes]]
name = "answer"
source = "crm"
action = "respond"
"#;

fn mistakes(route: &str) -> Vec<String> {
    let found = AppConfig::parse(&format!("{FILE}{route}"), None, &[]).err().unwrap_or_default();
    found.iter().map(ToString::to_string).collect()
}

fn one(route: &str) -> String {
    let whole = "model = \"small\"\ninstructions = \"Answer.\"\ninput = \"{{ event.payload }}\"\n";
    let keys: Vec<&str> = route.lines().filter_map(|line| Some(line.split_once(" =")?.0)).collect();
    let rest: Vec<&str> =
        whole.lines().filter(|line| !keys.iter().any(|key| line.starts_with(key))).collect();
    let found = mistakes(&format!("{}\n{route}", rest.join("\n")));
    assert_eq!(found.len(), 1, "{route}: {found:#?}");
    found[0].clone()
}

#[test]
fn a_whole_route_is_taken() {
    let route = r#"
model = "small"
instructions = "Answer what came from {{ event.source }} at {{ event.received_at }}."
input = "{{ event.payload.name }} {{ event.headers['content-type'] }}"
conversation = "{{ event.subject }}"
owner = "team-crm"
callback = "crm"
max_output_tokens = 500
runs_on = "server"
text.format = { type = "json_schema", name = "a", schema = '{ "type": "object" }' }
metadata = { team = "crm" }
"#;
    let app = AppConfig::parse(&format!("{FILE}{route}"), None, &[]).unwrap();
    let config = &app.routes[0].respond;
    assert_eq!(app.routes[0].owner(), "team-crm");
    assert_eq!(config.runs_on, RunsOn::Server);
    assert_eq!(config.metadata["team"], "crm");
    let (format, schema) = config.format().unwrap();
    assert!(matches!(format, Some(TextFormat::JsonSchema(_))) && schema.is_some());
    assert_eq!(app.responding_in_jobs().count(), 0);
}

#[test]
fn what_is_missing_unknown_or_elsewhere_is_told() {
    assert_eq!(mistakes("").len(), 3, "instructions, input, model");
    assert!(one("model = \"large\"").contains("there is no [models.large]"));
    assert!(one("callback = \"erp\"").contains("there is no [targets.erp]"));
    assert!(one("max_output_tokens = 2000").contains("more than the 1000"));
    assert!(
        one("runs_on = \"cloud\"").contains("did you mean")
            || one("runs_on = \"cloud\"").contains("job, server")
    );
    assert!(one("target = \"crm\"").contains("belongs only to action = \"forward\""));
    assert!(one("metadata = { event = \"x\" }").contains("is set for every event"));
    assert!(one("metadata = { n = 1 }").contains("expected text"));
    assert!(
        one("runs_on = \"server\"\ntime_limit_seconds = 60").contains("belongs only to runs_on = \"job\"")
    );
    let record = FILE.replace("respond", "record");
    let found = AppConfig::parse(&format!("{record}model = \"small\""), None, &[]).unwrap_err();
    assert!(found[0].to_string().contains("belongs only to action = \"respond\""), "{found:?}");
}

#[test]
fn templates_are_judged_with_line_and_column_of_the_file() {
    let lines = FILE.lines().count();
    let found = one("instructions = '''\nAnswer\n  {{ evnt.source }}\n'''");
    assert_eq!(
        found,
        format!(
            "routes[0].instructions (line {}, column 6): `evnt.source` is not defined; everything is under `event`",
            lines + 5
        )
    );
    let found = one("input = \"Say {{ event.paylod.name }}\"");
    assert!(
        found.contains("column 17): `event.paylod.name` is not defined; event has id, source"),
        "{found}"
    );
    let found = one("input = \"\"\"\n{% if event.payload.a %}\n\"\"\"");
    assert!(found.contains("syntax error"), "{found}");
    // An escape moves what follows it.
    let found = one("input = \"\\u00e4 {{ foo }}\"");
    assert!(found.contains("column 20): `foo` is not defined"), "{found}");
}

#[test]
fn what_a_sender_wrote_does_not_instruct_unless_somebody_says_so() {
    for field in ["payload.name", "type", "key", "subject", "headers.x"] {
        let found = one(&format!("instructions = \"Do {{{{ event.{field} }}}}\""));
        assert!(found.contains("is what a sender wrote"), "{found}");
    }
    assert!(one("instructions = \"{{ event }}\"").contains("holds what a sender wrote"));
    assert!(
        one("instructions = \"{% set e = event %}{{ e.payload }}\"").contains("holds what a sender wrote")
    );
    let sure = "model = \"small\"\ninput = \"x\"\ninstructions = \"In {{ event.payload.language }}\"\npayload_in_instructions = true";
    assert_eq!(mistakes(sure), Vec::<String>::new());
}

#[test]
fn schemas_and_tools_are_judged() {
    let schema = |schema: &str| {
        one(&format!("text.format = {{ type = \"json_schema\", name = \"a\", schema = {schema} }}"))
    };
    assert!(schema("'{ \"pattern\": \"a\" }'").contains("schema/pattern: is outside the subset"));
    assert!(schema("'{'").contains("not JSON"));
    assert!(schema("{ type = \"text\" }").contains("schema/type"));
    assert!(one("text.format = { type = \"yaml\" }").contains("text.format"));
    let tool = "{ type = \"function\", name = \"lookup\", parameters = { type = \"object\", if = {} } }";
    assert!(one(&format!("tools = [{tool}]")).contains("tools[0]"));
    let fine = "{ type = \"function\", name = \"lookup\" }";
    assert!(one(&format!("tools = [{fine}]\nconversation = \"x\"")).contains("nobody answers the calls"));
}
