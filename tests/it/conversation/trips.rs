//! What a stored turn asks of the database: few round trips before its first word, and two commits that wait for the disk.

use std::time::Duration;

use serde_json::{Value, json};

use super::sse::{Sse, said};
use crate::support::providers::{FakeProvider, Script, Wire};
use crate::support::server::Server;
use crate::support::{SOON, Tap, TestDatabase, TestStorage, Trip, eventually};

const WORDS: usize = 12;

/// A database address by way of a tap.
async fn tapped(url: &str) -> (Tap, String) {
    let mut url: url::Url = url.parse().expect("an address");
    let tap = Tap::before(url.port().expect("a port")).await;
    url.set_port(Some(tap.port())).expect("an address with a port");
    (tap, url.to_string())
}

fn bytes_of(response: &Value) -> [u8; 16] {
    let id = response["id"].as_str().expect("an id").strip_prefix("resp_").expect("resp_");
    uuid::Uuid::parse_str(id).expect("a UUID").into_bytes()
}

#[tokio::test]
async fn a_stored_turn_takes_three_round_trips_to_its_first_word_and_two_commits() {
    let provider = FakeProvider::start(Wire::Chat);
    provider.always(Script::words(WORDS).pace(Duration::from_millis(60)));
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let (tap, url) = tapped(&database.url).await;
    let config = format!(
        "{}[models.it]\ndeployments = [\"d\"]\n",
        provider.deployment("d", "price = { input = \"1\", output = \"2\" }")
    );
    // So that nobody but the turn speaks of it.
    let server = Server::on(&url, &database.direct_url, &storage).set("TURN_LEASE", "10m").config(config);
    let server = server.start().await;
    let (status, conversation) = server.post("/v1/conversations", json!({})).await;
    assert_eq!(status, 200, "{conversation}");
    // The first turn finds nothing ready: no connection, no partition of the day.
    let (status, first) = server.post("/v1/responses", json!({ "model": "it", "input": "hi" })).await;
    assert_eq!(status, 200, "{first}");

    for (place, most) in [
        (json!({}), 2),
        (json!({ "previous_response_id": first["id"] }), 3),
        (json!({ "conversation": conversation["id"] }), 3),
    ] {
        let mut ask = json!({ "model": "it", "input": "and?" });
        ask.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        let before = tap.trips().len();
        let mut stream = Sse::post(&server, ask).await;
        let mut events = vec![stream.until("response.output_text.delta").await];
        assert!(tap.trips()[before..].iter().any(Trip::appends), "a word is logged before it is shown");
        let (rest, _) = stream.rest().await;
        events.extend(rest);
        let response = events.last().expect("an end")["response"].clone();
        assert_eq!(
            (&response["status"], said(&events).split_whitespace().count()),
            (&json!("completed"), WORDS)
        );
        let rows = format!(
            "SELECT count(*) FROM usage WHERE state = 'settled' AND response_id = '{}'",
            uuid::Uuid::from_bytes(bytes_of(&response))
        );
        eventually("it to be paid", SOON, async || database.count(&rows).await == 1).await;

        // Everything that speaks of the turn, or of whoever asked for it.
        let of_turn = |trip: &Trip| trip.mentions(&bytes_of(&response)) || trip.mentions(b"tester");
        let trips: Vec<Trip> = tap.trips()[before..].iter().filter(|trip| of_turn(trip)).cloned().collect();
        let until = trips.iter().position(Trip::appends).expect("an append") + 1;
        assert!(until <= most, "{until} round trips before the first word: {:#?}", &trips[..until]);
        let commits: Vec<&str> =
            trips.iter().filter(|trip| trip.commits()).map(|trip| trip.sql.as_str()).collect();
        assert_eq!(commits.len(), 2, "{commits:#?}");
        // One append for each piece, none of which waits for the disk.
        let appends: Vec<&Trip> = trips.iter().filter(|trip| trip.appends()).collect();
        assert!(appends.len() > 2 && !appends.iter().any(|trip| trip.commits()), "{}", appends.len());
    }
}
