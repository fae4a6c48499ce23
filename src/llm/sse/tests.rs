use futures_util::StreamExt as _;
use proptest::prelude::*;

use super::*;

fn events(chunks: &[&[u8]]) -> Vec<(String, String)> {
    let mut frames = Frames::new(1_000);
    let mut found = Vec::new();
    let mut keep = |event: Event<'_>| {
        found.push((event.name.to_owned(), event.data.to_owned()));
        Ok(())
    };
    for chunk in chunks {
        frames.push(chunk, &mut keep).unwrap();
    }
    frames.finish(&mut keep).unwrap();
    found
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, data)| ((*name).to_owned(), (*data).to_owned())).collect()
}

#[test]
fn every_line_end_comments_and_a_missing_blank_line() {
    for end in ["\n", "\r\n", "\r"] {
        let text = [
            ": hello", "event: a", "data: 1", "", ":", "", "data:2", "data: 3", "id: 7", "", "event: b", "",
            "data: 4",
        ]
        .join(end);
        assert_eq!(events(&[text.as_bytes()]), named(&[("a", "1"), ("", "2\n3"), ("", "4")]), "{end:?}");
    }
    assert_eq!(events(&["\u{feff}data: x\n\n".as_bytes()]), named(&[("", "x")]));
    assert_eq!(events(&[b"data\n\ndata:\n\n"]), named(&[("", ""), ("", "")]));
    assert_eq!(events(&[b"\n\n\n"]), named(&[]));
}

#[test]
fn an_event_without_end_is_refused() {
    let mut frames = Frames::new(100);
    let error = frames.push(&[b'x'; 101], &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.class, ErrorClass::Protocol);
    let mut frames = Frames::new(100);
    let lines = "data: 0123456789\n".repeat(20);
    assert!(frames.push(lines.as_bytes(), &mut |_| Ok(())).is_err());
}

/// Any stream: fields, comments, odd line ends, text of several bytes a character.
fn stream() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just(String::new()),
        "data: [a-zäöü😀:{}\" ]{0,12}",
        "data:[a-z]{0,3}",
        "event: [a-z.]{0,9}",
        ": [a-z ]{0,9}",
        "data",
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    proptest::collection::vec((line, end), 0..24)
        .prop_map(|lines| lines.into_iter().flat_map(|(line, end)| [line, end.to_owned()]).collect())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(text in stream(), cuts in proptest::collection::vec(0usize..200, 0..20)) {
        let whole = events(&[text.as_bytes()]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let mut from = 0;
        let chunks: Vec<&[u8]> = cuts.iter().map(|&to| { let chunk = &text.as_bytes()[from..to]; from = to; chunk }).collect();
        prop_assert_eq!(events(&chunks), whole.clone());
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(events(&bytes), whole);
    }

    /// Against another implementation, where the two agree on purpose: it drops an event without its blank line, and
    /// it may tell of events without data.
    #[test]
    fn another_parser_sees_the_same(text in stream()) {
        let text = format!("{text}\n\n");
        let theirs: Vec<String> = futures_util::FutureExt::now_or_never(async {
            let bytes = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(text.clone()))]);
            let mut stream = sse_stream::SseStream::from_bytes_stream(bytes);
            let mut all = Vec::new();
            while let Some(event) = stream.next().await {
                if let Some(data) = event.unwrap().data {
                    all.push(data);
                }
            }
            all
        }).unwrap();
        let ours: Vec<String> = events(&[text.as_bytes()]).into_iter().map(|(_, data)| data).collect();
        prop_assert_eq!(ours, theirs);
    }
}
