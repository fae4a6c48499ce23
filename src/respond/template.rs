//! Templates of `respond` routes: minijinja, strict, and bounded in work and output.
//!
//! A template comes from `colloquy.toml`, what it is filled with from a sender. So the text of an event is never read
//! as a template, there is nothing to include or import, and a name that is not there is an error instead of nothing.

use std::collections::BTreeSet;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde::Serialize;

/// How much a rendering may do and give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// About one for each instruction and each 64 bytes handled.
    pub fuel: u64,
    pub max_bytes: usize,
}

/// What is wrong with a template, or with what it was filled with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TemplateError {
    /// Without anything of the event.
    pub problem: String,
    /// Where in the template, in bytes, if that is known.
    pub at: Option<usize>,
}

/// A template that is well-formed.
#[derive(Clone, Debug)]
pub struct Template {
    environment: Environment<'static>,
}

const NAME: &str = "template";

/// Names that mean something without the event.
const FUNCTIONS: &[&str] = &["range", "dict", "namespace", "loop", "caller"];

impl Template {
    /// Reads a template.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        // Positions of errors come with it; what else it brings is not passed on.
        environment.set_debug(true);
        environment.remove_global("debug");
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| told(&error, source))?;
        Ok(Self { environment })
    }

    /// Fills the template in.
    pub fn render(&self, context: &impl Serialize, limits: Limits) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(limits.fuel));
        let template = environment.get_template(NAME).map_err(|error| told(&error, ""))?;
        let text = template.render(Serde(context)).map_err(|error| told(&error, template.source()))?;
        if text.len() > limits.max_bytes {
            let problem = format!(
                "gives {} bytes; at most {} are allowed (RESPOND_TEXT_MAX_BYTES)",
                text.len(),
                limits.max_bytes
            );
            return Err(TemplateError { problem, at: None });
        }
        Ok(text)
    }

    /// Names the template uses that nothing defines: `event.payload.name`, `foo`.
    pub fn names(&self) -> BTreeSet<String> {
        let names = self.environment.get_template(NAME).map(|template| template.undeclared_variables(true));
        let mut names: BTreeSet<String> = names.unwrap_or_default().into_iter().collect();
        names.retain(|name| !FUNCTIONS.contains(&name.split('.').next().unwrap_or_default()));
        names
    }

    /// Where a name stands first, in bytes.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        let template = self.environment.get_template(NAME).ok()?;
        let source = template.source();
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let stands_alone = |at: &usize| {
            !source[..*at].ends_with(word)
                && !source[at + name.len()..].starts_with(|c: char| c != '.' && word(c))
        };
        let last = |before: &str, marks: [&str; 2]| marks.iter().filter_map(|mark| before.rfind(mark)).max();
        // Also what is only said may read like a name.
        let is_code = |at: &usize| {
            let before = &source[..*at];
            last(before, ["{{", "{%"]) > last(before, ["}}", "%}"])
        };
        let mut found = source.match_indices(name).map(|(at, _)| at).filter(stands_alone);
        let first = found.clone().next();
        found.find(is_code).or(first)
    }
}

/// An error in words of ours where the engine's may quote a value.
fn told(error: &minijinja::Error, source: &str) -> TemplateError {
    let at = error.range().map(|range| range.start).or_else(|| {
        let line = error.line().filter(|line| *line > 0)?;
        Some(source.split_inclusive('\n').take(line - 1).map(str::len).sum())
    });
    let expression = error.range().and_then(|range| source.get(range)).filter(|text| text.len() <= 80);
    let problem = match error.kind() {
        ErrorKind::UndefinedError => match expression {
            Some(expression) => format!("`{expression}` is not defined"),
            None => "a name is not defined".to_owned(),
        },
        ErrorKind::OutOfFuel => "does more than it may (RESPOND_TEMPLATE_FUEL)".to_owned(),
        // About the template alone: these are found before it is filled in, or name what it says.
        ErrorKind::SyntaxError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::TemplateNotFound
        | ErrorKind::BadEscape => match error.detail() {
            Some(detail) => format!("{}: {detail}", error.kind()),
            None => error.kind().to_string(),
        },
        kind => match expression {
            Some(expression) => format!("{kind} at `{expression}`"),
            None => kind.to_string(),
        },
    };
    TemplateError { problem, at }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LIMITS: Limits = Limits { fuel: 20_000, max_bytes: 10_000 };

    fn render(source: &str, context: Value) -> Result<String, TemplateError> {
        Template::new(source)?.render(&context, LIMITS)
    }

    #[test]
    fn values_are_filled_in_as_they_are() {
        let event = json!({ "event": { "payload": { "name": "A & <B>", "n": 3, "list": [1, 2] } } });
        let text = render(
            "{{ event.payload.name }} {{ event.payload.n + 1 }}\n{% for n in event.payload.list %}{{ n }};{% endfor %}",
            event,
        );
        assert_eq!(text.unwrap(), "A & <B> 4\n1;2;");
    }

    #[test]
    fn what_is_not_there_is_an_error_with_its_place() {
        let context = json!({ "event": { "payload": {} } });
        let source = "Dear\n{{ event.payload.name }}";
        let error = render(source, context.clone()).unwrap_err();
        assert!(error.problem.contains("event.payload.name"), "{error}");
        let at = error.at.unwrap();
        assert!(source[at..].starts_with("event.payload.name") || source[..=at].ends_with("name"), "{at}");
        for asks in ["{{ foo }}", "{% if event.payload.a.b %}x{% endif %}", "{{ event.payload.a ~ 'x' }}"] {
            assert!(render(asks, context.clone()).is_err(), "{asks}");
        }
        for allows in
            ["{{ event.payload.a | default('none') }}", "{% if event.payload.a is defined %}x{% endif %}"]
        {
            assert!(render(allows, context.clone()).is_ok(), "{allows}");
        }
    }

    #[test]
    fn syntax_is_told_with_its_place() {
        let error = Template::new("ok\n{{ event. }}").unwrap_err();
        assert!(error.problem.starts_with("syntax error"), "{error}");
        assert_eq!(error.at, Some(13), "{error:?}");
    }

    #[test]
    fn a_template_cannot_do_or_give_without_end() {
        let nothing = json!({});
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{{ 'x' * 100000000 }}",
            "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        ] {
            assert!(render(source, nothing.clone()).is_err(), "{source}");
        }
        let long = render("{{ 'x' * 10001 }}", nothing).unwrap_err();
        assert!(long.problem.contains("RESPOND_TEXT_MAX_BYTES"), "{long}");
    }

    #[test]
    fn what_a_sender_wrote_is_never_a_template() {
        let nasty = "{{ 7 * 7 }}{% include 'template' %}{% raw %}";
        let text = render("{{ event.payload }}", json!({ "event": { "payload": nasty } })).unwrap();
        assert_eq!(text, nasty);
        for source in
            ["{% include 'colloquy.toml' %}", "{% import 'x' as x %}", "{% extends '/etc/passwd' %}"]
        {
            assert!(render(source, json!({})).is_err(), "{source}");
        }
        assert!(render("{{ debug() }}", json!({})).is_err(), "the context is not dumped");
    }

    #[test]
    fn an_error_quotes_nothing_of_the_event() {
        let event = json!({ "event": { "payload": { "name": "s3cr3t", "n": 1 } } });
        for source in [
            "{{ event.payload.name + 1 }}",
            "{{ event.payload.name.foo }}",
            "{{ event.payload.name | int }}",
            "{{ event.payload.n | items }}",
            "{{ [1][event.payload.name] }}",
            "{{ event.payload.name() }}",
        ] {
            let error = render(source, event.clone()).unwrap_err();
            assert!(!error.problem.contains("s3cr3t"), "{source}: {error}");
        }
    }

    #[test]
    fn names_are_known_without_rendering() {
        let template = Template::new("{% for i in event.payload.items %}{{ i.x }}{{ range(3) }}{% endfor %}{{ foo }} {{ event.paylod }}").unwrap();
        let names: Vec<String> = template.names().into_iter().collect();
        assert_eq!(names, ["event.payload.items", "event.paylod", "foo"]);
        assert_eq!(template.place_of("foo"), Some(72));
        let said = Template::new("No foo here: {{ foo }}").unwrap();
        assert_eq!(said.place_of("foo"), Some(16));
    }
}
