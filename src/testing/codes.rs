//! That `docs/errors.md` has every stable code that the sources tell, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::functions::PROBLEM_TYPES;
use crate::webhooks::ProblemKind;

/// Rust files below a folder, without tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "tests" && name != "testing" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "testing.rs" {
            found.push(path);
        }
    }
}

fn is_code(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_lowercase());
    first && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

/// All string literals that could be codes.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2).filter(|literal| is_code(literal))
}

/// The first argument of a call whose bracket has just opened.
fn first_argument(rest: &str) -> &str {
    let mut depth = 0;
    let end = rest.find(|c| {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        depth < 0 || (depth == 0 && c == ',')
    });
    &rest[..end.unwrap_or(rest.len())]
}

/// What stands between a bracket that has just opened and its end.
fn body(rest: &str) -> &str {
    let mut depth = 1;
    let end = rest.find(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    &rest[..end.unwrap_or(rest.len())]
}

/// The codes that a file tells, in any of the ways in which they are told.
fn codes(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let after = |start: &str| -> Vec<&str> {
        text.match_indices(start).map(|(at, start)| text[at + start.len()..].trim_start()).collect()
    };
    let mut found = BTreeSet::new();
    let mut take = |literals: &mut dyn Iterator<Item = &str>| found.extend(literals.map(str::to_owned));
    // In log lines, and where an error is given another code.
    for start in [" code = ", "(code = ", " code: ", ".code = "] {
        for rest in after(start) {
            let value = rest.split([',', ';', ')']).next().unwrap_or_default();
            if value.starts_with('"') || value.starts_with("if ") {
                take(&mut literals(value));
            }
        }
    }
    for start in [
        "Failure::new(",
        "hopeless(",
        " unreadable(",
        "fatal(",
        "conflict(",
        "ApiError::invalid(",
        "ApiError::unavailable(",
        "Self::invalid(",
        "Self::unavailable(",
        "PayloadError::new(",
        "PayloadError::of_another_version(",
        "ProblemType::new(",
    ] {
        for rest in after(start) {
            take(&mut literals(first_argument(rest)));
        }
    }
    for rest in after("ErrorType::") {
        let rest = rest.trim_start_matches(|c: char| c.is_alphanumeric());
        if rest.starts_with(", \"") {
            take(&mut literals(rest).take(1));
        }
    }
    for rest in after("fn code(") {
        take(&mut literals(body(rest.split_once('{').map_or("", |(_, body)| body))));
    }
    // Constants that say they are codes.
    for (at, _) in text.match_indices("const ") {
        let (before, rest) = (&text[..at], &text[at..]);
        let doc = before.rsplit([';', '}', '{']).next().unwrap_or_default();
        let name = rest[6..].split(':').next().unwrap_or_default();
        let says = name == "CODE" || doc.contains("/// Code of") || doc.contains("/// The code of");
        if says && let Some((_, value)) = rest.split_once("= ") {
            take(&mut literals(value).take(1));
        }
    }
    // In SQL, in JSON written by hand, and in the SDK's pairs of code and words.
    for (start, end) in
        [("coalesce(error_code, '", '\''), ("\\\"code\\\":\\\"", '\\'), ("(\"settlement.", '"')]
    {
        for rest in after(start) {
            let whole = if start.contains("settlement") { "settlement." } else { "" };
            let code = rest.split(end).next().unwrap_or_default();
            found.insert(format!("{whole}{code}"));
        }
    }
    found
}

/// Code to the file that tells it.
fn told() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "server", "handlers"] {
        sources(&root.join(folder), &mut files);
    }
    let mut told = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        told.extend(codes(&text).into_iter().map(|code| (code, name.clone())));
    }
    let problems = ProblemKind::ALL.iter().map(|kind| kind.code());
    let problems = problems.chain(PROBLEM_TYPES.iter().map(|problem| problem.slug));
    told.extend(problems.map(|code| (code.to_owned(), "problem types".to_owned())));
    told
}

/// What stands in the first column of the page's tables, and how often.
fn explained() -> BTreeMap<String, usize> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md")).unwrap();
    let mut explained = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let first = row.split('|').nth(1).unwrap_or_default();
        for code in first.split('`').skip(1).step_by(2) {
            *explained.entry(code.to_owned()).or_default() += 1;
        }
    }
    explained
}

#[test]
fn every_code_is_explained_and_every_explained_code_is_told() {
    let (told, rows) = (told(), explained());
    // A problem's type may also be the code of the line that tells operators of it.
    let explained: BTreeSet<&str> = rows.keys().map(|code| code.trim_start_matches("/problems/")).collect();
    let missing: Vec<_> = told.iter().filter(|(code, _)| !explained.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "give these a row in docs/errors.md: {missing:#?}");
    let stale: Vec<_> = explained.iter().filter(|code| !told.contains_key(**code)).collect();
    assert!(stale.is_empty(), "nobody tells these any more; take them out of docs/errors.md: {stale:#?}");
    let twice: Vec<_> = rows.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "one row explains a code: {twice:#?}");
}

#[test]
fn codes_are_found_however_they_are_told() {
    let text = r#"
        /// The code of an attempt.
        const UNSURE: &str = "const_doc";
        tracing::warn!(code = "log.line", "x");
        tracing::warn!(
            code = if percent { "either" } else { "or" },
            error.code = error.code(),
        );
        Failure::new(
            "failure", format!("x {}", "y"))
        ApiError::invalid(if a { "low" } else { "high" }, name, "words")
        ApiError::new(StatusCode::CONFLICT, ErrorType::ConflictError, "api_new", message)
        fn code(&self) -> &'static str { match self { Self::A { .. } => "fn_code", Self::B => { "in_block" } } }
        "coalesce(error_code, 'sql_code')"
        Err(Cut::Panicked) => ("settlement.panicked", x)
        #[cfg(test)]
mod tests {
        tracing::warn!(code = "of_a_test");
    "#;
    let wanted = [
        "api_new",
        "const_doc",
        "either",
        "failure",
        "fn_code",
        "high",
        "in_block",
        "log.line",
        "low",
        "or",
        "settlement.panicked",
        "sql_code",
    ];
    assert_eq!(codes(text).iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}
