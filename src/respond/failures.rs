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

/// Code of a turn whose answer did not come to its end.
pub const INTERRUPTED: &str = "interrupted";
/// Code of a turn that took longer than its route allows.
pub const TIME_LIMIT: &str = "time_limit";
/// Code of a failure that this version does not know.
const FAILED: &str = "turn_failed";

const AWAY: &str = "the model's provider does not answer at the moment";
const MENDED: &str = "the model's provider refuses this server; an operator has to mend that";
const OURS: &str = "a part of this service is away at the moment";
const STOPPED: &str = "an operator holds its model or its owner";
const REFUSED: &str = "an operator has switched its model or its owner off";
const CUT: &str = "the answer did not come to its end";

/// Codes, what follows from them, and what an operator reads: a provider's own words may quote what it was asked.
const CODES: &[(&str, Follows, &str)] = &[
    ("provider_capacity", Follows::Wait, AWAY),
    ("provider_rate_limited", Follows::Wait, "the model's provider limits our requests"),
    ("deployment_quota_exceeded", Follows::Wait, "the model is used up to our own limit"),
    ("provider_overloaded", Follows::Wait, AWAY),
    ("provider_error", Follows::Wait, AWAY),
    ("provider_unreachable", Follows::Wait, AWAY),
    ("provider_first_event_timeout", Follows::Wait, AWAY),
    ("provider_silent", Follows::Wait, AWAY),
    ("provider_interrupted", Follows::Wait, AWAY),
    ("provider_protocol_error", Follows::Wait, AWAY),
    ("provider_unavailable", Follows::Wait, AWAY),
    // Nothing an event can help. Until somebody has mended it, thousands of dead letters help nobody either.
    ("provider_spend_limit", Follows::Wait, MENDED),
    ("provider_auth_failed", Follows::Wait, MENDED),
    ("provider_model_not_found", Follows::Wait, MENDED),
    ("database_unavailable", Follows::Wait, OURS),
    ("budget_unavailable", Follows::Wait, OURS),
    ("turns_limit", Follows::Wait, OURS),
    ("turn_lost", Follows::Wait, "its turn is another process's"),
    // An operator's switch, set while the turn began.
    ("model_held", Follows::Wait, STOPPED),
    ("owner_held", Follows::Wait, STOPPED),
    ("feature_held", Follows::Wait, STOPPED),
    ("switches_unknown", Follows::Wait, OURS),
    ("model_refused", Follows::GiveUp, REFUSED),
    ("owner_refused", Follows::GiveUp, REFUSED),
    ("feature_refused", Follows::GiveUp, REFUSED),
    ("conversation_locked", Follows::Queue, "another turn of its conversation runs"),
    ("thread_changed", Follows::Queue, "its conversation changed meanwhile"),
    ("budget_spent", Follows::NextDay, "the day's budget of its owner, its route or the service is spent"),
    (INTERRUPTED, Follows::Again, CUT),
    ("process_lost", Follows::Again, CUT),
    (TIME_LIMIT, Follows::Again, "the answer took longer than the route allows"),
    ("provider_refused_request", Follows::GiveUp, "the model's provider refuses the request"),
    ("unsupported_value", Follows::GiveUp, "the model's provider does not take what the route asks for"),
    ("context_length_exceeded", Follows::GiveUp, "the event is longer than the model's window"),
    (
        "content_filter",
        Follows::GiveUp,
        "the content filter of the model's provider refuses the event or its answer",
    ),
    ("max_output_tokens", Follows::GiveUp, "the answer is longer than max_output_tokens"),
    ("model_not_found", Follows::GiveUp, "there is no such model in colloquy.toml"),
];

/// What follows from a code; the code and a sentence as they are written down. What is not known here is tried again and
/// counts, so that it ends.
pub fn follows(code: &str) -> (&'static str, Follows, &'static str) {
    let known = CODES.iter().find(|(known, ..)| *known == code);
    known.copied().unwrap_or((FAILED, Follows::Again, CUT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ErrorClass;

    #[test]
    fn every_failure_of_a_provider_has_its_consequence() {
        use ErrorClass::*;
        for class in [
            Capacity,
            RateLimited,
            OwnQuota,
            SpendLimit,
            Auth,
            NotFound,
            Overloaded,
            Server,
            Connect,
            FirstEvent,
            Silence,
            Interrupted,
            Protocol,
            Unavailable,
        ] {
            let (code, follows, _) = follows(class.code());
            assert_eq!((code, follows), (class.code(), Follows::Wait));
        }
        for class in [BadRequest, ContentFilter] {
            let (code, follows, _) = follows(class.code());
            assert_eq!((code, follows), (class.code(), Follows::GiveUp));
        }
        assert_eq!(follows("interrupted").1, Follows::Again);
        assert_eq!(follows("of_a_later_version").0, "turn_failed");
    }
}
