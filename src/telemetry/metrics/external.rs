//! Systems of others: whether they answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::{Metric, count, gauge};

/// A kind of system that somebody else runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// A model deployment.
    Model,
    /// A consumer of callbacks.
    Callback,
    /// Where SailPoint takes the outcome of an invocation.
    Sailpoint,
    /// Where keys that sign tokens are published.
    SigningKeys,
}

impl System {
    fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Callback => "callback",
            Self::Sailpoint => "sailpoint",
            Self::SigningKeys => "signing_keys",
        }
    }
}

/// Failures in a row, where there are any.
static FAILING: LazyLock<Mutex<HashMap<(System, String), u32>>> = LazyLock::new(Mutex::default);
/// How many entries that has: a success usually has nothing to undo.
static ENTRIES: AtomicUsize = AtomicUsize::new(0);

/// A call ended. `name` comes from configuration; `failure` is the stable code of what the system, or the way to it, is
/// to blame for.
pub fn external(system: System, name: &str, failure: Option<&str>) {
    if failure.is_none() && ENTRIES.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut failing = FAILING.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (system, name.to_owned());
    let in_a_row = match failure {
        Some(code) => {
            count(Metric::ExternalErrors, 1, &[system.as_str(), name, code]);
            let in_a_row = failing.entry(key).or_default();
            *in_a_row = in_a_row.saturating_add(1);
            *in_a_row
        }
        None if failing.remove(&key).is_some() => 0,
        None => return,
    };
    ENTRIES.store(failing.len(), Ordering::Relaxed);
    gauge(Metric::ExternalFailing, f64::from(in_a_row), &[system.as_str(), name]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::prometheus_text;

    #[test]
    fn failures_are_counted_in_a_row_until_a_call_succeeds() {
        let failing = || {
            let text = prometheus_text().unwrap();
            let line = text.lines().find(|line| {
                line.starts_with("colloquy_external_failing") && line.contains("name=\"external-test\"")
            });
            line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.to_owned())
        };
        external(System::Callback, "external-test", None);
        assert_eq!(failing(), None);
        external(System::Callback, "external-test", Some("timeout"));
        external(System::Callback, "external-test", Some("connect_failed"));
        external(System::Model, "external-test-other", Some("timeout"));
        assert_eq!(failing().as_deref(), Some("2"));
        external(System::Callback, "external-test", None);
        assert_eq!(failing().as_deref(), Some("0"));
        let text = prometheus_text().unwrap();
        let counted = |code: &str| {
            text.lines().any(|line| {
                line.starts_with("colloquy_external_errors_total")
                    && line.contains(&format!("code=\"{code}\""))
                    && line.contains("system=\"callback\"")
                    && line.ends_with(" 1")
            })
        };
        assert!(counted("timeout") && counted("connect_failed"), "{text}");
    }
}
