//! Budgets: how much of the day's total is spent, which passed a share of their limit, and who was refused for money.

use std::sync::{Mutex, PoisonError};

use jiff::civil::Date;

use super::{Metric, count, gauge};

/// The day whose share stands in the gauge. A gauge keeps its last value.
static SHOWN: Mutex<Option<Date>> = Mutex::new(None);

/// So much of a day's total budget is spent, in micro-units.
pub fn budget_used(day: Date, spent: i64, limit: i64) {
    if limit <= 0 {
        return;
    }
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *shown = Some(day);
    gauge(Metric::BudgetUsed, spent as f64 / limit as f64, &[]);
}

/// What a past day has in the gauge goes: it would stand there, and alert, until somebody spends.
pub fn budget_used_today(today: Date) {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if shown.is_some_and(|day| day < today) {
        *shown = None;
        gauge(Metric::BudgetUsed, 0.0, &[]);
    }
}

/// A budget passed 80 or 100 percent, and no process has told of it.
pub fn budget_passed(scope: &str, percent: u8) {
    count(Metric::BudgetPassed, 1, &[scope, if percent >= 100 { "100" } else { "80" }]);
}

/// A turn was refused because of a budget; `code` is the refusal's stable code.
pub fn budget_refused(code: &str) {
    count(Metric::BudgetRefused, 1, &[code]);
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::telemetry::metrics::prometheus_text;

    #[test]
    fn at_midnight_nothing_of_the_day_before_is_left() {
        let shows = |share: &str| {
            let text = prometheus_text().unwrap();
            assert!(text.contains(&format!("colloquy_budget_used_ratio {share}\n")), "{text}");
        };
        let day = date(2026, 11, 21);
        budget_used(day, 17, 20);
        budget_used_today(day);
        shows("0.85");
        budget_used_today(day.tomorrow().unwrap());
        shows("0");
        // A budget of nothing has no share.
        budget_used(day, 1, 0);
        shows("0");
    }
}
