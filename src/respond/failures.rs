//! What follows from a turn that failed, by the code it failed with.

/// What becomes of the event's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Something it needs is away: it waits, with growing delay, and no attempt counts.
    Wait,
    /// Another turn of the conversation runs: it waits its turn.
    Queue,
    /// The day's budget is spent: it waits for the next day's.
    NextDay,
    /// It may do better; the attempt counts.
    Again,
    /// No attempt will do better.
    GiveUp,
}

/// Codes, and what follows from them.
const CODES: &[(&str, Follows)] = &[
    // The provider, or the way to it. Also its refusal of our key or of its own bill: an operator mends those, and until
    // then thousands of dead letters help nobody.
    ("provider_capacity", Follows::Wait),
    ("provider_rate_limited", Follows::Wait),
    ("deployment_quota_exceeded", Follows::Wait),
    ("provider_spend_limit", Follows::Wait),
    ("provider_auth_failed", Follows::Wait),
    ("provider_model_not_found", Follows::Wait),
    ("provider_overloaded", Follows::Wait),
    ("provider_error", Follows::Wait),
    ("provider_unreachable", Follows::Wait),
    ("provider_first_event_timeout", Follows::Wait),
    ("provider_silent", Follows::Wait),
    ("provider_interrupted", Follows::Wait),
    ("provider_protocol_error", Follows::Wait),
    ("provider_unavailable", Follows::Wait),
    // Our own parts.
    ("database_unavailable", Follows::Wait),
    ("budget_unavailable", Follows::Wait),
    ("turns_limit", Follows::Wait),
    ("conversation_locked", Follows::Queue),
    ("thread_changed", Follows::Queue),
    ("budget_spent", Follows::NextDay),
    ("interrupted", Follows::Again),
    ("time_limit", Follows::Again),
    ("provider_refused_request", Follows::GiveUp),
    ("unsupported_value", Follows::GiveUp),
    ("context_length_exceeded", Follows::GiveUp),
    ("content_filter", Follows::GiveUp),
    ("max_output_tokens", Follows::GiveUp),
    ("model_not_found", Follows::GiveUp),
];

/// What follows from a code, and the code as it is written down. What is not known here is tried again and counts, so
/// that it ends.
pub fn follows(code: &str) -> (&'static str, Follows) {
    let known = CODES.iter().find(|(known, _)| *known == code);
    known.copied().unwrap_or(("turn_failed", Follows::Again))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ErrorClass;

    #[test]
    fn every_failure_of_a_provider_has_its_consequence() {
        use ErrorClass::*;
        for class in [
            Capacity, RateLimited, OwnQuota, SpendLimit, Auth, NotFound, Overloaded, Server, Connect, FirstEvent,
            Silence, Interrupted, Protocol, Unavailable,
        ] {
            assert_eq!(follows(class.code()), (class.code(), Follows::Wait));
        }
        for class in [BadRequest, ContentFilter] {
            assert_eq!(follows(class.code()), (class.code(), Follows::GiveUp));
        }
        assert_eq!(follows("interrupted").1, Follows::Again);
        assert_eq!(follows("of_a_later_version"), ("turn_failed", Follows::Again));
    }
}
