use std::time::{Duration, Instant};

use jiff::civil::date;
use proptest::prelude::*;

use super::support::{settings, total, who};
use crate::database::budgets::{Drawn, Others, Standing};
use crate::llm::spend::BudgetKey;
use crate::llm::spend::ledger::{Ledger, Limits, Refusal, Wanted};
use crate::llm::spend::{Scope, rows};

const LIMITS: Limits = Limits { owner: None, key: None, total: Some(1_000) };

fn drawn(ledger: &mut Ledger, amount: i64, free: i64, need: bool) {
    let caller = who("ada", "k");
    let waiting = [(&caller, LIMITS, Wanted::exactly(if need { 10_000 } else { 0 }))];
    let asks = ledger.asks(waiting.into_iter(), &settings(total(1_000)));
    let budget = BudgetKey { scope: Scope::Total, subject: "".into(), day: ledger.today() };
    let got = Drawn { budget, granted: amount, amount, free, others: Others::HoldNothing };
    ledger.drew(&[got], &asks, &settings(total(1_000)), Instant::now());
}

/// Sets an amount aside and says whether the slice runs low.
fn take(ledger: &mut Ledger, amount: i64, ours: bool, now: Instant) -> Result<bool, Refusal> {
    let taken = ledger.reserve(&who("ada", "k"), LIMITS, Wanted::exactly(amount), ours, now);
    taken.map(|(taken, low)| {
        assert_eq!(taken, amount, "all of it or nothing");
        low
    })
}

#[test]
fn who_is_content_with_less_gets_most_while_there_is_plenty_and_the_least_near_the_end() {
    let mut ledger = Ledger::new(date(2026, 11, 21));
    let (caller, now) = (who("ada", "k"), Instant::now());
    let take = |ledger: &mut Ledger| {
        let taken = ledger.reserve(&caller, LIMITS, Wanted { least: 10, most: 60 }, true, now);
        taken.map(|(amount, _)| amount)
    };
    assert_eq!(take(&mut ledger), Err(Refusal::Short));
    drawn(&mut ledger, 130, 600, false);
    assert_eq!((take(&mut ledger), take(&mut ledger)), (Ok(60), Ok(60)));
    assert_eq!(take(&mut ledger), Err(Refusal::Short), "10 would do, but there is more to draw");
    drawn(&mut ledger, 145, 0, true);
    assert_eq!((take(&mut ledger), take(&mut ledger)), (Ok(10), Ok(10)), "nothing more is to be had");
    assert_eq!(take(&mut ledger), Err(Refusal::Spent(Scope::Total)));
}

#[test]
fn a_turn_fits_into_the_slice_or_is_short_then_refused() {
    let mut ledger = Ledger::new(date(2026, 11, 21));
    let (caller, now) = (who("ada", "k"), Instant::now());
    assert_eq!(take(&mut ledger, 10, true, now), Err(Refusal::Short));
    drawn(&mut ledger, 100, 900, false);
    assert_eq!(take(&mut ledger, 70, true, now), Ok(false));
    assert_eq!(take(&mut ledger, 10, true, now), Ok(true), "runs low");
    assert_eq!(take(&mut ledger, 30, true, now), Err(Refusal::Short));
    assert_eq!(take(&mut ledger, 10, false, now), Err(Refusal::Short), "the lease lapsed");
    drawn(&mut ledger, 100, 0, true);
    let refused = take(&mut ledger, 30, true, Instant::now());
    assert_eq!(refused, Err(Refusal::Spent(Scope::Total)));
    // A turn that costs nothing is never refused.
    assert!(take(&mut ledger, 0, true, now).is_ok());
    // What a turn does not use is there for the next one, at once.
    ledger.charge(ledger.today(), &caller, LIMITS, 70, 5);
    assert!(take(&mut ledger, 30, true, Instant::now()).is_ok());
}

#[test]
fn near_the_end_nothing_is_kept() {
    let mut ledger = Ledger::new(date(2026, 11, 21));
    let (caller, now) = (who("ada", "k"), Instant::now());
    assert!(take(&mut ledger, 10, true, now).is_err());
    drawn(&mut ledger, 50, 900, false);
    assert!(ledger.take_spare(now).is_empty(), "there is plenty");
    let idle = now + Duration::from_secs(61);
    assert_eq!(ledger.take_spare(idle).first().map(|one| one.micros), Some(50), "nobody uses it");
    drawn(&mut ledger, 50, 3, false);
    assert!(take(&mut ledger, 20, true, now).is_ok());
    assert_eq!(ledger.take_spare(now).first().map(|one| one.micros), Some(30));
    assert!(ledger.charge(ledger.today(), &caller, LIMITS, 20, 5), "15 are to be given back");
    assert_eq!(ledger.take_spare(now).first().map(|one| one.micros), Some(15));
    assert!(ledger.take_spare(now).is_empty());
}

#[test]
fn a_lost_answer_is_asked_for_and_counts_as_given_until_then() {
    let mut ledger = Ledger::new(date(2026, 11, 21));
    let now = Instant::now();
    assert!(take(&mut ledger, 10, true, now).is_err());
    drawn(&mut ledger, 50, 3, false);
    let spare = ledger.take_spare(now);
    ledger.doubt(spare.into_iter().map(|one| one.budget));
    assert!(take(&mut ledger, 10, true, now).is_err());
    let reports = ledger.reports();
    let standing = Standing {
        budget: reports[0].budget.clone(),
        amount: Some(50),
        limit: 1_000,
        spent: 850,
        wanted: false,
    };
    let passed = ledger.stands(&reports, std::slice::from_ref(&standing));
    assert_eq!(passed, [(standing.budget.clone(), 80)]);
    assert!(ledger.stands(&reports, &[standing]).is_empty(), "told once");
    assert!(take(&mut ledger, 10, true, now).is_ok());
}

#[test]
fn states_settle_once() {
    use rows::{Reason, UsageState};
    for reason in Reason::ALL {
        assert!(UsageState::Open.may_be_settled(None, reason));
        assert_eq!(
            UsageState::Settled.may_be_settled(Some(Reason::Crashed), reason),
            reason != Reason::Crashed
        );
        assert!(!UsageState::Settled.may_be_settled(Some(Reason::Completed), reason));
    }
}

proptest! {
    /// Whatever happens in whatever order: what is reserved, spent and free is what was drawn.
    #[test]
    fn nothing_is_made_or_lost(steps in proptest::collection::vec((0u8..3, 1i64..50, 0i64..60), 1..200)) {
        let mut ledger = Ledger::new(date(2026, 11, 21));
        let (caller, now) = (who("ada", "k"), Instant::now());
        let mut open: Vec<i64> = Vec::new();
        let (mut have, mut spent) = (0, 0);
        for (step, amount, cost) in steps {
            match step {
                0 => if take(&mut ledger, amount, true, now).is_ok() { open.push(amount) },
                1 => if let Some(reserved) = open.pop() {
                    ledger.charge(ledger.today(), &caller, LIMITS, reserved, cost);
                    spent += cost;
                },
                _ => { have += amount; drawn(&mut ledger, have, 900, false); }
            }
            for (_, [drawn, paid, reserved]) in ledger.slices() {
                prop_assert_eq!((paid, reserved), (spent, open.iter().sum::<i64>()));
                prop_assert!(drawn == have || drawn == 0);
            }
        }
    }
}
