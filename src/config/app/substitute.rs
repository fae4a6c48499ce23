//! `${ENV_NAME}` inside the strings of `colloquy.toml`; `$${` stands for a literal `${`.

use super::places::Origins;
use crate::config::Environment;

/// A string after substitution.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// As it stood.
    Literal(String),
    /// With values from the environment, which may not be shown.
    Substituted(String),
    /// With variables left in, there being no environment to ask.
    Open,
}

/// What is wrong with a string.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Nobody could use it.
    Form(String),
    /// A variable has no value, which matters to whoever uses this one.
    Unset(String),
}

/// Puts the environment's values in; `Err` lists what is wrong.
pub(super) fn substitute(text: &str, environment: Option<&dyn Environment>) -> Result<Text, Vec<Problem>> {
    traced(text, environment, &mut Origins::default())
}

/// [`substitute`], noting where what comes of it stood in `text`.
pub(super) fn traced(
    text: &str,
    environment: Option<&dyn Environment>,
    origins: &mut Origins,
) -> Result<Text, Vec<Problem>> {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let mut substituted = false;
    let mut open = false;
    let mut rest = text;
    origins.same(0, 0);
    while let Some(at) = rest.find("${") {
        let from = text.len() - rest.len() + at;
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            origins.same(out.len(), from);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            let problem = "has ${ without }; write $${ for a literal ${";
            problems.push(Problem::Form(problem.to_owned()));
            return Err(problems);
        };
        let name = &rest[at + 2..at + end];
        rest = &rest[at + end + 1..];
        if !is_variable(name) {
            let problem = format!("${{{name}}} is not the name of an environment variable");
            problems.push(Problem::Form(problem));
            continue;
        }
        let Some(environment) = environment else {
            open = true;
            continue;
        };
        match environment.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()) {
            None => problems.push(Problem::Unset(format!("the environment variable {name} is not set"))),
            Some(value) if value.starts_with("@Microsoft.KeyVault(") => {
                problems.push(Problem::Unset(format!("the Key Vault reference in {name} was not resolved")));
            }
            Some(value) => {
                substituted = true;
                origins.made(out.len(), from);
                out.push_str(&value);
                origins.same(out.len(), text.len() - rest.len());
            }
        }
    }
    out.push_str(rest);
    match (problems.is_empty(), open, substituted) {
        (false, ..) => Err(problems),
        (true, true, _) => Ok(Text::Open),
        (true, false, true) => Ok(Text::Substituted(out)),
        (true, false, false) => Ok(Text::Literal(out)),
    }
}

fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixed;

    #[test]
    fn variables_are_put_in_and_missing_ones_named() {
        let environment =
            fixed([("HOST", "example.com"), ("EMPTY", " "), ("VAULT", "@Microsoft.KeyVault(x)")]);
        let with = |text: &str| substitute(text, Some(&environment));
        assert_eq!(with("plain"), Ok(Text::Literal("plain".into())));
        assert_eq!(
            with("https://${HOST}/a/${HOST}"),
            Ok(Text::Substituted("https://example.com/a/example.com".into()))
        );
        assert_eq!(with("cost: $5, $${HOST}"), Ok(Text::Literal("cost: $5, ${HOST}".into())));
        let problems = with("${NOPE} ${EMPTY} ${VAULT} ${no-name}").unwrap_err();
        assert_eq!(problems.len(), 4);
        let said = |problem: &Problem, name: &str| match problem {
            Problem::Unset(text) => name != "no-name" && text.contains(name),
            Problem::Form(text) => name == "no-name" && text.contains(name),
        };
        for name in ["NOPE", "EMPTY", "VAULT", "no-name"] {
            assert!(problems.iter().any(|problem| said(problem, name)), "{name}");
        }
        assert_eq!(with("${HOST").unwrap_err().len(), 1);
        assert_eq!(substitute("${HOST}", None), Ok(Text::Open));
    }
}
