//! The states of a turn: what the enum allows is what the statements do, neither more nor less.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::support::TestDatabase;
use super::talk::{LEASE, OWNER, finish_as, new_turn, said};
use crate::database::threads::Place;
use crate::database::turn_log::{self, Append};
use crate::database::turns::{self, Held};
use crate::database::{Client, responses};
use crate::openresponses::ResponseStatus;
use crate::switches::TurnsHeld;

/// What can be done to a turn.
#[derive(Clone, Copy, Debug)]
enum Step {
    Due,
    PutOff,
    Finish(ResponseStatus),
    Lapse,
    Renew,
    Append,
    RequestCancel,
    MarkViewed,
    MarkWatched,
    Delete,
}

async fn take(step: Step, client: &Client, held: Held) {
    let id = held.response;
    match step {
        Step::Due => {
            turns::due(client, 100, None, &TurnsHeld::default(), Uuid::now_v7(), LEASE)
                .await
                .expect("an answer");
        }
        Step::PutOff => {
            turns::put_off(client, held, LEASE).await.expect("an answer");
        }
        Step::Finish(state) => {
            turns::finish(client, &finish_as(held, state, &[])).await.expect("an answer");
        }
        Step::Lapse => {
            turns::lapsed(client, 100, true, Uuid::now_v7(), LEASE).await.expect("an answer");
        }
        Step::Renew => {
            turns::renew(client, &[held], LEASE).await.expect("an answer");
        }
        Step::Append => {
            let part = Append { held, part: 0, data: "[1]" };
            turn_log::append(client, &[part]).await.expect("an answer");
        }
        Step::RequestCancel => {
            responses::request_cancel(client, OWNER, id).await.expect("an answer");
        }
        Step::MarkViewed => responses::mark_viewed(client, OWNER, id).await.expect("an answer"),
        Step::MarkWatched => responses::mark_watched(client, &[(OWNER, id)]).await.expect("an answer"),
        Step::Delete => {
            responses::delete(client, OWNER, id).await.expect("an answer");
        }
    }
}

#[tokio::test]
async fn the_statements_do_what_the_enum_allows() {
    let (test, database) = TestDatabase::migrated().await;
    let client = database.client().await.expect("a client");
    let session = test.session().await;
    let question = said("q");
    let input = [question.item()];
    let ends = ResponseStatus::ALL.into_iter().filter(|state| state.is_final()).map(Step::Finish);
    let others = [
        Step::Due,
        Step::PutOff,
        Step::Lapse,
        Step::Renew,
        Step::Append,
        Step::RequestCancel,
        Step::MarkViewed,
        Step::MarkWatched,
        Step::Delete,
    ];
    let steps: Vec<Step> = ends.chain(others).collect();
    let mut done = BTreeSet::new();
    for from in ResponseStatus::ALL {
        for step in &steps {
            let mut turn = new_turn(Place::New, &input);
            turn.patience = Some(LEASE);
            turns::begin(&client, &turn).await.expect("begun");
            let sql = "UPDATE responses SET state = $2, lease_until = now() - interval '1 second',
                              due_at = CASE WHEN $2 = 'queued' THEN now() END,
                              completed_at = CASE WHEN $3 THEN now() END WHERE id = $1";
            session.execute(sql, &[&turn.id.0, &from.as_str(), &from.is_final()]).await.expect("a state");
            take(*step, &client, Held { response: turn.id, epoch: 1 }).await;
            let sql = "SELECT state, epoch FROM responses WHERE id = $1";
            let row = session.query_one(sql, &[&turn.id.0]).await.expect("a row");
            let (state, epoch): (String, i64) = (row.get(0), row.get(1));
            if state != from.as_str() || epoch != 1 {
                done.insert((from.as_str().to_owned(), state));
            }
            session.execute("DELETE FROM responses WHERE id = $1", &[&turn.id.0]).await.expect("gone");
        }
    }
    let allowed: BTreeSet<_> = ResponseStatus::ALL
        .into_iter()
        .flat_map(|from| ResponseStatus::ALL.map(|next| (from, next)))
        .filter(|(from, next)| from.may_become(*next))
        .map(|(from, next)| (from.as_str().to_owned(), next.as_str().to_owned()))
        .collect();
    assert_eq!(done, allowed);
    // And the words are those that the table takes.
    let check = "SELECT pg_get_constraintdef(oid) FROM pg_constraint
                 WHERE conrelid = 'responses'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%state%'";
    let check: String = session.query_one(check, &[]).await.expect("one constraint").get(0);
    let words: BTreeSet<&str> = check.split('\'').skip(1).step_by(2).collect();
    assert_eq!(words, ResponseStatus::ALL.map(ResponseStatus::as_str).into_iter().collect());
}
