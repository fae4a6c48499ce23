use std::collections::BTreeSet;

use super::*;
use crate::azure::testing::{Reply, StandIn, account_at, azurite, unique};

const NOW: Duration = Duration::ZERO;
const A_WHILE: Duration = Duration::from_secs(60);

async fn one(queue: &Queue, visibility: Duration) -> Received {
    let mut received = queue.receive(1, visibility).await.unwrap();
    assert_eq!(received.len(), 1, "expected a message");
    received.remove(0)
}

/// Receives until a message is there: what was hidden for a second becomes visible.
async fn awaited(queue: &Queue, visibility: Duration) -> Received {
    let receiving = async {
        loop {
            if let Some(received) = queue.receive(1, visibility).await.unwrap().pop() {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), receiving).await.expect("no message became visible")
}

#[tokio::test]
async fn text_arrives_as_it_was_put() {
    let queue = azurite().queue(&unique("text"));
    let all_characters: String = (0..=0x2ff_u32).filter_map(char::from_u32).collect();
    let texts =
        ["v1 {\"a\":\"<&>\\\"' ]]>\"}", "", " \r\n\t ", "æøå 漢字 🦀", "+/=%2F?&", all_characters.as_str()];
    for text in texts {
        queue.put(text, NOW).await.unwrap();
        let received = one(&queue, A_WHILE).await;
        assert_eq!(received.raw, BASE64.encode(text));
        assert_eq!(received.text.as_deref(), Ok(text));
        assert_eq!(queue.delete(&received.receipt).await.unwrap(), Deletion::Deleted);
    }
}

#[tokio::test]
async fn a_message_never_expires_and_carries_its_times() {
    let queue = azurite().queue(&unique("times"));
    let before = Timestamp::now();
    queue.put("x", NOW).await.unwrap();
    let received = one(&queue, A_WHILE).await;
    let after = Timestamp::now();
    // The service tells times in whole seconds.
    let second = Duration::from_secs(1);
    assert!(received.inserted_at >= before - second && received.inserted_at <= after + second);
    assert!(received.next_visible_at >= before + A_WHILE - second);
    assert!(received.next_visible_at <= after + A_WHILE + second);
    assert_eq!(received.expires_at.strftime("%Y").to_string(), "9999");
    assert_eq!(received.dequeue_count, 1);
}

#[tokio::test]
async fn the_limit_is_65536_bytes_of_base64() {
    let queue = azurite().queue(&unique("limit"));
    assert_eq!(Queue::encoded_len(49_152), MAX_ENCODED_BYTES);
    let largest = "x".repeat(49_152);
    queue.put(&largest, NOW).await.unwrap();
    let received = one(&queue, A_WHILE).await;
    assert_eq!(received.raw.len(), MAX_ENCODED_BYTES);
    assert_eq!(received.text, Ok(largest));

    let server = StandIn::start(|_, _| Reply::Stall).await;
    let unsent = account_at(&server.url, Duration::from_secs(5)).queue("events");
    let error = unsent.put(&"x".repeat(49_153), NOW).await.unwrap_err();
    assert!(
        matches!(error, StorageError::TooLarge { bytes: 65_540, limit: MAX_ENCODED_BYTES, .. }),
        "{error:?}"
    );
    assert!(!error.is_outage());
    let error = unsent.put_raw(&"x".repeat(65_537), NOW).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { bytes: 65_537, .. }), "{error:?}");
    assert_eq!(server.seen().len(), 0, "an oversized message was sent");
}

#[tokio::test]
async fn a_missing_queue_reads_as_empty_and_is_created_by_the_first_put() {
    let queue = azurite().queue(&unique("lazy"));
    let nobodys = Receipt { id: uuid::Uuid::now_v7().to_string(), pop_receipt: "x".to_owned() };
    assert!(queue.receive(32, A_WHILE).await.unwrap().is_empty());
    assert!(queue.peek(32).await.unwrap().is_empty());
    assert_eq!(queue.properties().await.unwrap().approximate_count, 0);
    assert_eq!(queue.delete(&nobodys).await.unwrap(), Deletion::Gone);
    assert_eq!(queue.extend(&nobodys, A_WHILE).await.unwrap(), None);

    let puts = (0..8).map(|number| {
        let queue = queue.clone();
        async move { queue.put(&number.to_string(), NOW).await }
    });
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(queue.properties().await.unwrap().approximate_count, 8);
    let received = queue.receive(32, A_WHILE).await.unwrap();
    let texts: BTreeSet<_> = received.into_iter().map(|message| message.text.unwrap()).collect();
    assert_eq!(texts.len(), 8);
}

#[tokio::test]
async fn creating_twice_is_creating_once() {
    let queue = azurite().queue(&unique("create"));
    queue.create_if_missing().await.unwrap();
    queue.put("x", NOW).await.unwrap();
    queue.create_if_missing().await.unwrap();
    assert_eq!(queue.properties().await.unwrap().approximate_count, 1);
}

#[tokio::test]
async fn a_delayed_message_is_counted_but_hidden() {
    let queue = azurite().queue(&unique("delay"));
    queue.put("later", A_WHILE).await.unwrap();
    // Beyond what the service takes: cut to seven days.
    queue.put("much later", Duration::from_secs(90 * 24 * 3600)).await.unwrap();
    assert!(queue.receive(32, A_WHILE).await.unwrap().is_empty());
    assert_eq!(queue.properties().await.unwrap().approximate_count, 2);
    // Less than a second is one second, not none.
    queue.put("soon", Duration::from_millis(1)).await.unwrap();
    assert_eq!(awaited(&queue, A_WHILE).await.text.as_deref(), Ok("soon"));
}

#[tokio::test]
async fn ownership_passes_with_the_receipt() {
    let queue = azurite().queue(&unique("receipt"));
    queue.put("x", NOW).await.unwrap();
    let first = one(&queue, A_WHILE).await;
    assert!(queue.receive(1, A_WHILE).await.unwrap().is_empty(), "a received message is hidden");

    // Visible again, as after its time, and received by another.
    let returned = queue.extend(&first.receipt, NOW).await.unwrap().expect("still ours");
    let second = one(&queue, A_WHILE).await;
    assert_eq!((second.receipt.id.as_str(), second.dequeue_count), (first.receipt.id.as_str(), 2));
    for superseded in [&first.receipt, &returned] {
        assert_eq!(queue.extend(superseded, A_WHILE).await.unwrap(), None);
        assert_eq!(queue.delete(superseded).await.unwrap(), Deletion::Gone);
    }

    let extended = queue.extend(&second.receipt, A_WHILE).await.unwrap().expect("still ours");
    assert_eq!(extended.id, second.receipt.id);
    assert_ne!(extended.pop_receipt, second.receipt.pop_receipt);
    assert_eq!(
        queue.delete(&second.receipt).await.unwrap(),
        Deletion::Gone,
        "an extension voids the old receipt"
    );
    assert_eq!(queue.delete(&extended).await.unwrap(), Deletion::Deleted);
    assert_eq!(queue.delete(&extended).await.unwrap(), Deletion::Gone);
    assert_eq!(queue.properties().await.unwrap().approximate_count, 0);
}

#[tokio::test]
async fn extending_to_zero_gives_the_message_back_with_its_text() {
    let queue = azurite().queue(&unique("back"));
    queue.put("v1 {}", NOW).await.unwrap();
    let first = one(&queue, A_WHILE).await;
    queue.extend(&first.receipt, Duration::ZERO).await.unwrap().expect("still ours");
    let second = one(&queue, A_WHILE).await;
    assert_eq!((second.dequeue_count, second.text.as_deref()), (2, Ok("v1 {}")));
}

#[tokio::test]
async fn peeking_changes_nothing() {
    let queue = azurite().queue(&unique("peek"));
    queue.put("x", NOW).await.unwrap();
    for _ in 0..2 {
        let peeked = queue.peek(5).await.unwrap();
        let [message] = peeked.as_slice() else { panic!("expected one message, saw {peeked:?}") };
        assert_eq!((message.dequeue_count, message.text.as_deref()), (0, Ok("x")));
    }
    assert_eq!(one(&queue, A_WHILE).await.dequeue_count, 1);
}

#[tokio::test]
async fn foreign_messages_keep_their_raw_form() {
    let queue = azurite().queue(&unique("foreign"));
    for raw in ["{\"plain\": \"<json>\"}", "/w=="] {
        queue.put_raw(raw, NOW).await.unwrap();
        let received = one(&queue, A_WHILE).await;
        assert_eq!((received.raw.as_str(), received.text), (raw, Err(NotText)));
    }
    // Moved as poison is: the stored form of one queue becomes that of another.
    queue.put("v1 {}", NOW).await.unwrap();
    let received = one(&queue, A_WHILE).await;
    let poison = azurite().queue(&format!("{}-poison", queue.name()));
    poison.put_raw(&received.raw, NOW).await.unwrap();
    assert_eq!(one(&poison, A_WHILE).await.text.as_deref(), Ok("v1 {}"));
}

#[tokio::test]
async fn concurrent_receivers_never_share_a_message() {
    let queue = azurite().queue(&unique("share"));
    let puts = (0..64).map(|number| {
        let queue = queue.clone();
        async move { queue.put(&number.to_string(), NOW).await.unwrap() }
    });
    futures_util::future::join_all(puts).await;
    let receives = (0..8).map(|_| {
        let queue = queue.clone();
        async move { queue.receive(16, A_WHILE).await.unwrap() }
    });
    let received: Vec<_> = futures_util::future::join_all(receives).await.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = received.iter().map(|message| message.receipt.id.clone()).collect();
    assert_eq!((received.len(), distinct.len()), (64, 64));
}

#[tokio::test]
async fn a_wrong_key_is_denied() {
    let mut settings = crate::azure::testing::settings();
    let crate::azure::StorageAuth::Sas { account, .. } = &settings.auth else { panic!("expected a key") };
    let (account, key) = (account.clone(), secrecy::SecretString::from("d3Jvbmc="));
    settings.auth = crate::azure::StorageAuth::Sas { account, key };
    let error =
        crate::azure::Storage::new(settings).unwrap().queue("events").put("x", NOW).await.unwrap_err();
    assert_eq!(error.code(), "storage_denied", "{error}");
}

#[tokio::test]
async fn a_name_the_service_does_not_take_is_refused() {
    let error = azurite().queue("Not_A_Queue/../name").put("x", NOW).await.unwrap_err();
    assert!(!error.is_outage(), "{error:?}");
}
