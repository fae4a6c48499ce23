//! All faults at once. `COLLOQUY_FAULT_EVENTS` says with how many events: few in the suite, 10,000 by hand
//! (`scripts/faults`). What is left to chance comes from `COLLOQUY_FAULT_SEED`, which is printed.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::conversations::plan::Plan;
use super::hurried;
use super::ledger::Ledger;
use super::senders::Senders;
use super::soak::Round;
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
    let events = std::env::var("COLLOQUY_FAULT_EVENTS").map_or(150, |text| text.parse().expect("a number"));
    let plan = Plan::read();
    crate::support::report("faults", &round(plan, events).await.text);
}

/// The whole campaign with so many events. Fails if its account does not balance.
pub async fn round(plan: Plan, events: usize) -> Round {
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

    let mut senders = Senders::planned(plan);
    // Each copy of an event may come with another fault.
    let deliveries = senders.doubled(events);
    let rounds = FAULTS.repeat(events.div_ceil(ROUND));
    let mut shares = deliveries.chunks(deliveries.len().div_ceil(rounds.len()));
    let mut report = String::new();
    for (number, fault) in rounds.into_iter().enumerate() {
        let began = Instant::now();
        let mut dice = plan.dice("fault", number);
        let share = shares.next().unwrap_or_default().to_vec();
        let count = share.len();
        let Hosts { one, other } = &mut hosts;
        match fault {
            Fault::HostKilled => {
                let apps = [&*one];
                let sending = senders.send(&apps, share);
                let killing = killed_and_started_again(other, &mut dice);
                during(&upkeep, async { tokio::join!(sending, killing) }).await;
            }
            _ => {
                let (one, other) = (&*one, &*other);
                let wrong = happen(fault, one, other, &mut postgres, &mut azurite, &mut dice);
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
    let text = format!(
        "{events} events, {} deliveries, {:.1?}, seed {}\n{report}{table}",
        deliveries.len(),
        start.elapsed(),
        plan.seed
    );
    let accepted = i64::try_from(senders.accepted().events.len()).expect("not that many");
    Round {
        name: "function app",
        offered: i64::try_from(senders.offered()).expect("not that many"),
        accepted,
        once: accepted,
        refused: senders.refused().clone(),
        text,
        ..Round::default()
    }
}

async fn happen(
    fault: Fault,
    one: &FunctionApp,
    other: &FunctionApp,
    postgres: &mut PrivatePostgres,
    azurite: &mut PrivateAzurite,
    dice: &mut StdRng,
) {
    // What happens beside one another has dice of its own.
    let (mut dice, mut others) = (StdRng::seed_from_u64(dice.random()), StdRng::seed_from_u64(dice.random()));
    let (dice, others) = (&mut dice, &mut others);
    match fault {
        Fault::Nothing | Fault::HostKilled => {}
        Fault::HandlersKilled => kill_handlers(one, other, dice).await,
        Fault::DatabaseAwayAndHandlersKilled => {
            let outage = async {
                moment(dice).await;
                postgres.stop().await;
                tokio::time::sleep(OUTAGE).await;
                postgres.start_again().await;
            };
            tokio::join!(outage, kill_handlers(one, other, others));
        }
        Fault::StorageRestartedAndHandlerFrozen => {
            let restart = async {
                moment(dice).await;
                azurite.stop().await;
                moment(dice).await;
                azurite.start_again().await;
            };
            let freeze = async {
                moment(others).await;
                let pid = one.freeze_handler().await;
                tokio::time::sleep(FREEZE).await;
                one.thaw(pid);
            };
            tokio::join!(restart, freeze);
        }
    }
}

async fn kill_handlers(one: &FunctionApp, other: &FunctionApp, dice: &mut StdRng) {
    for _ in 0..3 {
        moment(dice).await;
        one.kill_handler().await;
        moment(dice).await;
        other.kill_handler().await;
    }
}

/// So that faults hit whatever is under way.
async fn moment(dice: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(dice.random_range(50..400))).await;
}

/// SIGKILL to a host while it works, and its supervisor's answer.
async fn killed_and_started_again(app: &mut FunctionApp, dice: &mut StdRng) {
    for _ in 0..2 {
        moment(dice).await;
        app.kill();
        app.start_again().await;
    }
}

/// Ticks of upkeep, in every process at the same time, one after the other for as long as `work` takes.
pub async fn during<T>(upkeep: &[Handler], work: impl Future<Output = T>) -> T {
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
