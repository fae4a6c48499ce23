//! All faults at once. `COLLOQUY_FAULT_EVENTS` says with how many events: few in the suite, 10,000 by hand
//! (`scripts/faults`).

use std::time::{Duration, Instant};

use super::hurried;
use super::ledger::Ledger;
use super::senders::Senders;
use crate::support::{
    Answer, Consumer, FunctionApp, Handler, PrivateAzurite, PrivatePostgres, TestDatabase, TestStorage,
};

/// Longer than a lease ([`super::hurried`] has 3 s).
const FREEZE: Duration = Duration::from_secs(5);
/// Many times what all attempts at an event take, at their longest.
const OUTAGE: Duration = Duration::from_secs(8);

/// So many events at most see each fault once; more of them see it again.
const ROUND: usize = 1_000;

/// Two instances of the app, both with their hosts.
struct Hosts {
    one: FunctionApp,
    other: FunctionApp,
}

/// What goes wrong while senders send.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    HandlersKilled,
    DatabaseAwayAndHandlersKilled,
    StorageRestartedAndHandlerFrozen,
    HostKilled,
}

const FAULTS: [Fault; 6] = [
    Fault::Nothing,
    Fault::HandlersKilled,
    Fault::DatabaseAwayAndHandlersKilled,
    Fault::StorageRestartedAndHandlerFrozen,
    Fault::HostKilled,
    Fault::Nothing,
];

#[tokio::test]
async fn after_all_faults_at_once_every_accepted_event_had_its_effect_exactly_once() {
    let events: usize =
        std::env::var("COLLOQUY_FAULT_EVENTS").map_or(150, |text| text.parse().expect("a number"));
    let start = Instant::now();
    let mut postgres = PrivatePostgres::start().await;
    let mut azurite = PrivateAzurite::start().await;
    let database = TestDatabase::within(&postgres).await;
    let storage = TestStorage::within(&azurite.connection_string());
    let consumer = Consumer::start().await;
    // Slow enough for faults to hit callbacks that are under way.
    consumer.always(Answer::After(Duration::from_millis(200), Box::new(Answer::Status(200))));
    let builder = || hurried(&database, &storage, &consumer).set("RETRY_CAP", "300ms");
    let mut hosts = Hosts { one: builder().start().await, other: builder().start().await };
    // Upkeep beside the hosts' own: hosts of one app take turns at a timer, these do not.
    let upkeep = [builder().start_handler().await, builder().start_handler().await];

    let mut senders = Senders::new();
    // Each copy of an event may come with another fault.
    let deliveries = senders.doubled(events);
    let rounds = FAULTS.repeat(events.div_ceil(ROUND));
    let mut shares = deliveries.chunks(deliveries.len().div_ceil(rounds.len()));
    let mut report = String::new();
    for fault in rounds {
        let began = Instant::now();
        let share = shares.next().unwrap_or_default().to_vec();
        let count = share.len();
        let Hosts { one, other } = &mut hosts;
        match fault {
            Fault::HostKilled => {
                let apps = [&*one];
                let sending = senders.send(&apps, share);
                during(&upkeep, async { tokio::join!(sending, killed_and_started_again(other)) }).await;
            }
            _ => {
                let (one, other) = (&*one, &*other);
                let wrong = happen(fault, one, other, &mut postgres, &mut azurite);
                let apps = [one, other];
                let sending = senders.send(&apps, share);
                during(&upkeep, async { tokio::join!(sending, wrong) }).await;
            }
        }
        report += &format!("{fault:?}: {count} deliveries in {:.1?}\n", began.elapsed());
    }
    let patience = Duration::from_secs(60 + events as u64 / 20);
    let ledger = Ledger::new(&database, &storage, &consumer, senders.accepted());
    let table = during(&upkeep, ledger.balances(patience)).await;
    report =
        format!("{events} events, {} deliveries, {:.1?}\n{report}{table}", deliveries.len(), start.elapsed());
    crate::support::report("faults", &report);
}

async fn happen(
    fault: Fault,
    one: &FunctionApp,
    other: &FunctionApp,
    postgres: &mut PrivatePostgres,
    azurite: &mut PrivateAzurite,
) {
    match fault {
        Fault::Nothing | Fault::HostKilled => {}
        Fault::HandlersKilled => kill_handlers(one, other).await,
        Fault::DatabaseAwayAndHandlersKilled => {
            let outage = async {
                moment().await;
                postgres.stop().await;
                tokio::time::sleep(OUTAGE).await;
                postgres.start_again().await;
            };
            tokio::join!(outage, kill_handlers(one, other));
        }
        Fault::StorageRestartedAndHandlerFrozen => {
            let restart = async {
                moment().await;
                azurite.stop().await;
                moment().await;
                azurite.start_again().await;
            };
            let freeze = async {
                moment().await;
                let pid = one.freeze_handler().await;
                tokio::time::sleep(FREEZE).await;
                one.thaw(pid);
            };
            tokio::join!(restart, freeze);
        }
    }
}

async fn kill_handlers(one: &FunctionApp, other: &FunctionApp) {
    for _ in 0..3 {
        moment().await;
        one.kill_handler().await;
        moment().await;
        other.kill_handler().await;
    }
}

/// So that faults hit whatever is under way.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(50..400))).await;
}

/// SIGKILL to a host while it works, and its supervisor's answer.
async fn killed_and_started_again(app: &mut FunctionApp) {
    for _ in 0..2 {
        moment().await;
        app.kill();
        app.start_again().await;
    }
}

/// Ticks of upkeep, in every process at the same time, one after the other for as long as `work` takes.
async fn during<T>(upkeep: &[Handler], work: impl Future<Output = T>) -> T {
    let ticks = async {
        loop {
            futures_util::future::join_all(upkeep.iter().map(|handler| handler.tick("maintain"))).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = ticks => unreachable!("ticks have no end"),
    }
}
