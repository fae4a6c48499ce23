use proptest::prelude::*;

use super::*;
use crate::openresponses::TopLogProb;

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        "[a-z ]{0,6}",
        proptest::string::string_regex("(?s).{0,4}").expect("a pattern"),
        Just("\0\u{1f}\"\\\u{2028}\n".to_owned()),
    ]
    .prop_map(Arc::from)
}

fn logprob() -> impl Strategy<Value = LogProb> {
    let number = || {
        (1_u32..2_000_000_000, 0..30_i32).prop_map(|(digits, zeros)| {
            // As a provider writes it, read as the server reads it.
            let json = format!(r#"{{"token":"x","logprob":-{digits}e-{zeros}}}"#);
            serde_json::from_str::<LogProb>(&json).expect("a log probability").logprob
        })
    };
    let top = (text(), number()).prop_map(|(token, logprob)| TopLogProb {
        token: token.to_string(),
        logprob,
        bytes: token.as_bytes().to_vec(),
    });
    (text(), number(), prop::collection::vec(top, 0..3)).prop_map(|(token, logprob, top_logprobs)| LogProb {
        token: token.to_string(),
        logprob,
        bytes: vec![0, 255],
        top_logprobs,
    })
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let number = prop_oneof![0..3_u16, Just(u16::MAX)];
    prop_oneof![
        4 => text().prop_map(Chunk::Text),
        2 => (text(), prop::collection::vec(logprob(), 0..3))
            .prop_map(|(delta, logprobs)| Chunk::TextLogProbs { delta, logprobs: logprobs.into() }),
        1 => any::<u64>().prop_map(|keep| Chunk::Retract { keep }),
        1 => text().prop_map(Chunk::Annotation),
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
fn version_2_is_read() {
    let logprobs = r#"[{"token":"a","logprob":-0.25,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1.5,"bytes":[98]}]}]"#;
    let all = format!(r#"[2,["t","a"],["p","a",{logprobs},"b",[]],["d",3,1]]"#);
    let chunks = unpack(&all).expect("readable");
    assert_eq!(chunks.len(), 5);
    assert_eq!(chunks[4], Chunk::Retract { keep: 1 });
    assert_eq!(pack(&chunks), all);
    // What the version before could have written is written so that it can be read there.
    assert!(pack(&chunks[..1]).starts_with("[1,"));
}

#[test]
fn other_versions_and_unknown_kinds_are_told_apart_from_damage() {
    let error = |packed: &str| unpack(packed).expect_err("unreadable");
    assert!(matches!(error(r#"[3,{"of":"tomorrow"}]"#), LogError::Version(3)));
    let damaged = ["", "[]", "{}", r#"[1,["q","x"]]"#, r#"[1,["c",0,"x"]]"#, r#"[1,["s","x"]]"#, "[1][1]"];
    for damaged in damaged.into_iter().chain([r#"[2,["p","x"]]"#, r#"[2,["d","x"]]"#]) {
        assert!(matches!(error(damaged), LogError::Malformed(_)), "{damaged}");
    }
}
