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
/// Longer than a lease: nobody can renew, so nobody has lost anything.
const AWAY: Duration = Duration::from_secs(4);
/// PostgreSQL has on disk by then what nobody waited for.
const ON_DISK: Duration = Duration::from_secs(1);
/// Within this a server writes again what PostgreSQL lost in a crash. If it dies before, that is lost indeed.
const WRITTEN_AGAIN: Duration = Duration::from_secs(4);
/// A row that opens an attempt is written within this.
const WRITTEN: Duration = Duration::from_secs(1);
/// The same after an outage, when whoever writes may be waiting before it tries again.
const WRITTEN_AFTER_OUTAGE: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    ServerKilled,
    ServerFrozen,
    ServerFrozenLong,
    ServerDrained,
    DatabaseRestarted,
    DatabaseAway,
    PoolerKilled,
    RedisKilled,
    RedisFrozen,
    DatabaseKilled,
}

/// What happens to a server.
const OF_SERVERS: [Fault; 4] =
    [Fault::ServerKilled, Fault::ServerFrozen, Fault::ServerFrozenLong, Fault::ServerDrained];
/// What happens to what servers stand on, at any time.
const OF_SERVICES: [Fault; 5] = [
    Fault::DatabaseRestarted,
    Fault::DatabaseAway,
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
    /// What happened at once.
    steps: Vec<Vec<Fault>>,
    /// SIGKILL to a server.
    kills: Vec<Instant>,
    /// The database away, from and until.
    outages: Vec<(Instant, Instant)>,
}

impl Told {
    /// How often each fault happened.
    pub fn counts(&self) -> String {
        let mut text = String::new();
        for fault in OF_SERVERS.into_iter().chain(OF_SERVICES).chain([Fault::DatabaseKilled]) {
            let count = self.steps.iter().flatten().filter(|told| **told == fault).count();
            write!(text, "{fault:?} {count}, ").expect("text");
        }
        let pairs = self.steps.iter().filter(|step| step.len() > 1).count();
        text + &format!("{pairs} times two at once")
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
        for step in steps(plan, round) {
            if round > 0 && *ended.borrow_and_update() {
                return told;
            }
            let number = told.steps.len();
            moment(&mut plan.dice("step", number)).await;
            let find = |of: &[Fault]| step.iter().copied().find(|fault| of.contains(fault));
            let Parts { servers, postgres, redis } = &mut *parts;
            let mut dice = plan.dice("server", number);
            let which = dice.random_range(0..servers.len());
            let (kill, outage) = tokio::join!(
                of_server(find(&OF_SERVERS), &mut servers[which], dice),
                of_service(
                    find(&OF_SERVICES).or_else(|| find(&[Fault::DatabaseKilled])),
                    postgres,
                    redis,
                    plan.dice("service", number)
                ),
            );
            told.kills.extend(kill);
            told.outages.extend(outage);
            told.steps.push(step);
        }
    }
    told
}

/// By turns: two faults at once, then one after another. A crash of PostgreSQL has no other beside it: what it loses of a
/// log is with the log's holder alone.
fn steps(plan: Plan, round: usize) -> Vec<Vec<Fault>> {
    let mut dice = plan.dice("round", round);
    let (mut servers, mut services) = (OF_SERVERS, OF_SERVICES);
    servers.shuffle(&mut dice);
    services.shuffle(&mut dice);
    let mut steps: Vec<Vec<Fault>> = if round.is_multiple_of(2) {
        services.iter().zip(servers.iter().cycle()).map(|(one, other)| vec![*one, *other]).collect()
    } else {
        services.iter().chain(&servers).map(|one| vec![*one]).collect()
    };
    steps.push(vec![Fault::DatabaseKilled]);
    steps.shuffle(&mut dice);
    steps
}

/// When it was killed.
async fn of_server(fault: Option<Fault>, server: &mut Server, mut dice: StdRng) -> Option<Instant> {
    let fault = fault?;
    moment(&mut dice).await;
    match fault {
        Fault::ServerKilled => {
            server.kill();
            let killed = Instant::now();
            moment(&mut dice).await;
            server.start_again().await;
            return Some(killed);
        }
        Fault::ServerDrained => {
            server.stop().await;
            server.start_again().await;
        }
        _ => {
            let time = if fault == Fault::ServerFrozen { FREEZE } else { LONG_FREEZE };
            server.process().signal("STOP");
            tokio::time::sleep(time).await;
            server.process().signal("CONT");
        }
    }
    None
}

/// From when until when the database was away.
async fn of_service(
    fault: Option<Fault>,
    postgres: &mut PrivatePostgres,
    redis: &mut PrivateRedis,
    mut dice: StdRng,
) -> Option<(Instant, Instant)> {
    let fault = fault?;
    moment(&mut dice).await;
    let mut from = Instant::now();
    match fault {
        Fault::RedisKilled => {
            redis.kill();
            moment(&mut dice).await;
            redis.start_again().await;
            return None;
        }
        Fault::RedisFrozen => {
            redis.freeze();
            moment(&mut dice).await;
            redis.thaw();
            return None;
        }
        Fault::PoolerKilled => {
            postgres.kill_pooler();
            moment(&mut dice).await;
            postgres.start_pooler().await;
        }
        Fault::DatabaseKilled => {
            tokio::time::sleep(ON_DISK).await;
            from = Instant::now();
            postgres.kill().await;
            moment(&mut dice).await;
            postgres.start_again().await;
            tokio::time::sleep(WRITTEN_AGAIN).await;
        }
        fault => {
            postgres.stop().await;
            match fault {
                Fault::DatabaseAway => tokio::time::sleep(AWAY).await,
                _ => moment(&mut dice).await,
            }
            postgres.start_again().await;
        }
    }
    Some((from, Instant::now()))
}
