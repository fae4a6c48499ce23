use super::*;
use crate::coordination::Memory;

fn principal(limits: KeyLimits) -> Principal {
    Principal { owner: "ada".into(), key: "k".into(), limits, ..Principal::default() }
}

fn limits(shared: &Arc<Memory>) -> RateLimits {
    RateLimits::new(RateDefaults::default(), shared.clone())
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_and_come_back_with_time() {
    let limits = limits(&Arc::default());
    let who = principal(KeyLimits { requests_per_minute: Some(60), ..KeyLimits::default() });
    for left in (0..60).rev() {
        let admitted = limits.admit(&who, 0).unwrap();
        let mut headers = HeaderMap::new();
        admitted.describe(&mut headers);
        assert_eq!(headers["x-ratelimit-remaining-requests"], left.to_string());
        assert_eq!(headers["x-ratelimit-limit-requests"], "60");
        assert!(!headers.contains_key("x-ratelimit-limit-tokens"), "there is none");
    }
    let limited = limits.admit(&who, 0).map(drop).unwrap_err();
    assert_eq!((limited.limit, limited.wait.as_millis()), ("requests", 1_000));
    let error = ApiError::from(limited);
    assert_eq!((error.status.as_u16(), error.retry_after), (429, Some(Duration::from_secs(1))));
    let told: HeaderMap = error.headers.into_iter().collect();
    assert_eq!(told.len(), 3, "as with a 200");
    assert_eq!(
        [&told["x-ratelimit-limit-requests"], &told["x-ratelimit-remaining-requests"]],
        ["60", "0"],
        "{told:?}"
    );
    assert_eq!(told["x-ratelimit-reset-requests"], "1m0s");
    tokio::time::advance(Duration::from_millis(1_001)).await;
    assert!(limits.admit(&who, 0).is_ok());
    assert!(limits.admit(&who, 0).is_err());
}

#[tokio::test(start_paused = true)]
async fn tokens_are_estimated_then_put_right() {
    let limits = limits(&Arc::default());
    let who = principal(KeyLimits { tokens_per_minute: Some(1_000), ..KeyLimits::default() });
    let mut first = limits.admit(&who, 900).unwrap();
    assert_eq!(limits.admit(&who, 200).map(drop).unwrap_err().limit, "tokens");
    first.settle(100);
    assert!(limits.admit(&who, 200).is_ok());
    first.settle(2_000);
    let limited = limits.admit(&who, 1).map(drop).unwrap_err();
    assert!(limited.wait > Duration::from_secs(60), "{limited:?}: what was taken too much is waited for");
    // More than a whole bucket: taken from a full one.
    tokio::time::advance(Duration::from_secs(600)).await;
    assert!(limits.admit(&who, 5_000).is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_beside_is_no_further_request_or_turn() {
    let limits = limits(&Arc::default());
    let who = principal(KeyLimits {
        tokens_per_minute: Some(1_000),
        requests_per_minute: Some(2),
        concurrent_turns: Some(2),
        ..KeyLimits::default()
    });
    let first = limits.admit(&who, 100).unwrap();
    let mut beside = first.beside();
    beside.settle(800);
    drop(beside);
    assert_eq!(limits.admit(&who, 200).map(drop).unwrap_err().limit, "tokens");
    let second = limits.admit(&who, 100).unwrap();
    drop(first);
    assert_eq!(limits.admit(&who, 0).map(drop).unwrap_err().limit, "requests", "of which there were two");
    drop(second);
}

#[test]
fn times_are_written_as_openai_writes_them() {
    for (ms, text) in [
        (0, "0s"),
        (120, "120ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (8_640, "8.64s"),
        (20_000, "20s"),
        (90_000, "1m30s"),
        (90_005, "1m30.005s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
    ] {
        assert_eq!(span(Duration::from_millis(ms)), text);
    }
    assert_eq!(span(Duration::from_micros(1)), "1ms", "not yet");
}

#[tokio::test(start_paused = true)]
async fn turns_at_once_end_when_they_end() {
    let limits = limits(&Arc::default());
    let who = principal(KeyLimits { concurrent_turns: Some(2), ..KeyLimits::default() });
    let (first, second) = (limits.admit(&who, 0).unwrap(), limits.admit(&who, 0).unwrap());
    assert_eq!(limits.admit(&who, 0).map(drop).unwrap_err().limit, "turns");
    drop(first);
    let third = limits.admit(&who, 0).unwrap();
    assert!(limits.admit(&who, 0).is_err());
    drop((second, third));
    let none = principal(KeyLimits { requests_per_minute: Some(0), ..KeyLimits::default() });
    assert!(limits.admit(&none, 0).is_err(), "zero lets nothing through");
}

#[tokio::test(start_paused = true)]
async fn instances_keep_one_limit_together() {
    let shared = Arc::new(Memory::default());
    let (one, two) = (limits(&shared), limits(&shared));
    let who = principal(KeyLimits {
        requests_per_minute: Some(60),
        concurrent_turns: Some(10),
        ..KeyLimits::default()
    });
    let mut held: Vec<Admitted> = Vec::new();
    let mut slot = 7;
    drop(two.admit(&who, 0).unwrap());
    for limits in [&one, &two] {
        limits.reconcile_in(slot).await;
    }
    held.extend((0..6).map(|_| one.admit(&who, 0).unwrap()));
    for _ in 0..2 {
        slot += 1;
        for limits in [&one, &two] {
            limits.reconcile_in(slot).await;
            limits.reconcile_in(slot).await;
        }
    }
    held.extend((0..4).map(|_| two.admit(&who, 0).unwrap()));
    assert_eq!(two.admit(&who, 0).map(drop).unwrap_err().limit, "turns");
    drop(held);
    // Requests: 11 are gone, and the other instance knows of its neighbour's six.
    let mut let_through = 0;
    while let Ok(admitted) = two.admit(&who, 0) {
        drop(admitted);
        let_through += 1;
        if two.accounts().get_mut("k").is_some_and(|account| account.others == 0) || let_through > 60 {
            break;
        }
        slot += 1;
        one.reconcile_in(slot).await;
        two.reconcile_in(slot).await;
    }
    while two.admit(&who, 0).is_ok() {
        let_through += 1;
    }
    assert_eq!(let_through, 60 - 11);
}

#[tokio::test(start_paused = true)]
async fn without_the_others_an_instance_counts_alone() {
    struct Away;
    impl Coordination for Away {
        fn wake(&self, _: crate::coordination::Wake) {}
        fn subscribe(&self) -> tokio::sync::broadcast::Receiver<crate::coordination::Wake> {
            tokio::sync::broadcast::channel(1).1
        }
        fn add<'a>(
            &'a self,
            _: &'a [Add],
        ) -> futures_util::future::BoxFuture<'a, Result<Vec<i64>, crate::coordination::CoordinationError>>
        {
            Box::pin(async { Err(crate::coordination::CoordinationError::Away) })
        }
        fn is_shared(&self) -> bool {
            false
        }
    }
    let limits = RateLimits::new(RateDefaults::default(), Arc::new(Away));
    let who = principal(KeyLimits { requests_per_minute: Some(3), ..KeyLimits::default() });
    for _ in 0..3 {
        limits.admit(&who, 0).unwrap();
        limits.reconcile().await;
    }
    assert!(limits.admit(&who, 0).is_err());
}

#[tokio::test(start_paused = true)]
async fn operators_are_told_once_a_minute_of_a_caller_at_a_limit() {
    let applied = Applied { requests: Some(1), tokens: None, turns: None };
    let mut account = Account::new(applied, Instant::now());
    let mut tells = Vec::new();
    for pause in [0, 1, 58, 1, 60] {
        tokio::time::advance(Duration::from_secs(pause)).await;
        tells.push(account.tells(Instant::now()));
    }
    assert_eq!(tells, [true, false, false, true, true]);
}
