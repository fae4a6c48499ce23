use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        "[a-z ]{0,6}",
        proptest::string::string_regex("(?s).{0,4}").expect("a pattern"),
        Just("\0\u{1f}\"\\\u{2028}\n".to_owned()),
    ]
    .prop_map(Arc::from)
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let number = prop_oneof![0..3_u16, Just(u16::MAX)];
    prop_oneof![
        4 => text().prop_map(Chunk::Text),
        1 => text().prop_map(Chunk::Refusal),
        1 => (number.clone(), text()).prop_map(|(part, delta)| Chunk::ReasoningSummary { part, delta }),
        1 => text().prop_map(Chunk::ReasoningText),
        1 => text().prop_map(Chunk::ReasoningEncrypted),
        1 => (number.clone(), text(), text())
            .prop_map(|(index, call_id, name)| Chunk::ToolCall { index, call_id, name }),
        2 => (number, text()).prop_map(|(index, delta)| Chunk::ToolArguments { index, delta }),
    ]
}

proptest! {
    #[test]
    fn what_is_packed_unpacks_to_the_same_pieces(chunks in prop::collection::vec(chunk(), 0..40)) {
        let packed = pack(&chunks);
        // PostgreSQL takes no NUL in text.
        prop_assert!(!packed.contains('\0'));
        prop_assert_eq!(unpack(&packed).expect("readable"), chunks);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,60}", cut in 0..60_usize) {
        let packed = pack(&[Chunk::Text(Arc::from(text.as_str()))]);
        let cut = packed.floor_char_boundary(cut);
        prop_assert!(cut >= packed.len() || unpack(&packed[..cut]).is_err());
        prop_assert!(unpack(&text).is_err() || text.trim_start().starts_with('['));
    }
}

#[test]
fn runs_are_shared_and_boundaries_kept() {
    let chunks = [
        Chunk::Text("Hel".into()),
        Chunk::Text("lo".into()),
        Chunk::Text("".into()),
        Chunk::ToolCall { index: 0, call_id: "call_1".into(), name: "add".into() },
        Chunk::ToolArguments { index: 0, delta: "{\"a\":".into() },
        Chunk::ToolArguments { index: 1, delta: "{}".into() },
    ];
    let packed = r#"[1,["t","Hel","lo",""],["c",0,"call_1","add"],["a",0,"{\"a\":"],["a",1,"{}"]]"#;
    assert_eq!(pack(&chunks), packed);
    assert_eq!(pack(&[]), "[1]");
    assert_eq!(unpack("[1]").expect("readable"), []);
}

/// What a release has written, its successor reads: never change these texts.
#[test]
fn version_1_is_read() {
    let all = r#"[1,["t","a"],["r","b"],["s",2,"c"],["x","d"],["e","f"],["c",1,"g","h"],["a",1,"i"]]"#;
    let chunks = unpack(all).expect("readable");
    assert_eq!(chunks.len(), 7);
    assert_eq!(pack(&chunks), all);
}

#[test]
fn other_versions_and_unknown_kinds_are_told_apart_from_damage() {
    let error = |packed: &str| unpack(packed).expect_err("unreadable");
    assert!(matches!(error(r#"[2,{"of":"tomorrow"}]"#), LogError::Version(2)));
    for damaged in ["", "[]", "{}", r#"[1,["q","x"]]"#, r#"[1,["c",0,"x"]]"#, r#"[1,["s","x"]]"#, "[1][1]"] {
        assert!(matches!(error(damaged), LogError::Malformed(_)), "{damaged}");
    }
}
