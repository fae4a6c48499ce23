//! Cutting a file into statements at the semicolons that end one: not those in strings, quoted names, dollar
//! quotes, comments, or the body of a `BEGIN ATOMIC` function.

/// A statement without its semicolon, and where in the file its first word stands (byte offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    pub text: &'a str,
    pub start: usize,
}

impl Statement<'_> {
    pub fn first_word(&self) -> &str {
        let end = self.text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.text.len());
        &self.text[..end]
    }
}

/// The 1-based line of a byte offset.
pub(super) fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// Statements without the comments before them; stretches of nothing but comments are left out.
pub(super) fn split(sql: &str) -> Vec<Statement<'_>> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut start = None;
    let mut depth = 0_u32; // of BEGIN ATOMIC … END and the CASEs in it
    let mut last_word = "";
    let mut at = 0;
    while at < bytes.len() {
        let rest = &sql[at..];
        let byte = bytes[at];
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        if rest.starts_with("/*") {
            at += block_comment(rest);
            continue;
        }
        if byte == b';' {
            if depth == 0 {
                found.extend(start.take().map(|start| Statement { text: sql[start..at].trim_end(), start }));
            }
            at += 1;
            continue;
        }
        start.get_or_insert(at);
        at += match byte {
            b'\'' => {
                let escapes =
                    last_word.eq_ignore_ascii_case("e") && at > 0 && bytes[at - 1].is_ascii_alphabetic();
                quoted(rest, '\'', escapes)
            }
            b'"' => quoted(rest, '"', false),
            b'$' => dollar_quoted(rest),
            _ if is_word(byte) => {
                let length = rest.bytes().position(|b| !is_word(b) && b != b'$').unwrap_or(rest.len());
                let word = &rest[..length];
                if word.eq_ignore_ascii_case("atomic") && last_word.eq_ignore_ascii_case("begin")
                    || depth > 0 && word.eq_ignore_ascii_case("case")
                {
                    depth += 1;
                } else if depth > 0 && word.eq_ignore_ascii_case("end") {
                    depth -= 1;
                }
                last_word = word;
                length
            }
            _ => 1,
        };
    }
    found.extend(start.map(|start| Statement { text: sql[start..].trim_end(), start }));
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Block comments nest in PostgreSQL.
fn block_comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_u32, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// `$tag$ … $tag$`; a `$1` is not one.
fn dollar_quoted(text: &str) -> usize {
    let Some(length) = text[1..].bytes().position(|byte| !is_word(byte)) else { return text.len() };
    let tag = &text[..length + 1];
    if text.as_bytes()[length + 1] != b'$' || tag.as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
        return 1;
    }
    let tag = &text[..length + 2];
    text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        split(sql).into_iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_inside_quotes_and_comments_end_nothing() {
        assert_eq!(texts("SELECT 1; SELECT 2"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(texts("SELECT 'a;''b;'; SELECT \";\"\"\";"), ["SELECT 'a;''b;'", "SELECT \";\"\"\""]);
        assert_eq!(texts(r"SELECT E'\';'; SELECT '\'; x"), [r"SELECT E'\';'", r"SELECT '\'", "x"]);
        assert_eq!(texts("-- a; b\n/* c; /* d; */ */ SELECT 1 -- e;\n;;"), ["SELECT 1 -- e;"]);
        assert_eq!(
            texts("DO $$ BEGIN x; END $$; DO $a$ $$; $a$;"),
            ["DO $$ BEGIN x; END $$", "DO $a$ $$; $a$"]
        );
        assert_eq!(texts("SELECT $1; SELECT a$b; SELECT 'ü;'"), ["SELECT $1", "SELECT a$b", "SELECT 'ü;'"]);
        assert_eq!(
            texts(
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; x"
            ),
            [
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                "x"
            ]
        );
        assert_eq!(texts("  -- nothing\n ; "), Vec::<&str>::new());
        assert_eq!(texts("SELECT 'never closed; x"), ["SELECT 'never closed; x"]);
    }

    #[test]
    fn places_are_those_of_the_first_word() {
        let sql = "-- first\nSELECT 1;\n\n  commit ;";
        let found = split(sql);
        assert_eq!(found[1].first_word(), "commit");
        assert_eq!(found.iter().map(|s| line(sql, s.start)).collect::<Vec<_>>(), [2, 4]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_without_panic_and_loses_no_statement_text(sql in "[a-z$';\"/*\\- \nü1E\\\\]{0,60}") {
            for statement in split(&sql) {
                proptest::prop_assert!(sql[statement.start..].starts_with(statement.text));
                proptest::prop_assert!(!statement.text.is_empty());
            }
        }
    }
}
