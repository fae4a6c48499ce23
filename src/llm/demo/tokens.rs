//! What the demo model takes for a token: a short word with the space before it, a part of a long one, a sign.

const LONGEST: usize = 7;

/// The text in tokens; together they are the text again.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = end_of_first(rest)?;
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

/// How many tokens a text has.
pub(super) fn count(text: &str) -> u64 {
    pieces(text).count() as u64
}

fn end_of_first(text: &str) -> Option<usize> {
    let mut end = 0;
    let mut letters = 0;
    for (at, c) in text.char_indices() {
        let word = c.is_alphanumeric();
        let stop = if at == 0 {
            false
        } else if letters > 0 {
            !word || letters >= LONGEST
        } else {
            // A word joins one space before it; signs stand alone.
            !(word && text.starts_with(' ') && at == 1)
        };
        if stop {
            return Some(at);
        }
        letters += usize::from(word);
        end = at + c.len_utf8();
    }
    (end > 0).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_take_their_space_along() {
        let found: Vec<&str> = pieces("Hello, wide world: internationalisation  öffnet").collect();
        assert_eq!(
            found,
            ["Hello", ",", " wide", " world", ":", " interna", "tionali", "sation", " ", " öffnet"]
        );
        assert_eq!(count(""), 0);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "\\PC{0,60}") {
            prop_assert_eq!(pieces(&text).collect::<String>(), text.clone());
            prop_assert!(pieces(&text).all(|piece| !piece.is_empty()));
        }
    }
}
