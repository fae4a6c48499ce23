//! What processes tell each other of the deployments they share: once a second, beside the requests, which never wait for
//! it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{EVERY, Quota};
use crate::coordination::{Add, Coordination};
use crate::tasks::Tasks;

/// Shared counters outlive a pause in a deployment's use by this.
const LIVES: Duration = Duration::from_secs(300);
/// Processes are counted anew in each slot of time, so that one that is gone is forgotten.
const SLOT: Duration = Duration::from_secs(2);

/// The limits of one process's deployments, by name.
pub(crate) struct Sharing {
    quotas: Vec<(Arc<str>, Arc<Quota>)>,
    coordination: Arc<dyn Coordination>,
    /// Of each limit, where nobody else was ever heard of.
    share: f64,
    /// How many share the limits, as far as is known.
    processes: i64,
    /// The last slot that this process was counted in.
    counted: Option<u64>,
}

impl Sharing {
    /// Tells nobody until it is started. `share`: of each limit, as long as no other process was heard of.
    pub fn new(quotas: Vec<(Arc<str>, Arc<Quota>)>, coordination: Arc<dyn Coordination>, share: f64) -> Self {
        Self { quotas, coordination, share, processes: 1, counted: None }
    }

    /// Tells and hears, at once and then each second, until `tasks` stop.
    pub fn start(mut self, tasks: &Tasks) {
        let stopping = tasks.stopping();
        tasks.spawn("llm.quotas", async move {
            loop {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                self.exchange(since.as_secs() / SLOT.as_secs()).await;
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        });
    }

    /// One exchange in a slot of time.
    pub async fn exchange(&mut self, slot: u64) {
        let first = self.counted.replace(slot) != Some(slot);
        let was_counted = |in_slot: u64| Add {
            key: format!("quota:processes:{in_slot}"),
            by: i64::from(first && in_slot == slot),
            lives: SLOT * 5,
        };
        // The slot before is whole: everybody was counted there who still is.
        let mut adds = vec![was_counted(slot), was_counted(slot.wrapping_sub(1))];
        for (name, quota) in &self.quotas {
            for (kind, by) in ["t", "r"].into_iter().zip(quota.untold()) {
                adds.push(Add { key: format!("quota:{kind}:{name}"), by, lives: LIVES });
            }
        }
        let Ok(totals) = self.coordination.add(&adds).await else {
            // Whoever was there is there: each keeps to an equal part.
            let share = self.share.min(1.0 / self.processes.max(1) as f64);
            self.quotas.iter().for_each(|(_, quota)| quota.alone(share));
            return;
        };
        if let [now, before, ..] = totals[..] {
            self.processes = now.max(before).max(1);
        }
        let told = adds.chunks_exact(2).zip(totals.chunks_exact(2)).skip(1);
        for ((_, quota), (adds, totals)) in self.quotas.iter().zip(told) {
            if let ([tokens, requests], [all_tokens, all_requests]) = (adds, totals) {
                quota.tell([(tokens.by, *all_tokens), (requests.by, *all_requests)], self.processes);
            }
        }
    }
}

impl Quota {
    /// Tokens and requests that were taken and the others do not know of.
    fn untold(&self) -> [i64; 2] {
        let buckets = self.lock();
        [buckets.tokens, buckets.requests].map(|bucket| bucket.map_or(0, |bucket| bucket.untold()))
    }

    /// What was told of tokens and requests, and what the counters came to.
    fn tell(&self, told: [(i64, i64); 2], processes: i64) {
        let mut buckets = self.lock();
        buckets.shared = processes > 1;
        let super::Buckets { tokens, requests, .. } = &mut *buckets;
        for (bucket, (amount, total)) in [tokens, requests].into_iter().zip(told) {
            if let Some(bucket) = bucket {
                bucket.tell(amount, total, processes);
            }
        }
    }

    fn alone(&self, share: f64) {
        let mut buckets = self.lock();
        buckets.shared = false;
        let super::Buckets { tokens, requests, .. } = &mut *buckets;
        for bucket in [tokens, requests].into_iter().flatten() {
            bucket.alone(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordination::{CoordinationError, Memory, Wake};
    use crate::llm::clock;

    fn process(shared: &Arc<Memory>, requests: u64, tokens: u64) -> (Arc<Quota>, Sharing) {
        let quota = Quota::new(tokens, requests, 1.0);
        let sharing = Sharing::new(vec![("d".into(), Arc::clone(&quota))], shared.clone(), 1.0);
        (quota, sharing)
    }

    /// Takes so many requests of so many tokens, as far as there is room.
    fn take(quota: &Arc<Quota>, most: usize, tokens: u64) -> usize {
        let taken = (0..most).take_while(|_| match quota.take(tokens, Duration::ZERO) {
            Ok((mut grant, _)) => {
                grant.sent();
                true
            }
            Err(_) => false,
        });
        taken.count()
    }

    #[tokio::test]
    async fn processes_keep_one_limit_together_also_when_all_begin_at_once() {
        let shared = Arc::new(Memory::default());
        // 40 requests a second, ten seconds' worth at once.
        let mut all: Vec<_> = (0..4).map(|_| process(&shared, 2_400, 0)).collect();
        for slot in [1, 2] {
            for (_, sharing) in &mut all {
                sharing.exchange(slot).await;
            }
        }
        let mut taken = 0;
        for second in 0..20_u64 {
            // They do not exchange at the same moment.
            for (quota, sharing) in &mut all {
                clock::advance(EVERY / 4);
                taken += take(quota, 1_000, 0);
                sharing.exchange(3 + second / 2).await;
            }
        }
        let most = 400 + 20 * 40;
        assert!(taken <= most + most / 50, "{taken} of {most}");
        assert!(taken >= most - 250, "{taken} of {most}");
    }

    #[tokio::test]
    async fn who_is_alone_in_asking_gets_nearly_all() {
        let shared = Arc::new(Memory::default());
        let (mut busy, mut idle) = (process(&shared, 0, 60_000), process(&shared, 0, 60_000));
        let mut taken = 0;
        for second in 0..120_u64 {
            clock::advance(EVERY);
            taken = if second == 60 { 0 } else { taken } + take(&busy.0, 100, 100);
            busy.1.exchange(second / 2).await;
            idle.1.exchange(second / 2).await;
        }
        // A thousand tokens a second, over the second minute.
        assert!((540..=620).contains(&taken), "{taken}");
        clock::advance(EVERY);
        assert!(take(&idle.0, 1, 5) == 1, "the other may begin at once");
    }

    #[tokio::test]
    async fn without_the_others_each_keeps_to_an_equal_part() {
        struct Away;
        impl Coordination for Away {
            fn wake(&self, _: Wake) {}
            fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Wake> {
                tokio::sync::broadcast::channel(1).1
            }
            fn add<'a>(
                &'a self,
                _: &'a [Add],
            ) -> futures_util::future::BoxFuture<'a, Result<Vec<i64>, CoordinationError>> {
                Box::pin(async { Err(CoordinationError::Away) })
            }
            fn is_shared(&self) -> bool {
                false
            }
        }
        let shared = Arc::new(Memory::default());
        let (mut one, mut two) = (process(&shared, 0, 60_000), process(&shared, 0, 60_000));
        for slot in [1, 2] {
            one.1.exchange(slot).await;
            two.1.exchange(slot).await;
        }
        one.1.coordination = Arc::new(Away);
        one.1.exchange(3).await;
        clock::advance(Duration::from_secs(600));
        assert_eq!(take(&one.0, 1_000, 100), 300, "half a minute's worth");
        let (quota, mut never) = process(&shared, 0, 60_000);
        (never.coordination, never.share) = (Arc::new(Away), 0.25);
        never.exchange(4).await;
        assert_eq!(take(&quota, 1_000, 100), 150);
    }
}
