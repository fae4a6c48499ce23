//! That pages of `docs/` hold what the code says.

mod codes;

use std::path::Path;

/// Compares a page with what the code would write there; with `UPDATE_DOCS` set, writes it instead. `test` is the filter
/// that runs the test at hand.
pub(crate) fn assert_page(page: &str, wanted: impl FnOnce(&str) -> String, test: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = wanted(&found);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    } else {
        assert!(found == wanted, "{page} is out of date; run UPDATE_DOCS=1 cargo test --lib {test}");
    }
}

/// The same for the tables of a page, each between `<!-- name -->` and `<!-- end of name -->`.
pub(crate) fn assert_tables(page: &str, tables: &[(&str, String)], test: &str) {
    let put_in = |found: &str| {
        tables.iter().fold(found.to_owned(), |text, (name, table)| {
            let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
            let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
            let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
            format!("{before}{begin}{table}{end}{after}")
        })
    };
    assert_page(page, put_in, test);
}
