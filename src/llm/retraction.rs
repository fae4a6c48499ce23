//! Text that the provider's filter takes back after it was shown.
//!
//! Pieces keep their places, since sequence numbers count them: what is taken back becomes empty, in memory and in the
//! log, and whoever comes later sees as many events as those who were there.

use super::Chunk;

/// The longest beginning of a text that has no more than so many UTF-16 code units. That is what Azure counts in; where
/// a provider counts characters instead, less stays than would have to go.
pub fn beginning(text: &str, units: u64) -> &str {
    let mut left = units;
    for (at, c) in text.char_indices() {
        let wide = c.len_utf16() as u64;
        if wide > left {
            return &text[..at];
        }
        left -= wide;
    }
    text
}

/// How long a text is, in UTF-16 code units.
pub fn units(text: &str) -> u64 {
    text.encode_utf16().count() as u64
}

/// Empties what the retractions among these pieces take back. `true` if there are any.
pub fn redact(chunks: &mut [Chunk]) -> bool {
    let mut found = false;
    for at in 0..chunks.len() {
        let (before, rest) = chunks.split_at_mut(at);
        if let Some(Chunk::Retract { keep }) = rest.first_mut() {
            found = true;
            let mut left = *keep;
            // Where it falls into a character, that goes too, and the cut is where its beginning is.
            *keep -= before.iter_mut().map(|chunk| shorten(chunk, &mut left)).sum::<u64>();
        }
    }
    found
}

/// Leaves of a piece of text what still fits. Gives how much of that is not used, since no half of a character stays.
fn shorten(chunk: &mut Chunk, left: &mut u64) -> u64 {
    if let Chunk::Annotation(annotation) = chunk {
        // It may quote what it stands behind.
        if *left == 0 {
            *annotation = "null".into();
        }
        return 0;
    }
    let (Chunk::Text(delta) | Chunk::TextLogProbs { delta, .. }) = &*chunk else { return 0 };
    let length = units(delta);
    if length <= *left {
        *left -= length;
        return 0;
    }
    let room = std::mem::take(left);
    let rest = beginning(delta, room);
    let unused = room - units(rest);
    *chunk = Chunk::Text(rest.into());
    unused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(chunks: &[Chunk]) -> Vec<&str> {
        let text = |chunk| match chunk {
            &Chunk::Text(ref delta) | &Chunk::TextLogProbs { ref delta, .. } => Some(&**delta),
            _ => None,
        };
        chunks.iter().filter_map(text).collect()
    }

    #[test]
    fn what_is_taken_back_is_emptied_and_keeps_its_place() {
        let call = Chunk::ToolCall { index: 0, call_id: "c".into(), name: "f".into() };
        let pieces = |keep| {
            let likely = Chunk::TextLogProbs { delta: "efg".into(), logprobs: Vec::new().into() };
            [
                Chunk::Text("ab\u{1f600}d".into()),
                likely,
                call.clone(),
                Chunk::Text("h".into()),
                Chunk::Retract { keep },
            ]
        };
        // The smiling face is two units wide, and is not halved.
        for (keep, wanted) in [
            (0, ["", "", ""]),
            (3, ["ab", "", ""]),
            (4, ["ab\u{1f600}", "", ""]),
            (6, ["ab\u{1f600}d", "e", ""]),
            (8, ["ab\u{1f600}d", "efg", ""]),
            (99, ["ab\u{1f600}d", "efg", "h"]),
        ] {
            let mut chunks = pieces(keep);
            assert!(redact(&mut chunks));
            assert_eq!(texts(&chunks), wanted, "{keep}");
            let kept = if keep == 3 { 2 } else { keep };
            assert_eq!((&chunks[2], &chunks[4]), (&call, &Chunk::Retract { keep: kept }));
            let once = chunks.clone();
            redact(&mut chunks);
            assert_eq!(chunks, once, "twice is once");
        }
        assert!(!redact(&mut [Chunk::Text("a".into())]));
    }

    #[test]
    fn of_several_retractions_the_furthest_counts() {
        let mut chunks =
            [Chunk::Text("abcdef".into()), Chunk::Retract { keep: 4 }, Chunk::Retract { keep: 2 }];
        redact(&mut chunks);
        assert_eq!(texts(&chunks), ["ab"]);
    }
}
