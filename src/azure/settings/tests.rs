use super::*;
use crate::azure::{Credential, TokenSource};

const KEY: &str = "c2VjcmV0LWFjY291bnQta2V5";

fn read(text: &str) -> Result<StorageSettings, SettingsError> {
    StorageSettings::from_connection_string(text)
}

fn endpoints(settings: &StorageSettings) -> (&str, &str) {
    (settings.queue_endpoint.as_str(), settings.blob_endpoint.as_str())
}

fn tokens() -> TokenSource {
    TokenSource::new(Credential::Developer)
}

#[test]
fn development_storage_is_azurite_and_its_proxy_is_ignored() {
    for text in [
        "UseDevelopmentStorage=true",
        " usedevelopmentstorage = TRUE ;",
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://myProxyUri",
    ] {
        let settings = read(text).unwrap();
        let expected = ("http://127.0.0.1:10001/devstoreaccount1", "http://127.0.0.1:10000/devstoreaccount1");
        assert_eq!(endpoints(&settings), expected, "{text}");
        let StorageAuth::Sas { account, key } = &settings.auth else { panic!("expected a key") };
        assert_eq!((account.as_str(), key.expose_secret()), (DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY));
    }
}

#[test]
fn endpoints_are_taken_as_given_without_their_trailing_slash() {
    let settings = read(&format!(
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};\
         BlobEndpoint=http://127.0.0.1:21000/devstoreaccount1/;QueueEndpoint=http://127.0.0.1:21001/devstoreaccount1;\
         TableEndpoint=http://127.0.0.1:21002/devstoreaccount1;"
    ))
    .unwrap();
    let expected = ("http://127.0.0.1:21001/devstoreaccount1", "http://127.0.0.1:21000/devstoreaccount1");
    assert_eq!(endpoints(&settings), expected);
}

#[test]
fn endpoints_are_made_of_account_and_suffix() {
    let settings = read(&format!("AccountName=shop;AccountKey={KEY}")).unwrap();
    let expected = ("https://shop.queue.core.windows.net/", "https://shop.blob.core.windows.net/");
    assert_eq!(endpoints(&settings), expected);
    let settings =
        read(&format!("AccountName=shop;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn")).unwrap();
    assert_eq!(endpoints(&settings).0, "https://shop.queue.core.chinacloudapi.cn/");
}

#[test]
fn mistakes_name_the_part_and_never_repeat_the_key() {
    let cases = [
        (String::new(), "empty"),
        (" ; ".to_owned(), "empty"),
        (format!("AccountName=shop;{KEY}"), "part 2"),
        (format!("AccountKey={KEY}"), "AccountName is missing"),
        ("AccountName=shop".to_owned(), "AccountKey is missing"),
        (format!("AccountName=shop;AccountKey=!{KEY}"), "AccountKey is not base64"),
        ("AccountName=shop;AccountKey=".to_owned(), "AccountKey is not base64"),
        (format!("AccountName=shop;AccountKey={KEY};AccountKey={KEY}"), "AccountKey occurs twice"),
        (format!("AccountName=Sh.op;AccountKey={KEY}"), "AccountName is not"),
        (
            format!("AccountName=shop;AccountKey={KEY};DefaultEndpointsProtocol=ftp"),
            "DefaultEndpointsProtocol",
        ),
        (format!("AccountName=shop;AccountKey={KEY};BlobEndpoint=localhost"), "BlobEndpoint is not a URL"),
        (
            format!("AccountName=shop;AccountKey={KEY};QueueEndpoint=file:///x"),
            "QueueEndpoint is not an http",
        ),
        (
            format!("AccountName=shop;AccountKey={KEY};QueueEndpoint=https://q?sig={KEY}"),
            "QueueEndpoint has a query",
        ),
        (
            format!("AccountName=shop;AccountKey={KEY};QueueEndpoint=https://u:{KEY}@q"),
            "QueueEndpoint has a user",
        ),
        (format!("AccountName=shop;AccountKey={KEY};EndpointSuffix=a b"), "EndpointSuffix"),
        (
            format!("BlobEndpoint=https://shop;SharedAccessSignature=sv=1&sig={KEY}"),
            "shared access signature",
        ),
        ("UseDevelopmentStorage=yes".to_owned(), "UseDevelopmentStorage"),
    ];
    for (text, expected) in cases {
        let error = read(&text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expected), "{text:?} gave {shown:?}, expected {expected:?}");
        assert!(!shown.contains(KEY), "{shown:?} repeats the key");
    }
}

#[test]
fn debug_output_has_no_key() {
    let settings = read(&format!("AccountName=shop;AccountKey={KEY}")).unwrap();
    let shown = format!("{settings:?}");
    assert!(shown.contains("shop") && !shown.contains(KEY), "{shown}");
    let storage = crate::azure::Storage::new(settings).unwrap();
    let shown = format!("{storage:?} {:?} {:?}", storage.queue("q"), storage.container("c"));
    assert!(!shown.contains(KEY) && !shown.contains("secret-account-key"), "{shown}");
}

#[test]
fn service_uris_must_be_https() {
    let settings =
        StorageSettings::from_service_uris("https://q.example/", "https://b.example", tokens()).unwrap();
    assert_eq!(endpoints(&settings), ("https://q.example/", "https://b.example/"));
    let error =
        StorageSettings::from_service_uris("http://q.example", "https://b.example", tokens()).unwrap_err();
    assert!(error.to_string().contains("queueServiceUri is not https"), "{error}");
    let error = StorageSettings::from_service_uris("https://q.example", "b.example", tokens()).unwrap_err();
    assert!(error.to_string().contains("blobServiceUri is not a URL"), "{error}");
    let settings = StorageSettings::from_account_name("shop", tokens()).unwrap();
    assert_eq!(endpoints(&settings).1, "https://shop.blob.core.windows.net/");
}
