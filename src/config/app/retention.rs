//! `[retention]`: how long conversations and turns are kept, for all owners and for single ones.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::budgets::SUBJECT;
use super::shape::{Key, Shape, key};

/// `[retention]`. What it leaves out is kept as the settings say: turns for `RESPONSE_RETENTION`, conversations until
/// they are deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Days after its last turn or change after which a conversation is deleted.
    pub conversations_days: Option<u32>,
    /// Owners with times of their own.
    pub owners: BTreeMap<String, OwnerRetention>,
}

/// The times of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerRetention {
    /// Days from a turn's beginning.
    pub responses_days: Option<u32>,
    pub conversations_days: Option<u32>,
}

impl RetentionConfig {
    /// Owners whose turns have a time of their own, with it.
    pub fn responses(&self) -> Vec<(&str, Duration)> {
        self.owners
            .iter()
            .filter_map(|(owner, of)| Some((owner.as_str(), days(of.responses_days?))))
            .collect()
    }

    /// The same for conversations.
    pub fn conversations(&self) -> Vec<(&str, Duration)> {
        self.owners
            .iter()
            .filter_map(|(owner, of)| Some((owner.as_str(), days(of.conversations_days?))))
            .collect()
    }

    /// Of everybody else's conversations.
    pub fn all_conversations(&self) -> Option<Duration> {
        self.conversations_days.map(days)
    }
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 24 * 3600)
}

const DAYS: Shape = Shape::Whole(1, 36_500);
const ONE: &[Key] = &[key("responses_days", DAYS), key("conversations_days", DAYS)];

pub(super) const RETENTION: &[Key] =
    &[key("conversations_days", DAYS), key("owners", Shape::Named(&SUBJECT, ONE))];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::AppConfig;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn owners_may_have_times_of_their_own() {
        let text = r#"
            [retention]
            conversations_days = 365
            [retention.owners."source:crm"]
            responses_days = 7
        "#;
        let retention = AppConfig::parse(text, None, &[]).unwrap().retention;
        assert_eq!(retention.all_conversations(), Some(365 * DAY));
        assert_eq!(retention.responses(), [("source:crm", 7 * DAY)]);
        assert_eq!(retention.conversations(), []);
        let mistakes =
            AppConfig::parse("[retention]\nconversations_days = 0\nitems = 1", None, &[]).unwrap_err();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    }
}
