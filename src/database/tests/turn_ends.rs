//! A stored turn's end and its account: one statement, so both last or neither does, once.

use jiff::Timestamp;
use uuid::Uuid;

use super::support::{TestDatabase, count, value};
use super::talk::{OWNER, finish_as, new_turn, said};
use crate::database::threads::Place;
use crate::database::turns::{self, Begun, Ended, Finish, Held};
use crate::database::{Client, usage};
use crate::ids::ResponseId;
use crate::llm::TokenUsage;
use crate::llm::spend::{Attempt, Reason, Settlement};
use crate::openresponses::ResponseStatus;

const SETTLED: &str = "usage WHERE state = 'settled'";

/// A turn in progress, whose first attempt is open and cost 7.
async fn begun(client: &Client) -> (Held, Settlement) {
    usage::ensure_partitions(client).await.expect("partitions");
    let id = ResponseId::new();
    let attempt = Attempt {
        id: Uuid::now_v7(),
        response: Some(id.0),
        owner: OWNER.into(),
        key: None,
        model: "demo".into(),
        deployment: "d".into(),
        provider: "demo".into(),
        reserved: 9,
        holder: None,
        day: jiff::civil::date(2026, 11, 21),
        started_at: Timestamp::now(),
    };
    let question = said("why");
    let input = [question.item()];
    let turn = turns::NewTurn { id, attempt: Some(&attempt), ..new_turn(Place::New, &input) };
    let begun = turns::begin(client, &turn).await.expect("an answer");
    assert!(matches!(begun, Begun::Begun { .. }), "{begun:?}");
    let usage = TokenUsage { input: 3, output: 4, ..TokenUsage::default() };
    let (reason, raw) = (Reason::Completed, Some(serde_json::json!({ "total_tokens": 7 })));
    (Held { response: id, epoch: 1 }, Settlement { attempt, reason, usage, cost: 7, estimated: false, raw })
}

#[tokio::test]
async fn a_turn_and_its_account_end_together_and_once() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let budget =
        "INSERT INTO budgets (scope, subject, day, limit_micros) VALUES ('total', '', '2026-11-21', 1000)";
    session.execute(budget, &[]).await.expect("a budget");
    let spent = "SELECT spent_micros FROM budgets";
    for (nth, budgeted) in [(1, false), (2, true)] {
        let (held, settlement) = begun(&client).await;
        let rows = [settlement];
        let end = async |finish: &Finish<'_>| {
            turns::finish_and_settle(&client, finish, &rows, budgeted).await.expect("an answer")
        };
        let finish = finish_as(held, ResponseStatus::Completed, &[]);

        // Of what did not end, nothing is settled.
        let lost = Finish { held: Held { epoch: 2, ..held }, ..finish.clone() };
        assert_eq!(end(&lost).await, Ended::Lost);
        assert_eq!(end(&Finish { parts: 5, ..finish.clone() }).await, Ended::LogShort);
        assert_eq!(count(&session, SETTLED).await, nth - 1);

        assert!(matches!(end(&finish).await, Ended::As { state: ResponseStatus::Completed, .. }));
        assert!(matches!(end(&finish).await, Ended::Already { .. }), "the answer was lost");
        assert_eq!(count(&session, SETTLED).await, nth);
        assert_eq!(count(&session, "usage WHERE state = 'open'").await, 0);
        let row = "usage WHERE reason = 'completed' AND cost_micros = 7 AND input_tokens = 3 AND output_tokens = 4 \
                   AND NOT estimated AND raw->>'total_tokens' = '7'";
        assert_eq!(count(&session, row).await, nth);
        // No slice carries it: where there are budgets it is added to them, once.
        assert_eq!(value::<i64>(&session, spent).await, if budgeted { 7 } else { 0 });
    }
}

#[tokio::test]
async fn what_ended_before_without_its_account_is_settled_when_it_is_ended_again() {
    let (test, database) = TestDatabase::migrated().await;
    let (client, session) = (database.client().await.expect("a client"), test.session().await);
    let (held, settlement) = begun(&client).await;
    let finish = finish_as(held, ResponseStatus::Completed, &[]);
    turns::finish(&client, &finish).await.expect("ended");
    assert_eq!(count(&session, SETTLED).await, 0);
    let again = turns::finish_and_settle(&client, &finish, &[settlement], true).await.expect("an answer");
    assert!(matches!(again, Ended::Already { .. }), "{again:?}");
    assert_eq!(count(&session, SETTLED).await, 1);
}

/// As when the answer to the first is given up while it still runs: the second waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ends_that_come_at_once_one_lasts() {
    let (test, database) = TestDatabase::migrated().await;
    let session = test.session().await;
    for _ in 0..20 {
        let client = database.client().await.expect("a client");
        let (held, settlement) = begun(&client).await;
        let rows = [settlement];
        let finish = finish_as(held, ResponseStatus::Completed, &[]);
        let end = async || {
            let client = database.client().await.expect("a client");
            turns::finish_and_settle(&client, &finish, &rows, true).await.expect("an answer")
        };
        let ends = <[Ended; 3]>::from(tokio::join!(end(), end(), end()));
        let lasted = ends.iter().filter(|ended| matches!(ended, Ended::As { .. })).count();
        assert_eq!(lasted, 1, "{ends:?}");
        assert!(!ends.contains(&Ended::Lost), "{ends:?}");
        let response = format!("usage WHERE response_id = '{}'", held.response.0);
        assert_eq!(count(&session, &format!("{response} AND state = 'settled'")).await, 1);
        assert_eq!(count(&session, &response).await, 1);
    }
}
