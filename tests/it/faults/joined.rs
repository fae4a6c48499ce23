//! Both halves under everything at once: events over ten routes are answered by models, in jobs and on servers, while the
//! provider fails three of ten calls, all processes are killed again and again, and PostgreSQL restarts twice.
//!
//! `COLLOQUY_FAULT_JOINED` says with how many events: few in the suite, 5,000 by hand (`scripts/faults joined`). What is
//! left to chance comes from `COLLOQUY_FAULT_SEED`, which is printed.

mod account;
mod crm;
mod provider;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::conversations::plan::Plan;
use super::soak::Round;
use crate::support::providers::FakeProvider;
use crate::support::server::{Server, ServerBuilder};
use crate::support::{
    Answer, CONSUMER_SECRET, Consumer, FunctionApp, FunctionAppBuilder, PrivatePostgres, TestDatabase,
    TestStorage, report,
};
use account::Account;
use crm::Crm;

/// So many events at most are a matter of seconds, with kills in quick succession and then an end to them.
const FEW: usize = 1_000;
/// Between two rounds of kills.
const BETWEEN_KILLS: Duration = Duration::from_secs(20);
const BETWEEN_KILLS_OF_FEW: Duration = Duration::from_secs(4);
const ROUNDS_OF_FEW: usize = 2;
/// Processes of either kind.
const HOSTS: usize = 2;
const SERVERS: usize = 2;
/// Jobs that one handler has in hand at most: the host fetches a batch while no more than the threshold run.
const BATCH: usize = 8;
const THRESHOLD: usize = 4;
/// Turns that one server begins at most (`TURNS_MAX`).
const TURNS: usize = 16;
/// Answers that one kill can take along. A server may have as many turns beside its own as it took over from the other.
const TAKEN_BY_A_KILL: usize = HOSTS * (BATCH + THRESHOLD) + SERVERS * 2 * TURNS;
/// How long PostgreSQL is down each time: long enough for everybody to notice.
const DOWN: Duration = Duration::from_secs(2);

/// Everything that can die.
struct Parts {
    hosts: Vec<FunctionApp>,
    servers: Vec<Server>,
    postgres: PrivatePostgres,
}

/// What died, and when.
#[derive(Default)]
pub struct Deaths {
    /// SIGKILL to all handlers and all servers: from the first to the last.
    kills: Vec<(Instant, Instant)>,
    /// PostgreSQL, from and until.
    restarts: Vec<(Instant, Instant)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_and_failures_every_event_is_delivered_or_a_dead_letter_and_paid_for_once() {
    let events = std::env::var("COLLOQUY_FAULT_JOINED").map_or(60, |text| text.parse().expect("a number"));
    let round = round(Plan::read(), events).await;
    report("fault-joined", &round.text);
    assert!(round.faults.is_empty(), "{}", round.text);
}

/// The whole campaign with so many events. What does not balance is among the faults.
pub async fn round(plan: Plan, events: usize) -> Round {
    let start = Instant::now();
    let postgres = PrivatePostgres::start().await;
    let (database, storage) = (TestDatabase::within(&postgres).await, TestStorage::create());
    let (provider, consumer) = (provider::start(plan, events), Consumer::start().await);
    consumer.next(provider::consumer_answers(plan, events));
    consumer.always(Answer::Status(200));
    let (host, server) = (
        || host(&database, &storage, &provider, &consumer).start(),
        || server(&database, &storage, &provider, &consumer).start(),
    );
    let hosts = join_all((0..HOSTS).map(|_| host())).await;
    let servers = join_all((0..SERVERS).map(|_| server())).await;

    let crm = Crm::new(&hosts, plan, events);
    let mut parts = Parts { hosts, servers, postgres };
    let (over, ended) = watch::channel(false);
    let account =
        Account { database: &database, storage: &storage, provider: &provider, consumer: &consumer };
    // Leaves room for a machine that has other things to do: what is asked is whether, not how fast.
    let patience = Duration::from_secs(90 + events as u64 / 2);
    let told = || consumer.accepted_count();
    let sending = async {
        let sent = crm.post_all(told).await;
        let took = account.all_ended(&sent, patience).await;
        over.send_replace(true);
        (sent, took)
    };
    let ((sent, took), deaths) = tokio::join!(sending, die(&mut parts, events, told, ended));
    let (balanced, told) = account.balance(&sent, &deaths).await;
    let text = format!(
        "{events} events in {:.1?}, all ended {took:.1?} after the last post; seed {}\n\
         killed: all handlers and servers, {} times; PostgreSQL restarted {} times\n{told}",
        start.elapsed(),
        plan.seed,
        deaths.kills.len(),
        deaths.restarts.len(),
    );
    drop(parts);
    let accepted = i64::try_from(sent.len()).expect("not that many");
    Round {
        name: "joined",
        offered: i64::try_from(events).expect("not that many"),
        accepted,
        once: accepted,
        faults: if balanced {
            Vec::new()
        } else {
            vec!["the account of events and money does not balance".to_owned()]
        },
        text,
        ..Round::default()
    }
}

/// Leases that no busy machine lets lapse by itself: what is paid twice for that is nobody's death.
const LEASE: Duration = Duration::from_secs(6);

fn lease() -> String {
    format!("{}s", LEASE.as_secs())
}

fn host(
    database: &TestDatabase,
    storage: &TestStorage,
    provider: &FakeProvider,
    consumer: &Consumer,
) -> FunctionAppBuilder {
    FunctionApp::of(database, storage)
        .config(&provider::config(provider))
        .hurried()
        .set("HINT_AFTER", "10s")
        .host("/extensions/queues/batchSize", BATCH.into())
        .host("/extensions/queues/newBatchThreshold", THRESHOLD.into())
        .consumer(consumer)
        .set("WORK_LEASE", lease())
        .set("TURN_LEASE", lease())
        .set("SPEND_LEASE", lease())
        .set("DB_CONNECT_TIMEOUT", "3s")
        .set("DB_STATEMENT_TIMEOUT", "5s")
        .set("DB_POOL_WAIT", "5s")
        .set("LLM_RETRIES", "1")
        .set("LLM_RETRY_BASE", "50ms")
        .set("LLM_BREAKER_PAUSE", "500ms")
        .set("RESPOND_IDLE", "5m")
        .set("CALLBACK_SCHEDULE", "0s,500ms,500ms,500ms,500ms,500ms,500ms,500ms")
}

fn server(
    database: &TestDatabase,
    storage: &TestStorage,
    provider: &FakeProvider,
    consumer: &Consumer,
) -> ServerBuilder {
    Server::of(database, storage)
        .hurried()
        .config(provider::config(provider))
        .set("CONSUMER_URL", consumer.url())
        .set("CALLBACK_SECRET_CRM", CONSUMER_SECRET)
        .set("TURNS_MAX", TURNS.to_string())
        .set("TURN_LEASE", lease())
        .set("SPEND_LEASE", lease())
        .set("DB_CONNECT_TIMEOUT", "3s")
        .set("DB_STATEMENT_TIMEOUT", "5s")
        .set("DB_POOL_WAIT", "5s")
        .set("LLM_RETRIES", "1")
        .set("LLM_RETRY_BASE", "50ms")
        .set("LLM_BREAKER_PAUSE", "500ms")
}

/// Kills everything round after round until `ended`; in between PostgreSQL restarts twice, at a third and at two thirds
/// of what is to be told.
async fn die(
    parts: &mut Parts,
    events: usize,
    told: impl Fn() -> usize,
    mut ended: watch::Receiver<bool>,
) -> Deaths {
    let (between, most) = match events {
        ..=FEW => (BETWEEN_KILLS_OF_FEW, ROUNDS_OF_FEW),
        _ => (BETWEEN_KILLS, usize::MAX),
    };
    let mut deaths = Deaths::default();
    let mut next = Instant::now() + between;
    loop {
        let restarts = deaths.restarts.len();
        // A third of few is soon there; then a round of kills comes before the first and between both.
        let due = restarts < 2 && told() * 3 >= events * (restarts + 1);
        if due && (events > FEW || deaths.kills.len() > restarts) {
            let from = Instant::now();
            parts.postgres.stop().await;
            tokio::time::sleep(DOWN).await;
            parts.postgres.start_again().await;
            deaths.restarts.push((from, Instant::now()));
        }
        if Instant::now() >= next && deaths.kills.len() < most {
            deaths.kills.push(kill_all(parts).await);
            next = Instant::now() + between;
        }
        let done = *ended.borrow_and_update() && deaths.restarts.len() == 2 && !deaths.kills.is_empty();
        if done {
            return deaths;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Kills all handlers, which their hosts start again, and all servers. Gives when.
async fn kill_all(parts: &mut Parts) -> (Instant, Instant) {
    let from = Instant::now();
    parts.servers.iter_mut().for_each(Server::kill);
    join_all(parts.hosts.iter().map(FunctionApp::kill_handler)).await;
    let until = Instant::now();
    join_all(parts.servers.iter_mut().map(Server::start_again)).await;
    (from, until)
}
