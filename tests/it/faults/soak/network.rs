//! A round of the network's: both programs at work behind proxies, on a disk that fills, with clocks that disagree.

use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::super::conversations::account::{Account, table, told_and_found};
use super::super::conversations::plan::{Plan, moment};
use super::super::conversations::upstream::Upstreams;
use super::super::conversations::viewer::{Viewers, refusals};
use super::super::ledger::Ledger;
use super::super::senders::Senders;
use super::super::{combined, conversations, hurried};
use super::strangers::{self, BODY_MAX, Doors, FLOODER, LIMIT};
use super::truth::{self, Whom, Window};
use super::{Round, round};
use crate::support::server::{API_KEY, Server, ServerBuilder};
use crate::support::{
    Answer, Consumer, FunctionApp, FunctionAppBuilder, PrivateAzurite, PrivatePostgres, Proxy, TestDatabase,
    TestStorage, resident_kib, skewed,
};

/// Of PostgreSQL, in MiB: a few times what a round writes.
const DISK: u32 = 768;
/// How far one process of each kind is from the others, in seconds. A signature may be 300 s old.
const SKEW: i64 = 120;
/// Longer than a probe waits, so that its answer lies within.
const SILENCE: Duration = Duration::from_secs(9);
const CUT: Duration = Duration::from_secs(5);
const FULL: Duration = Duration::from_secs(5);
/// Each way.
const FAR: Duration = Duration::from_millis(60);
/// Until everything is as before, and has been asked for it a few times.
const CALM: Duration = Duration::from_secs(16);
const PATIENCE: Duration = Duration::from_secs(120);

/// What goes wrong with what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    DatabaseCut,
    DatabaseSilent,
    DatabaseFar,
    StorageCut,
    StorageSilent,
    EverythingCut,
    DiskFull,
}

const FAULTS: [Fault; 7] = [
    Fault::DatabaseCut,
    Fault::DatabaseSilent,
    Fault::DatabaseFar,
    Fault::StorageCut,
    Fault::StorageSilent,
    Fault::EverythingCut,
    Fault::DiskFull,
];

/// The ways from the programs to what they stand on.
struct Ways {
    database: Proxy,
    blobs: Proxy,
    queues: Proxy,
}

/// Runs for about so long, and at least until every fault has happened.
pub async fn round(plan: Plan, length: Duration) -> Round {
    let start = Instant::now();
    let seconds = usize::try_from(length.as_secs()).expect("hours").max(30);
    let mut postgres = PrivatePostgres::start_on_small_disk(DISK).await;
    let azurite = PrivateAzurite::start().await;
    // Two, so that each account has tables of its own.
    let (of_events, of_turns) =
        (TestDatabase::within(&postgres).await, TestDatabase::within(&postgres).await);
    let storage = TestStorage::within(&azurite.connection_string());
    let [blobs, queues] = azurite.ports();
    let ways = Ways {
        database: Proxy::to(postgres.pooled_port(), Duration::ZERO).await,
        blobs: Proxy::to(blobs, Duration::ZERO).await,
        queues: Proxy::to(queues, Duration::ZERO).await,
    };
    let pooled = |database: &TestDatabase| {
        let (here, there) = (format!(":{}/", postgres.pooled_port()), format!(":{}/", ways.database.port()));
        database.url.replacen(&here, &there, 1)
    };
    let far = PrivateAzurite::through(ways.blobs.port(), ways.queues.port());
    let (consumer, upstreams) = (Consumer::start().await, Upstreams::start(plan));
    consumer.always(Answer::After(Duration::from_millis(100), Box::new(Answer::Status(200))));
    let app = |skew: i64| {
        let builder = hurried(&of_events, &storage, &consumer).set("RETRY_CAP", "300ms");
        let builder = builder.set("DATABASE_URL", pooled(&of_events)).set("AzureWebJobsStorage", &far);
        with_clock(builder, skew, FunctionAppBuilder::set).start()
    };
    let server = |skew: i64| {
        let builder = conversations::hurried(&of_turns, &storage, &upstreams).set("AUTH_API_KEYS", keys());
        let builder = builder.set("DATABASE_URL", pooled(&of_turns)).set("AzureWebJobsStorage", &far);
        let builder = builder.set("REQUEST_BODY_MAX", BODY_MAX.to_string()).set("REQUEST_HEAD_TIMEOUT", "2s");
        with_clock(builder, skew, ServerBuilder::set).start()
    };
    let apps = [app(0).await, app(-SKEW).await];
    let mut servers = [server(0).await, server(SKEW).await];
    let upkeep = [hurried(&of_events, &storage, &consumer).start_handler().await];
    let mut pids = Vec::new();
    for (number, app) in apps.iter().enumerate() {
        pids.push((format!("function-handlers {number}"), app.handler_pid().await));
    }
    for (number, server) in servers.iter_mut().enumerate() {
        pids.push((format!("conversation-server {number}"), server.process().pid()));
    }
    let memory = || pids.iter().map(|(_, pid)| resident_kib(*pid)).collect::<Vec<_>>();
    let before = memory();

    let addresses: Vec<String> = servers.iter().map(|server| server.url("")).collect();
    let viewers = Viewers::new(addresses.clone(), Plan { turns: seconds, ..plan });
    let mut senders = Senders::planned(plan);
    let deliveries = senders.doubled(seconds * 4);
    let doors = Doors { server: servers[0].port(), app: apps[0].port() };
    let whom = whom(&apps, &servers);
    let ((working, worked), (over, ended)) = (watch::channel(false), watch::channel(false));
    let work = async {
        let both = [&apps[0], &apps[1]];
        let ((), seen) = tokio::join!(senders.send(&both, deliveries), viewers.all(|| true));
        working.send_replace(true);
        seen
    };
    let all = async {
        let (seen, windows, strangers) = tokio::join!(
            work,
            go_wrong(plan, &ways, &mut postgres, worked.clone()),
            strangers::come(&doors, worked.clone()),
        );
        // Health is asked for a while longer, when nothing is wrong any more.
        tokio::time::sleep(CALM).await;
        over.send_replace(true);
        (seen, windows, strangers)
    };
    let ((seen, windows, (told, wrong)), probes) =
        Box::pin(combined::during(&upkeep, async { tokio::join!(all, truth::probe(&whom, ended)) })).await;

    let ledger = Ledger::new(&of_events, &storage, &consumer, senders.accepted());
    let of_events = combined::during(&upkeep, ledger.balances(PATIENCE)).await;
    let account = Account { database: &of_turns, servers: &addresses, seen: &seen };
    let (lines, mut faults, _) = account.turns(PATIENCE).await;
    let after = memory();
    faults.extend(lines.iter().filter(|(_, wanted, found)| wanted != found).map(|line| format!("{line:?}")));
    faults.extend(wrong);
    faults.extend(truth::lies(&probes, &windows.iter().map(|(_, window)| *window).collect::<Vec<_>>()));

    let (taken, found) = told_and_found(&lines);
    let (events, offered) = (senders.accepted().events.len(), senders.offered());
    let mut refused = senders.refused().clone();
    for ((_, code), count) in refusals(&seen) {
        *refused.entry(code).or_default() += count;
    }
    for (code, count) in told {
        *refused.entry(code).or_default() += count;
    }
    let number = |count: usize| i64::try_from(count).expect("not that many");
    Round {
        name: "network",
        offered: number(offered + seen.len()),
        accepted: number(events) + taken,
        // The ledger does not come back before every event has had its effect once.
        once: number(events) + found,
        doubled: 0,
        memory: pids
            .into_iter()
            .zip(before)
            .zip(after)
            .map(|(((who, _), start), end)| (who, start, end))
            .collect(),
        happened: windows.iter().map(|(fault, _)| format!("{fault:?}")).collect::<Vec<_>>().join(", "),
        probes: probes.len(),
        text: format!(
            "{:.1?}\n{of_events}{}{}refused: {:?}\n",
            start.elapsed(),
            table(&lines),
            account.met(),
            round::refusals(&refused),
        ),
        refused,
        faults,
    }
}

/// With a clock that is so many seconds fast.
fn with_clock<B>(builder: B, skew: i64, set: impl Fn(B, &str, String) -> B) -> B {
    if skew == 0 {
        return builder;
    }
    skewed(skew).into_iter().fold(builder, |builder, (name, value)| set(builder, name, value))
}

/// The harness's, and that of somebody who floods.
fn keys() -> String {
    let hash = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys = json!([
        { "name": "test", "sha256": hash(API_KEY), "scopes": ["operator"], "owner": "tester" },
        {
            "name": "flooder", "sha256": hash(FLOODER), "scopes": [], "owner": "flooder",
            "limits": { "requests_per_minute": LIMIT },
        },
    ]);
    Value::to_string(&keys)
}

fn whom(apps: &[FunctionApp; 2], servers: &[Server; 2]) -> Vec<Whom> {
    let app = |(number, app): (usize, &FunctionApp)| Whom {
        name: format!("function app {number}"),
        live: app.url("/api/health/live"),
        ready: app.url("/api/health/ready"),
        needs_storage: true,
    };
    let server = |(number, server): (usize, &Server)| Whom {
        name: format!("server {number}"),
        live: server.url("/health/live"),
        ready: server.url("/health/ready"),
        needs_storage: false,
    };
    apps.iter().enumerate().map(app).chain(servers.iter().enumerate().map(server)).collect()
}

/// Every fault once, in any order, then again until `ended`.
async fn go_wrong(
    plan: Plan,
    ways: &Ways,
    postgres: &mut PrivatePostgres,
    mut ended: watch::Receiver<bool>,
) -> Vec<(Fault, Window)> {
    let mut windows = Vec::new();
    let mut dice = plan.dice("network", 0);
    for round in 0.. {
        let mut faults = FAULTS.to_vec();
        faults.retain(|fault| *fault != Fault::DiskFull || postgres.has_small_disk());
        faults.shuffle(&mut dice);
        for fault in faults {
            if round > 0 && *ended.borrow_and_update() {
                return windows;
            }
            moment(&mut dice).await;
            windows.push((fault, happen(fault, ways, postgres).await));
        }
    }
    windows
}

async fn happen(fault: Fault, ways: &Ways, postgres: &mut PrivatePostgres) -> Window {
    let from = Instant::now();
    let (storage, everything) = ([&ways.blobs, &ways.queues], [&ways.database, &ways.blobs, &ways.queues]);
    let (without_database, without_storage) = match fault {
        Fault::DatabaseCut | Fault::DatabaseSilent => (true, false),
        Fault::StorageCut | Fault::StorageSilent => (false, true),
        Fault::EverythingCut => (true, true),
        Fault::DatabaseFar | Fault::DiskFull => (false, false),
    };
    match fault {
        Fault::DatabaseCut => {
            ways.database.cut();
            tokio::time::sleep(CUT).await;
        }
        Fault::DatabaseSilent => {
            ways.database.silence();
            tokio::time::sleep(SILENCE).await;
        }
        Fault::DatabaseFar => {
            ways.database.set_delay(FAR);
            tokio::time::sleep(CUT).await;
        }
        Fault::StorageCut => {
            storage.into_iter().for_each(Proxy::cut);
            tokio::time::sleep(CUT).await;
        }
        Fault::StorageSilent => {
            storage.into_iter().for_each(Proxy::silence);
            tokio::time::sleep(SILENCE).await;
        }
        Fault::EverythingCut => {
            everything.into_iter().for_each(Proxy::cut);
            tokio::time::sleep(CUT).await;
        }
        Fault::DiskFull => {
            postgres.fill_disk();
            tokio::time::sleep(FULL).await;
            postgres.free_disk().await;
        }
    }
    let until = Instant::now();
    ways.database.set_delay(Duration::ZERO);
    everything.into_iter().for_each(Proxy::open);
    Window { from, until, without_database, without_storage }
}
