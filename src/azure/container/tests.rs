use super::*;
use crate::azure::testing::{azurite, unique};

const LEASE: Duration = Duration::from_secs(15);

fn container() -> Container {
    azurite().container(&unique("c"))
}

fn names(items: &[BlobItem]) -> Vec<&str> {
    items.iter().map(|item| item.name.as_str()).collect()
}

#[tokio::test]
async fn content_comes_back_as_it_was_put() {
    let container = container();
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    // Larger than the SDK's own parts, which must not be cut up.
    let large = vec![7_u8; 9 * 1024 * 1024];
    for content in [Vec::new(), b"x".to_vec(), every_byte, large] {
        let content = Bytes::from(content);
        container.put("blob", content.clone(), "application/json").await.unwrap();
        assert_eq!(container.get("blob").await.unwrap(), Some(content));
    }
}

#[tokio::test]
async fn names_survive() {
    let container = container();
    let mut expected = ["2026/11/21/dlv_1", "a b", "a%2Fb", "æ/漢?#&=+", "plain"];
    for name in expected {
        container.put(name, Bytes::copy_from_slice(name.as_bytes()), "text/plain").await.unwrap();
    }
    for name in expected {
        let content = container.get(name).await.unwrap();
        assert_eq!(content.as_deref(), Some(name.as_bytes()), "{name}");
    }
    let items = container.list("").await.unwrap();
    let mut listed = names(&items);
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn a_missing_container_reads_as_empty_and_is_created_by_the_first_put() {
    let container = container();
    assert_eq!(container.get("x").await.unwrap(), None);
    assert_eq!(container.list("").await.unwrap(), []);
    container.delete("x").await.unwrap();
    let puts = (0..4).map(|number| {
        let container = container.clone();
        async move { container.put(&number.to_string(), Bytes::new(), "text/plain").await }
    });
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    container.create_if_missing().await.unwrap();
    assert_eq!(container.list("").await.unwrap().len(), 4);
    assert_eq!(container.get("x").await.unwrap(), None);
}

#[tokio::test]
async fn put_replaces_and_put_new_does_not() {
    let container = container();
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    assert_eq!(container.put_new("x", first.clone(), "text/plain").await.unwrap(), Creation::Created);
    assert_eq!(container.put_new("x", second.clone(), "text/plain").await.unwrap(), Creation::Exists);
    assert_eq!(container.get("x").await.unwrap(), Some(first));
    container.put("x", second.clone(), "text/plain").await.unwrap();
    assert_eq!(container.get("x").await.unwrap(), Some(second));
}

#[tokio::test]
async fn of_many_who_put_new_one_creates() {
    let container = container();
    let puts = (0..8).map(|_| {
        let container = container.clone();
        async move { container.put_new("x", Bytes::from_static(b"x"), "text/plain").await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Creation::Created).count(), 1, "{outcomes:?}");
}

#[tokio::test]
async fn a_version_is_written_over_once() {
    let container = container();
    assert_eq!(container.get_versioned("x").await.unwrap(), None);
    container.put("x", Bytes::from_static(b"0"), "text/plain").await.unwrap();
    let (content, version) = container.get_versioned("x").await.unwrap().unwrap();
    assert_eq!(content, "0");
    let puts = (0..8).map(|_| {
        let (container, version) = (container.clone(), version.clone());
        async move { container.put_over("x", &version, Bytes::from_static(b"1"), "text/plain").await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(puts).await;
    assert_eq!(outcomes.iter().filter(|written| **written).count(), 1, "{outcomes:?}");
    assert_eq!(container.get("x").await.unwrap().as_deref(), Some(b"1".as_slice()));
    container.delete("x").await.unwrap();
    assert!(!container.put_over("x", &version, Bytes::new(), "text/plain").await.unwrap());
    assert_eq!(container.get("x").await.unwrap(), None, "what is gone is not brought back");
}

#[tokio::test]
async fn deleting_is_idempotent() {
    let container = container();
    container.put("x", Bytes::from_static(b"x"), "text/plain").await.unwrap();
    container.delete("x").await.unwrap();
    assert_eq!(container.get("x").await.unwrap(), None);
    container.delete("x").await.unwrap();
}

#[tokio::test]
async fn listing_goes_by_prefix_in_order_with_times_and_sizes() {
    let container = container();
    let second = Duration::from_secs(1);
    let before = Timestamp::now() - second;
    for name in ["a/2", "a/1", "b/1"] {
        container.put(name, Bytes::from_static(b"123"), "text/plain").await.unwrap();
    }
    let after = Timestamp::now() + second;
    let items = container.list("a/").await.unwrap();
    assert_eq!(names(&items), ["a/1", "a/2"]);
    for item in &items {
        assert_eq!(item.size, 3);
        assert!(item.last_modified >= before && item.last_modified <= after, "{item:?}");
    }
    assert_eq!(container.list("nothing").await.unwrap(), []);
    let page = container.list_page("a/", None).await.unwrap();
    assert_eq!((page.items, page.next), (items, None));
}

#[tokio::test]
async fn pages_are_followed_to_the_end() {
    use crate::azure::testing::{Reply, StandIn, account_at};
    let page = |name: &str, next: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs><Blob><Name>{name}</Name>\
             <Properties><Last-Modified>Sat, 21 Nov 2026 03:00:00 GMT</Last-Modified>\
             <Content-Length>1</Content-Length></Properties></Blob></Blobs><NextMarker>{next}</NextMarker>\
             </EnumerationResults>"
        )
    };
    let server = StandIn::start(move |_, seen| {
        let second = seen.uri.contains("marker=2%21more");
        Reply::status(200, if second { page("b", "") } else { page("a", "2!more") })
    })
    .await;
    let items = account_at(&server.url, Duration::from_secs(5)).container("c").list("").await.unwrap();
    assert_eq!(names(&items), ["a", "b"]);
    assert_eq!(items[0].last_modified, "2026-11-21T03:00:00Z".parse().unwrap());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_lease_is_held_by_one_until_given_back() {
    let container = container();
    let lease = container.acquire_lease("lock", LEASE).await.unwrap().expect("nobody holds it");
    assert_eq!(container.acquire_lease("lock", LEASE).await.unwrap(), None);
    assert!(container.renew_lease("lock", &lease).await.unwrap());
    assert!(container.release_lease("lock", &lease).await.unwrap());

    let next = container.acquire_lease("lock", LEASE).await.unwrap().expect("given back");
    assert_ne!(next, lease);
    assert!(!container.renew_lease("lock", &lease).await.unwrap(), "the old lease is lost");
    assert!(!container.release_lease("lock", &lease).await.unwrap(), "the old lease is lost");
    assert!(container.renew_lease("lock", &next).await.unwrap(), "a stranger's attempts change nothing");
}

#[tokio::test]
async fn a_lease_on_a_missing_blob_is_lost() {
    let container = container();
    let lease = LeaseId(uuid::Uuid::now_v7().to_string());
    assert!(!container.renew_lease("lock", &lease).await.unwrap());
    assert!(!container.release_lease("lock", &lease).await.unwrap());
}

#[tokio::test]
async fn a_leased_blob_keeps_its_content_and_is_not_deleted() {
    let container = container();
    container.put("lock", Bytes::from_static(b"kept"), "text/plain").await.unwrap();
    let lease = container.acquire_lease("lock", LEASE).await.unwrap().expect("nobody holds it");
    assert_eq!(container.get("lock").await.unwrap().as_deref(), Some(b"kept".as_slice()));
    assert_eq!(container.put_new("lock", Bytes::new(), "text/plain").await.unwrap(), Creation::Exists);
    let error = container.delete("lock").await.unwrap_err();
    assert_eq!(error.code(), "storage_refused", "{error}");
    assert!(container.release_lease("lock", &lease).await.unwrap());
    container.delete("lock").await.unwrap();
}

#[tokio::test]
async fn of_many_who_want_a_lease_one_gets_it() {
    let container = container();
    let attempts = (0..8).map(|_| {
        let container = container.clone();
        async move { container.acquire_lease("lock", LEASE).await.unwrap() }
    });
    let leases: Vec<_> = futures_util::future::join_all(attempts).await.into_iter().flatten().collect();
    assert_eq!(leases.len(), 1, "{leases:?}");
}
