//! What goes wrong while turns run.

use std::fmt::Write;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::sync::watch;

use super::plan::{Plan, moment};
use crate::support::server::Server;
use crate::support::{PrivatePostgres, PrivateRedis};

/// Longer than a turn's lease (two seconds, see `hurried`) and everything that follows its end.
const FREEZE: Duration = Duration::from_secs(4);
/// Longer than `SPEND_LEASE` too.
const LONG_FREEZE: Duration = Duration::from_secs(9);
/// Within this a server writes again what PostgreSQL lost in a crash. If it dies before, that is lost indeed.
const WRITTEN_AGAIN: Duration = Duration::from_secs(4);
/// A row that opens an attempt is written within this.
const WRITTEN: Duration = Duration::from_secs(1);
/// The same after an outage, when whoever writes may be waiting before it tries again.
const WRITTEN_AFTER_OUTAGE: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    ServerKilled,
    ServerFrozen,
    ServerFrozenLong,
    ServerDrained,
    DatabaseRestarted,
    DatabaseKilled,
    DatabaseAwayAndServerKilled,
    PoolerKilled,
    RedisKilled,
    RedisFrozen,
}

const FAULTS: [Fault; 10] = [
    Fault::ServerKilled,
    Fault::ServerFrozen,
    Fault::ServerFrozenLong,
    Fault::ServerDrained,
    Fault::DatabaseRestarted,
    Fault::DatabaseKilled,
    Fault::DatabaseAwayAndServerKilled,
    Fault::PoolerKilled,
    Fault::RedisKilled,
    Fault::RedisFrozen,
];

/// What can be broken.
pub struct Parts {
    pub servers: Vec<Server>,
    pub postgres: PrivatePostgres,
    pub redis: PrivateRedis,
}

/// What happened.
#[derive(Default)]
pub struct Told {
    faults: Vec<Fault>,
    /// SIGKILL to a server.
    kills: Vec<Instant>,
    /// The database away, from and until.
    outages: Vec<(Instant, Instant)>,
}

impl Told {
    /// How often each fault happened.
    pub fn counts(&self) -> String {
        let mut text = String::new();
        for fault in FAULTS {
            let count = self.faults.iter().filter(|told| **told == fault).count();
            write!(text, "{}{fault:?} {count}", if text.is_empty() { "" } else { ", " }).expect("text");
        }
        text
    }

    /// Whether the row of a call to a provider at this time may never have been written: its process was killed a moment
    /// later, or before the database was back. Nobody waits for that row where the turn is not stored.
    pub fn may_have_lost_its_row(&self, at: Instant) -> bool {
        self.kills.iter().any(|kill| {
            let during_outage = self.outages.iter().any(|(from, until)| {
                at + WRITTEN >= *from && at <= *until && *kill <= *until + WRITTEN_AFTER_OUTAGE
            });
            at <= *kill && (*kill - at <= WRITTEN || during_outage)
        })
    }
}

/// Every fault at least once, in any order, then on until `ended`.
pub async fn go_wrong(plan: Plan, parts: &mut Parts, mut ended: watch::Receiver<bool>) -> Told {
    let mut told = Told::default();
    for round in 0.. {
        let mut faults = FAULTS;
        faults.shuffle(&mut plan.dice("round", round));
        for fault in faults {
            if *ended.borrow_and_update() && told.faults.len() >= FAULTS.len() {
                return told;
            }
            let mut dice = plan.dice("fault", told.faults.len());
            moment(&mut dice).await;
            happen(fault, parts, &mut dice, &mut told).await;
            told.faults.push(fault);
        }
    }
    told
}

async fn happen(fault: Fault, parts: &mut Parts, dice: &mut StdRng, told: &mut Told) {
    let Parts { servers, postgres, redis } = parts;
    let which = dice.random_range(0..servers.len());
    let server = &mut servers[which];
    match fault {
        Fault::ServerKilled => {
            kill(server, told);
            moment(dice).await;
            server.start_again().await;
        }
        Fault::ServerFrozen => freeze(server, FREEZE).await,
        Fault::ServerFrozenLong => freeze(server, LONG_FREEZE).await,
        Fault::ServerDrained => {
            server.stop().await;
            server.start_again().await;
        }
        Fault::DatabaseRestarted => {
            let from = Instant::now();
            postgres.stop().await;
            moment(dice).await;
            postgres.start_again().await;
            told.outages.push((from, Instant::now()));
        }
        Fault::DatabaseKilled => {
            let from = Instant::now();
            postgres.kill().await;
            moment(dice).await;
            postgres.start_again().await;
            told.outages.push((from, Instant::now()));
            tokio::time::sleep(WRITTEN_AGAIN).await;
        }
        Fault::DatabaseAwayAndServerKilled => {
            let from = Instant::now();
            postgres.stop().await;
            moment(dice).await;
            kill(server, told);
            // Longer than a lease: nobody could renew, so nobody has lost anything.
            tokio::time::sleep(FREEZE).await;
            postgres.start_again().await;
            told.outages.push((from, Instant::now()));
            server.start_again().await;
        }
        Fault::PoolerKilled => {
            let from = Instant::now();
            postgres.kill_pooler();
            moment(dice).await;
            postgres.start_pooler().await;
            told.outages.push((from, Instant::now()));
        }
        Fault::RedisKilled => {
            redis.kill();
            moment(dice).await;
            redis.start_again().await;
        }
        Fault::RedisFrozen => {
            redis.freeze();
            moment(dice).await;
            redis.thaw();
        }
    }
}

fn kill(server: &mut Server, told: &mut Told) {
    server.kill();
    told.kills.push(Instant::now());
}

async fn freeze(server: &mut Server, time: Duration) {
    server.process().signal("STOP");
    tokio::time::sleep(time).await;
    server.process().signal("CONT");
}
