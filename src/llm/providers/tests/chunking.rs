//! However a network cuts the bytes, and whatever line ends a server likes, the pieces of the answer are the same.

use proptest::prelude::*;

use super::*;

fn fixture() -> impl Strategy<Value = (ProviderKind, String)> {
    prop_oneof![
        Just((ProviderKind::Azure, streams::azure())),
        Just((ProviderKind::Openai, streams::calls())),
        Just((ProviderKind::Anthropic, events::claude())),
        Just((ProviderKind::Responses, events::responses())),
    ]
}

proptest! {
    #[test]
    fn any_chunking_of_the_same_bytes_gives_the_same_events(
        (provider, text) in fixture(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        comments in any::<bool>(),
    ) {
        let wanted = whole(provider, &text);
        let mut text = text.replace('\n', end);
        if comments {
            text = text.replace(&format!("{end}{end}"), &format!("{end}{end}: still here{end}{end}"));
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let mut from = 0;
        let mut chunks = Vec::new();
        for to in cuts {
            chunks.push(&text.as_bytes()[from..to]);
            from = to;
        }
        let (found, outcome) = read(provider, &chunks);
        prop_assert_eq!(outcome, Ok(()));
        prop_assert_eq!(found, wanted.clone());
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(read(provider, &bytes).0, wanted);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_a_beginning_of_it(
        (provider, text) in fixture(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let all = whole(provider, &text);
        let (found, outcome) = read(provider, &[&text.as_bytes()[..cut.index(text.len())]]);
        prop_assert!(all.starts_with(&found), "{found:?}");
        if let Err(error) = outcome {
            prop_assert_eq!(error.class, ErrorClass::Interrupted);
        }
    }

    #[test]
    fn garbage_is_refused_without_harm(provider in prop_oneof![
        Just(ProviderKind::Openai), Just(ProviderKind::Anthropic), Just(ProviderKind::Responses)
    ], bytes in proptest::collection::vec(any::<u8>(), 0..300), json in "[\\[\\]{}:,\"a-z0-9]{0,80}") {
        read(provider, &[&bytes]).1.unwrap_err();
        let text = format!("data: {json}\n\n");
        drop(read(provider, &[text.as_bytes()]));
    }
}
