//! Whether health and readiness tell the truth, asked all the time.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Longer than what a probe waits for (`PATIENCE` of both programs).
const LONGEST: Duration = Duration::from_secs(10);
/// How soon after something went away, or came back, the answer has to be another.
const SOON: Duration = Duration::from_secs(1);
const BACK: Duration = Duration::from_secs(12);

/// Whom to ask, and what it is ready without.
#[derive(Clone)]
pub struct Whom {
    pub name: String,
    pub live: String,
    pub ready: String,
    pub needs_storage: bool,
}

/// One answer. No status: none came.
pub struct Probe {
    name: String,
    is_live: bool,
    needs_storage: bool,
    asked: Instant,
    answered: Instant,
    status: Option<u16>,
}

/// From when until when something was wrong, and what cannot have been reached meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub from: Instant,
    pub until: Instant,
    pub without_database: bool,
    pub without_storage: bool,
}

/// Asks everybody until `ended`.
pub async fn probe(whom: &[Whom], ended: watch::Receiver<bool>) -> Vec<Probe> {
    let client = reqwest::Client::builder().no_proxy().timeout(LONGEST).build().expect("a client");
    let each = whom.iter().flat_map(|whom| [(whom, true), (whom, false)]).map(|(whom, is_live)| {
        let (client, ended) = (client.clone(), ended.clone());
        async move {
            let mut probes = Vec::new();
            while !*ended.borrow() {
                let asked = Instant::now();
                let answer = client.get(if is_live { &whom.live } else { &whom.ready }).send().await;
                probes.push(Probe {
                    name: whom.name.clone(),
                    is_live,
                    needs_storage: whom.needs_storage,
                    asked,
                    answered: Instant::now(),
                    status: answer.ok().map(|answer| answer.status().as_u16()),
                });
                // How often is asked is what is meant; nothing is waited for.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            probes
        }
    });
    futures_util::future::join_all(each).await.into_iter().flatten().collect()
}

/// What was said that was not so.
pub fn lies(probes: &[Probe], windows: &[Window]) -> Vec<String> {
    let told = |probe: &Probe, why: &str| {
        let what = if probe.is_live { "live" } else { "ready" };
        format!(
            "{} said {:?} of {what}: {why}; windows {windows:?}, asked {:?}",
            probe.name, probe.status, probe.asked
        )
    };
    let lie = |probe: &Probe| {
        if probe.is_live {
            return (probe.status != Some(200)).then(|| told(probe, "it ran all the time"));
        }
        let away = windows.iter().any(|window| {
            let needed = window.without_database || window.without_storage && probe.needs_storage;
            needed && probe.asked >= window.from + SOON && probe.answered <= window.until
        });
        if away {
            return (probe.status != Some(503)).then(|| told(probe, "what it needs was away"));
        }
        let calm =
            windows.iter().all(|window| probe.answered < window.from || probe.asked >= window.until + BACK);
        (calm && probe.status != Some(200)).then(|| told(probe, "nothing was wrong"))
    };
    probes.iter().filter_map(lie).collect()
}
