use super::*;
use crate::azure::{Credential, TokenSource};

fn entra(queue: &str, blob: &str) -> StorageSettings {
    StorageSettings {
        queue_endpoint: queue.parse().unwrap(),
        blob_endpoint: blob.parse().unwrap(),
        auth: StorageAuth::Entra(TokenSource::new(Credential::Developer)),
        call_timeout: StorageSettings::DEFAULT_CALL_TIMEOUT,
    }
}

#[test]
fn tokens_never_travel_in_the_clear() {
    let error = Storage::new(entra("http://q.example", "http://b.example")).unwrap_err();
    assert!(error.to_string().contains("https"), "{error}");
    let error = Storage::new(entra("https://q.example", "http://b.example")).unwrap_err();
    assert!(error.to_string().contains("both be https"), "{error}");
    assert!(Storage::new(entra("https://q.example", "https://b.example")).is_ok());
}

#[test]
fn names_go_below_the_endpoint() {
    for (endpoint, name, expected) in [
        ("https://q.example", "events", "https://q.example/events"),
        ("http://127.0.0.1:1/devstoreaccount1", "events", "http://127.0.0.1:1/devstoreaccount1/events"),
        ("https://q.example", "a/b", "https://q.example/a%2Fb"),
    ] {
        assert_eq!(below(&endpoint.parse().unwrap(), name).as_str(), expected);
    }
}
