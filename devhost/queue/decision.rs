//! What happens to a message, by its dequeue count.

/// Before it is run.
#[derive(Debug, PartialEq, Eq)]
pub enum Pickup {
    Invoke,
    Poison(&'static str),
}

/// After it was run, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Delete,
    /// Visible again after `visibilityTimeout`.
    Release,
    Poison,
}

pub fn at_pickup(dequeue_count: u32, max_dequeue_count: u32, decoded: bool) -> Pickup {
    if !decoded {
        Pickup::Poison("it is not base64 of UTF-8 (messageEncoding)")
    } else if dequeue_count > max_dequeue_count {
        Pickup::Poison("its dequeue count is above maxDequeueCount")
    } else {
        Pickup::Invoke
    }
}

pub fn after_run(success: bool, dequeue_count: u32, max_dequeue_count: u32) -> After {
    if success {
        After::Delete
    } else if dequeue_count >= max_dequeue_count {
        After::Poison
    } else {
        After::Release
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_make_poison() {
        let fates: Vec<After> = (1..=5).map(|count| after_run(false, count, 5)).collect();
        assert_eq!(fates, [After::Release, After::Release, After::Release, After::Release, After::Poison]);
        assert_eq!(after_run(true, 5, 5), After::Delete);
    }

    #[test]
    fn above_the_limit_or_undecodable_is_never_run() {
        assert_eq!(at_pickup(5, 5, true), Pickup::Invoke);
        assert!(matches!(at_pickup(6, 5, true), Pickup::Poison(_)));
        assert!(matches!(at_pickup(1, 5, false), Pickup::Poison(_)));
    }
}
