//! Where in `colloquy.toml` something stands that was found inside a string, after escapes and `${ENV_NAME}` were read.

use std::fmt;
use std::ops::Range;

use super::substitute::{Text, traced};
use crate::config::Environment;

/// From places in what was read to places in what it was read from.
#[derive(Debug, Default)]
pub(super) struct Origins(Vec<Part>);

#[derive(Debug)]
struct Part {
    read: usize,
    from: usize,
    /// What follows stands there as it was read, byte for byte.
    same: bool,
}

impl Origins {
    /// What is read from `read` on stands at `from`, as it is.
    pub(super) fn same(&mut self, read: usize, from: usize) {
        self.0.push(Part { read, from, same: true });
    }

    /// What is read from `read` on was made of what stands at `from`.
    pub(super) fn made(&mut self, read: usize, from: usize) {
        self.0.push(Part { read, from, same: false });
    }

    fn of(&self, read: usize) -> usize {
        let after = self.0.partition_point(|part| part.read <= read);
        match after.checked_sub(1).and_then(|last| self.0.get(last)) {
            Some(part) if part.same => part.from + (read - part.read),
            Some(part) => part.from,
            None => read,
        }
    }
}

/// Line and column, from 1, of a place inside a string of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of the file.
    File(usize, usize),
    /// Of the string's own text, where the file's cannot be told.
    Text(usize, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(line, column) => write!(f, "line {line}, column {column}"),
            Self::Text(line, column) => write!(f, "line {line}, column {column} of its text"),
        }
    }
}

/// The byte of the file from which comes what stands `at` bytes from the beginning of `text`, the string at `span` being
/// read as `text`. `None`: it is read otherwise.
pub(super) fn in_file(
    file: &str,
    span: Range<usize>,
    environment: Option<&dyn Environment>,
    text: &str,
    at: usize,
) -> Option<usize> {
    let (value, escapes) = string(file, span)?;
    let mut variables = Origins::default();
    match traced(&value, environment, &mut variables) {
        Ok(Text::Literal(read) | Text::Substituted(read)) if read == text => {
            Some(escapes.of(variables.of(at)))
        }
        _ => None,
    }
}

/// Line and column, from 1, columns in characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A string as TOML reads it, and where each part of it stands. The parser does not tell where, and has found it sound.
fn string(file: &str, span: Range<usize>) -> Option<(String, Origins)> {
    let raw = file.get(span.clone())?;
    let forms = [("\"\"\"", true, true), ("'''", true, false), ("\"", false, true), ("'", false, false)];
    let (inner, delimiter, lines, escaped) = forms.into_iter().find_map(|(delimiter, lines, escaped)| {
        let inner = raw.strip_prefix(delimiter)?.strip_suffix(delimiter)?;
        Some((inner, delimiter, lines, escaped))
    })?;
    // A line break right after the opening is not part of it.
    let body = match inner.strip_prefix('\n').or_else(|| inner.strip_prefix("\r\n")) {
        Some(body) if lines => body,
        _ => inner,
    };
    let end = span.start + delimiter.len() + inner.len();
    let (mut text, mut origins, mut rest) = (String::with_capacity(body.len()), Origins::default(), body);
    origins.same(0, end - body.len());
    while let Some(at) = rest.find('\\').filter(|_| escaped) {
        let from = end - rest.len() + at;
        text.push_str(&rest[..at]);
        let (character, bytes) = escape(&rest[at..])?;
        origins.made(text.len(), from);
        text.extend(character);
        origins.same(text.len(), from + bytes);
        rest = &rest[at + bytes..];
    }
    text.push_str(rest);
    Some((text, origins))
}

/// What the escape at the beginning of `text` stands for, and how long it is. One at the end of a line stands for nothing,
/// and takes the white space after it along.
fn escape(text: &str) -> Option<(Option<char>, usize)> {
    let after = text.get(1..)?;
    let hex = |digits: usize| {
        let code = u32::from_str_radix(after.get(1..=digits)?, 16).ok()?;
        Some((Some(char::from_u32(code)?), digits + 2))
    };
    let character = match after.chars().next()? {
        'b' => '\u{8}',
        'e' => '\u{1b}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        same @ ('\\' | '"') => same,
        'x' => return hex(2),
        'u' => return hex(4),
        'U' => return hex(8),
        _ => {
            let rest = after.trim_start_matches([' ', '\t', '\r', '\n']);
            return (rest.len() < after.len()).then(|| (None, text.len() - rest.len()));
        }
    };
    Some((Some(character), 2))
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::config::fixed;

    /// Where `<here>` stands in a file, and where that of the value of `text` is told to be.
    fn told(toml: &str) -> (usize, usize) {
        let file = format!("# ü\nfirst = 1\ntext = {toml}\nlast = 2\n");
        let document = DeTable::parse(&file).unwrap();
        let value = &document.get_ref()["text"];
        let environment = fixed([("NAME", "some value"), ("HOST", "h")]);
        let read =
            match traced(value.get_ref().as_str().unwrap(), Some(&environment), &mut Origins::default()) {
                Ok(Text::Literal(read) | Text::Substituted(read)) => read,
                other => panic!("{other:?}"),
            };
        let at = read.find("<here>").unwrap();
        let found = in_file(&file, value.span(), Some(&environment), &read, at).unwrap();
        (file.find("<here>").unwrap(), found)
    }

    #[test]
    fn every_kind_of_string_has_its_places() {
        for toml in [
            r#""<here>""#,
            r#""a <here> b""#,
            r#""a\nb <here>""#,
            r#""\"q\" \\ \t \b\f\r\e \x41 \u00e9 \U0001F600 é <here>""#,
            r#""$${x} $${y} <here>""#,
            r#""\u0024${NAME} \"<here>\" ${HOST}""#,
            r#""${NAME}${HOST} <here>""#,
            "'<here>'",
            r"'a\nb \ $${x} <here>'",
            "'''<here>'''",
            "'''\n<here>'''",
            "'''\r\n a 'q' ''x\n\\n $${x} ${HOST} <here>''''",
            "\"\"\"<here>\"\"\"",
            "\"\"\"\n<here>\"\"\"",
            "\"\"\"\r\none\r\n\\\"two\\\" <here>\n\"\"\"",
            "\"\"\"\na \\\n    b \\   \r\n\n  \\n \"\"q\"\" $${x} ${NAME}\\n<here> \"\"\"\"",
        ] {
            let (stands, found) = told(toml);
            assert_eq!(stands, found, "{toml}");
        }
    }

    #[test]
    fn what_was_made_is_where_it_was_made_of() {
        let file = "text = \"a\\u00e9b ${NAME} c\"";
        let environment = fixed([("NAME", "value")]);
        let span = file.find('"').unwrap()..file.len();
        let read = "aéb value c";
        let at = |what: &str| {
            in_file(file, span.clone(), Some(&environment), read, read.find(what).unwrap()).unwrap()
        };
        for (what, from) in [("é", "\\u00e9"), ("b", "b "), ("alu", "${NAME}"), (" c", " c\"")] {
            assert_eq!(at(what), file.find(from).unwrap(), "{what}");
        }
        assert_eq!(in_file(file, span, Some(&environment), "another", 3), None);
        assert_eq!(Place::File(3, 4).to_string(), "line 3, column 4");
        assert_eq!(Place::Text(1, 6).to_string(), "line 1, column 6 of its text");
    }
}
