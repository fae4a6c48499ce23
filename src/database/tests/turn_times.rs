//! How long the statements of a turn take here. Not judged, printed:
//! `cargo nextest run --lib --run-ignored only --no-capture -E 'test(turn_times)'`.

use std::time::{Duration, Instant};

use super::support::TestDatabase;
use super::talk::{OWNER, conversation, finish_as, new_turn, said, window};
use crate::database::threads::{Anchor, NewItem, load_window};
use crate::database::turn_log::{self, Append};
use crate::database::turns::{self, Begun, Held};
use crate::openresponses::ResponseStatus;

const ROUNDS: usize = 400;

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1_000.0;
    println!("{what:24} p50 {:.2} ms, p95 {:.2} ms", at(50), at(95));
}

#[tokio::test]
#[ignore = "measures, judges nothing; run it alone"]
async fn the_statements_of_a_turn() {
    let (_test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let id = conversation(&client, &[]).await;
    let text = "x".repeat(400);
    let chunk = format!("[1,[\"t\",\"{}\"]]", "y".repeat(60));
    let mut times: [Vec<Duration>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let past =
            load_window(&client, OWNER, Anchor::Conversation(id), 100, 1_000_000).await.expect("a window");
        times[0].push(started.elapsed());
        let (question, reply) = (said(&text), said(&text));
        let input = [question.item()];
        let mut turn = new_turn(past.expect("a window").place, &input);
        turn.conversation = Some(id);
        let started = Instant::now();
        let begun = turns::begin(&client, &turn).await.expect("an answer");
        times[1].push(started.elapsed());
        assert!(matches!(begun, Begun::Begun { .. }), "{begun:?}");
        let held = Held { response: turn.id, epoch: 1 };
        for part in 0..4 {
            let started = Instant::now();
            turn_log::append(&client, &[Append { held, part, data: &chunk }]).await.expect("appended");
            times[2].push(started.elapsed());
        }
        let output = [reply.item()];
        let started = Instant::now();
        turns::finish(&client, &finish_as(held, ResponseStatus::Completed, &output)).await.expect("finished");
        times[4].push(started.elapsed());
    }
    let mut held = Vec::new();
    let none: [NewItem<'_>; 0] = [];
    for _ in 0..32 {
        let place = window(&client, Anchor::New).await.place;
        let turn = new_turn(place, &none);
        turns::begin(&client, &turn).await.expect("begun");
        held.push(Held { response: turn.id, epoch: 1 });
    }
    for part in 0..i32::try_from(ROUNDS).expect("few") {
        let batch: Vec<Append<'_>> =
            held.iter().map(|held| Append { held: *held, part, data: &chunk }).collect();
        let started = Instant::now();
        turn_log::append(&client, &batch).await.expect("appended");
        times[3].push(started.elapsed());
    }
    let names =
        ["load_window (100 items)", "begin (conversation)", "append, 1 turn", "append, 32 turns", "finish"];
    for (name, times) in names.iter().zip(&mut times) {
        report(name, times);
    }
}
