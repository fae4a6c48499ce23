//! All faults at once, for conversations. `COLLOQUY_FAULT_TURNS` says with how many turns: few in the suite, 1,000 by
//! hand (`COLLOQUY_FAULT_TURNS=1000 scripts/test --no-capture -E 'test(faults::conversations)'`). The account is printed,
//! and written to `target/fault-turns-report.txt`.

mod account;
mod upstream;
mod viewer;

use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use tokio::sync::watch;

use crate::support::providers::Script;
use crate::support::server::{Server, ServerBuilder};
use crate::support::{
    CONSUMER_SECRET, PrivatePostgres, SOON, TestDatabase, TestStorage, eventually, repository,
};
use account::Account;
use upstream::Upstreams;
use viewer::Viewers;

/// Longer than a lease (two seconds, see [`ServerBuilder::hurried`]) and everything that follows its end.
const FREEZE: Duration = Duration::from_secs(4);
/// Turns at the same time: more of them where there are more in all.
fn at_once(turns: usize) -> usize {
    (turns / 10).clamp(12, 60)
}

/// What goes wrong while turns run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ServerKilled,
    ServerFrozen,
    ServerStopped,
    DatabaseRestarted,
    DatabaseAwayAndServerKilled,
    PoolerKilled,
}

const FAULTS: [Fault; 6] = [
    Fault::ServerKilled,
    Fault::ServerFrozen,
    Fault::ServerStopped,
    Fault::DatabaseRestarted,
    Fault::DatabaseAwayAndServerKilled,
    Fault::PoolerKilled,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_faults_at_once_every_stored_turn_has_ended_as_its_viewers_saw_it() {
    let turns: usize =
        std::env::var("COLLOQUY_FAULT_TURNS").map_or(40, |text| text.parse().expect("a number"));
    let start = Instant::now();
    let mut postgres = PrivatePostgres::start().await;
    let database = TestDatabase::within(&postgres).await;
    let storage = TestStorage::create();
    let upstreams = Upstreams::start(turns);
    let builder = || hurried(&database, &storage, &upstreams);
    let mut servers = vec![builder().start().await, builder().start().await];
    let addresses: Vec<String> = servers.iter().map(|server| server.url("")).collect();

    let (over, mut ended) = watch::channel(false);
    let viewers = Viewers::new(addresses.clone(), turns);
    let watching = async {
        let seen = viewers.all(at_once(turns)).await;
        over.send_replace(true);
        seen
    };
    let wrong = async {
        let mut told = Vec::new();
        // Every fault at least once, then on for as long as there are turns.
        'rounds: loop {
            let mut round = FAULTS;
            round.shuffle(&mut rand::rng());
            for fault in round {
                if *ended.borrow_and_update() && told.len() >= FAULTS.len() {
                    break 'rounds;
                }
                moment().await;
                happen(fault, &mut servers, &mut postgres).await;
                told.push(fault);
            }
        }
        told
    };
    let (seen, told) = tokio::join!(watching, wrong);

    let account = Account { database: &database, servers: &addresses, seen: &seen, upstreams: &upstreams };
    let table = account.balances(Duration::from_secs(60)).await;
    let faults: Vec<String> = FAULTS
        .iter()
        .map(|fault| format!("{fault:?} {}", told.iter().filter(|told| *told == fault).count()))
        .collect();
    let report = format!("{turns} turns, {:.1?}; faults: {}\n{table}", start.elapsed(), faults.join(", "));
    println!("{report}");
    std::fs::write(repository().join("target/fault-turns-report.txt"), report).expect("a report");
}

/// With the usual patience for the log: waking up is not waiting.
#[tokio::test]
async fn what_a_server_shows_that_was_frozen_is_what_is_stored() {
    let (database, storage) = (TestDatabase::create().await, TestStorage::create());
    let upstreams = Upstreams::always(&Script::words(400).pace(Duration::from_millis(10)));
    let builder = || hurried(&database, &storage, &upstreams).set("LOG_PATIENCE", "1s");
    let (mut frozen, other) = (builder().start().await, builder().start().await);
    let address = frozen.url("");
    let watching = futures_util::future::join_all((0..20).map(|_| Viewers::once(&address, "responses")));
    let freezing = async {
        let logged = "SELECT count(DISTINCT response_id) FROM response_events";
        eventually("all to be under way", SOON, async || database.count(logged).await == 20).await;
        frozen.process().signal("STOP");
        let ended = "SELECT count(*) FROM responses WHERE state = 'incomplete'";
        eventually("all to be taken over", SOON, async || database.count(ended).await == 20).await;
        frozen.process().signal("CONT");
    };
    let (seen, ()) = tokio::join!(watching, freezing);
    for seen in seen {
        let id = seen.id.as_deref().expect("an id");
        let replay = Viewers::replay(&other.url(""), id).await;
        assert!(!seen.whole && replay.whole, "one is cut, the other ends");
        assert!(
            replay.events.starts_with(&seen.events),
            "{id}: {:?} was shown, {:?} is the end",
            seen.events.last(),
            replay.events.last()
        );
    }
}

/// Short leases and waits, and a log that is always waited for: what is seen without it cannot be resumed, by design.
fn hurried(database: &TestDatabase, storage: &TestStorage, upstreams: &Upstreams) -> ServerBuilder {
    Server::of(database, storage)
        .hurried()
        .config(upstreams.config())
        .set("CALLBACK_SECRET_CRM", CONSUMER_SECRET)
        .set("LOG_PATIENCE", "60s")
        .set("RETRY_BASE", "300ms")
        .set("OUTAGE_RETRY", "1s")
        .set("DB_CONNECT_TIMEOUT", "3s")
        .set("DB_STATEMENT_TIMEOUT", "5s")
        .set("DB_POOL_WAIT", "3s")
        .set("LLM_OPEN_DEADLINE", "6s")
        .set("LLM_RETRY_BASE", "50ms")
        .set("LLM_BREAKER_PAUSE", "200ms")
        .set("LLM_RETRY_BUDGET", "100")
}

async fn happen(fault: Fault, servers: &mut [Server], postgres: &mut PrivatePostgres) {
    let which = rand::random_range(0..servers.len());
    match fault {
        Fault::ServerKilled => {
            servers[which].kill();
            moment().await;
            servers[which].start_again().await;
        }
        Fault::ServerFrozen => {
            servers[which].process().signal("STOP");
            tokio::time::sleep(FREEZE).await;
            servers[which].process().signal("CONT");
        }
        Fault::ServerStopped => {
            servers[which].stop().await;
            servers[which].start_again().await;
        }
        Fault::DatabaseRestarted => {
            postgres.stop().await;
            moment().await;
            postgres.start_again().await;
        }
        Fault::DatabaseAwayAndServerKilled => {
            postgres.stop().await;
            moment().await;
            servers[which].kill();
            // Longer than a lease: nobody could renew, so nobody has lost anything.
            tokio::time::sleep(FREEZE).await;
            postgres.start_again().await;
            servers[which].start_again().await;
        }
        Fault::PoolerKilled => {
            postgres.kill_pooler();
            moment().await;
            postgres.start_pooler().await;
        }
    }
}

/// So that faults hit whatever is under way.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(200..1_500))).await;
}
