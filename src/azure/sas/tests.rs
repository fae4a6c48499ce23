use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn signer(https_only: bool) -> Signer {
    Signer::new("devstoreaccount1".to_owned(), b"key".to_vec(), https_only)
}

fn part(query: &str, name: &str) -> String {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_else(|| panic!("no {name} in {query}"))
}

#[test]
fn signature_is_the_hmac_of_the_documented_text() {
    let query = signer(false).query(at("2026-11-21T03:00:00.75Z"));
    assert_eq!(part(&query, "se"), "2026-11-21T04:00:00Z");
    assert_eq!(part(&query, "ss"), "bq");
    assert_eq!(part(&query, "srt"), "sco");
    // Computed apart: python3 -c 'hmac.new(b"key", text, "sha256")', text as documented for 2020-12-06 and later.
    assert_eq!(part(&query, "sig"), "I48olBCWMEy6rYfTB2GPsdgtrbBAO8BgQtusJnK89C8=");
}

#[test]
fn https_accounts_get_signatures_for_https_only() {
    assert_eq!(part(&signer(true).query(at("2026-11-21T03:00:00Z")), "spr"), "https");
}

#[test]
fn one_signature_serves_until_a_quarter_hour_before_its_end() {
    let signer = signer(false);
    let first = signer.query(at("2026-11-21T03:00:00Z"));
    assert!(Arc::ptr_eq(&first, &signer.query(at("2026-11-21T03:44:59Z"))), "signed again too early");
    let second = signer.query(at("2026-11-21T03:45:00Z"));
    assert_eq!(part(&second, "se"), "2026-11-21T04:45:00Z");
    assert!(Arc::ptr_eq(&second, &signer.query(at("2026-11-21T03:46:00Z"))), "the new one is not kept");
}

#[test]
fn debug_output_has_neither_key_nor_signature() {
    let signer = signer(false);
    let query = signer.query(Timestamp::now());
    let shown = format!("{signer:?}");
    assert!(!shown.contains(&part(&query, "sig")) && !shown.contains("107, 101, 121"), "{shown}");
}
