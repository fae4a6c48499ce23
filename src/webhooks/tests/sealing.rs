use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use crate::config::LabelledSecret;
use crate::webhooks::Secrets;
use crate::webhooks::sealing::{SealError, Sealer};

fn sealer(keys: &[(&str, u8)]) -> Sealer {
    let keys = keys.iter().map(|(label, byte)| (*label, STANDARD.encode([*byte; 32])));
    Sealer::new(&secrets(keys)).unwrap()
}

fn secrets<'a>(keys: impl Iterator<Item = (&'a str, String)>) -> Secrets {
    let labelled =
        |(label, value): (&str, String)| LabelledSecret { label: label.to_owned(), value: value.into() };
    Secrets::new(keys.map(labelled).collect())
}

fn value(text: &str) -> SecretString {
    text.to_owned().into()
}

#[test]
fn what_was_sealed_opens_and_looks_like_nothing() {
    let sealer = sealer(&[("default", 1)]);
    for text in ["", "top secret", "\u{1f512}\0"] {
        let sealed = sealer.seal("dlv_1", &value(text)).unwrap();
        assert!(sealed.starts_with("v1.default."), "{sealed}");
        assert!(text.is_empty() || !sealed.contains(text));
        assert_eq!(sealer.open("dlv_1", &sealed).unwrap().expose_secret(), text);
        assert_ne!(sealed, sealer.seal("dlv_1", &value(text)).unwrap());
    }
}

#[test]
fn a_value_opens_only_where_it_was_sealed() {
    let sealer = sealer(&[("default", 1)]);
    let sealed = sealer.seal("dlv_1", &value("s")).unwrap();
    let moved = sealer.open("dlv_2", &sealed).unwrap_err();
    assert_eq!(moved, SealError::Open { label: "default".to_owned() });
}

#[test]
fn no_bit_may_change() {
    let sealer = sealer(&[("default", 1)]);
    let sealed = sealer.seal("c", &value("secret")).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix("v1.default.").unwrap()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = format!("v1.default.{}", URL_SAFE_NO_PAD.encode(changed));
        assert!(sealer.open("c", &changed).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let cut = format!("v1.default.{}", URL_SAFE_NO_PAD.encode(&bytes[..length]));
        assert!(sealer.open("c", &cut).is_err(), "{length} bytes");
    }
}

#[test]
fn keys_rotate_and_labels_may_change() {
    let old = sealer(&[("default", 1)]);
    let sealed = old.seal("c", &value("s")).unwrap();
    let both = sealer(&[("2027", 2), ("default", 1)]);
    assert_eq!(both.open("c", &sealed).unwrap().expose_secret(), "s");
    assert!(both.seal("c", &value("s")).unwrap().starts_with("v1.2027."));
    let relabelled = sealer(&[("default", 2), ("2026", 1)]);
    assert_eq!(relabelled.open("c", &sealed).unwrap().expose_secret(), "s");
    let gone = sealer(&[("2027", 2)]).open("c", &sealed).unwrap_err();
    assert!(gone.to_string().contains("`default`"), "{gone}");
}

#[test]
fn keys_are_checked_and_every_mistake_is_told() {
    let wrong = [
        ("default", "c2hvcnQ=".to_owned()),
        ("NEXT", "not base64".to_owned()),
        ("a.b", STANDARD.encode([1; 32])),
    ];
    let errors = Sealer::new(&secrets(wrong.into_iter())).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3);
    for (text, variable) in
        told.iter().zip(["ENCRYPTION_KEY must", "ENCRYPTION_KEY__NEXT", "ENCRYPTION_KEY__a.b"])
    {
        assert!(text.starts_with(variable), "{text}");
        assert!(!text.contains("not base64"));
    }
    assert_eq!(Sealer::new(&Secrets::default()).unwrap_err(), [SealError::NoKey]);
    assert_eq!(format!("{:?}", sealer(&[("default", 1)])), "[\"default\"]");
}

proptest! {
    #[test]
    fn opening_never_panics(text in ".{0,200}", tail in "[A-Za-z0-9_-]{0,100}") {
        let sealer = sealer(&[("default", 1)]);
        for sealed in [text.clone(), format!("v1.{text}"), format!("v1.default.{tail}")] {
            prop_assert!(sealer.open("c", &sealed).is_err());
        }
    }

    #[test]
    fn everything_comes_back(text in any::<String>(), context in any::<String>()) {
        let sealer = sealer(&[("default", 1)]);
        let sealed = sealer.seal(&context, &value(&text)).unwrap();
        let opened = sealer.open(&context, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), text.as_str());
    }
}
