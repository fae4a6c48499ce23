//! All faults at once, for conversations. `COLLOQUY_FAULT_TURNS` says with how many turns: few in the suite, 1,000 by
//! hand (`scripts/faults turns`). What is left to chance comes from `COLLOQUY_FAULT_SEED`, which is printed.

pub mod account;
mod crashed;
mod frozen;
mod money;
pub mod plan;
pub mod upstream;
pub mod viewer;
mod wrong;

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::soak::Round;
use crate::support::server::{Server, ServerBuilder};
use crate::support::{
    CONSUMER_SECRET, FunctionApp, PrivatePostgres, PrivateRedis, TestDatabase, TestStorage, report,
};
use account::{Account, count, table, told_and_found};
use money::Money;
use plan::Plan;
use upstream::Upstreams;
use viewer::{Viewers, refusals};
use wrong::{Parts, go_wrong};

/// Until everything that died is settled: a few times `SPEND_LEASE`.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_all_faults_at_once_every_stored_turn_has_ended_as_its_viewers_saw_it() {
    let round = round(Plan::read()).await;
    report("fault-turns", &round.text);
    assert!(round.faults.is_empty(), "{}\n{}", round.text, round.faults.join("\n"));
}

/// The whole campaign. What does not balance is among the faults.
pub async fn round(plan: Plan) -> Round {
    let start = Instant::now();
    let (postgres, redis) = (PrivatePostgres::start().await, PrivateRedis::start().await);
    let (database, storage) = (TestDatabase::within(&postgres).await, TestStorage::create());
    let upstreams = Upstreams::start(plan);
    let builder = || hurried(&database, &storage, &upstreams).set("REDIS_URL", redis.url());
    let servers = vec![builder().start().await, builder().start().await];
    let upkeep = FunctionApp::of(&database, &storage).start_handler().await;
    let addresses: Vec<String> = servers.iter().map(|server| server.url("")).collect();
    let mut parts = Parts { servers, postgres, redis };

    let (over, ended) = watch::channel(false);
    let viewers = Viewers::new(addresses.clone(), plan);
    let watching = async {
        let seen = viewers.all(|| upstreams.are_done()).await;
        over.send_replace(true);
        seen
    };
    let (seen, told) = tokio::join!(watching, go_wrong(plan, &mut parts, ended));

    let account = Account { database: &database, servers: &addresses, seen: &seen };
    let money =
        Money { database: &database, storage: &storage, upstreams: &upstreams, seen: &seen, told: &told };
    let (mut lines, mut faults, ended) = account.turns(PATIENCE).await;
    let settled = money.settled(&parts.servers, &upkeep, PATIENCE).await;
    lines.extend(money.in_use(&parts.servers).await);
    lines.push(("keys in Redis that would stay for ever", 0, count(parts.redis.endless_keys().await)));
    for server in &mut parts.servers {
        server.stop().await;
    }
    lines.extend(money.given_back().await);
    let (of_usage, differences, notes) = money.usage().await;
    lines.extend(of_usage);
    faults.extend(differences);

    let text = format!(
        "{} turns ({} asked for) in {:.1?}, seed {}\nfaults: {}\n{}{}{notes}\
         all turns had ended {ended:.1?} after the last viewer, all money was settled {settled:.1?} later\n",
        seen.len(),
        plan.turns,
        start.elapsed(),
        plan.seed,
        told.counts(),
        table(&lines),
        account.met(),
    );
    faults.truncate(10);
    faults.extend(lines.iter().filter(|(_, wanted, found)| wanted != found).map(|line| format!("{line:?}")));
    let (accepted, once) = told_and_found(&lines);
    Round {
        name: "turns",
        offered: count(&seen),
        accepted,
        once,
        refused: refusals(&seen).into_iter().map(|((_, code), count)| (code, count)).collect(),
        faults,
        text,
        ..Round::default()
    }
}

/// Short leases and waits; as patient with the log as by default. What is shown without it is marked, and viewers hold it
/// for no more than what was shown.
pub fn hurried(database: &TestDatabase, storage: &TestStorage, upstreams: &Upstreams) -> ServerBuilder {
    Server::of(database, storage)
        .hurried()
        .config(upstreams.config())
        .set("CALLBACK_SECRET_CRM", CONSUMER_SECRET)
        .set("SPEND_LEASE", "6s")
        .set("SPEND_HEARTBEAT", "500ms")
        .set("USAGE_SPOOL_AFTER", "3s")
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
