//! `[budgets]`: what may be spent in a UTC day.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::shape::{Form, Key, Shape, key, required};

/// `[budgets]`, in micro-units of the currency that prices are in. Absent is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetsConfig {
    /// Of everybody together.
    pub total: Option<u64>,
    /// Of each owner without an entry of its own.
    pub each_owner: Option<u64>,
    /// Of each key without an entry or a limit of its own.
    pub each_key: Option<u64>,
    pub owners: BTreeMap<String, BudgetConfig>,
    pub keys: BTreeMap<String, BudgetConfig>,
}

/// A budget of one owner or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    pub per_day: u64,
}

pub(super) const SUBJECT: Form = Form {
    expected: "an owner, or the name of a key",
    fits: |text| !text.trim().is_empty() && text.len() <= 512,
    stand_in: "name",
};

const ONE: &[Key] = &[required("per_day", Shape::Money)];

pub(super) const BUDGETS: &[Key] = &[
    key("total", Shape::Money),
    key("each_owner", Shape::Money),
    key("each_key", Shape::Money),
    key("owners", Shape::Named(&SUBJECT, ONE)),
    key("keys", Shape::Named(&SUBJECT, ONE)),
];

#[cfg(test)]
mod tests {
    use crate::config::AppConfig;

    #[test]
    fn amounts_are_money_a_day() {
        let text = r#"
            [budgets]
            total = 100
            each_owner = "2.5"
            [budgets.owners."https://issuer.test|ada"]
            per_day = "0.000001"
        "#;
        let budgets = AppConfig::parse(text, None, &[]).unwrap().budgets;
        assert_eq!((budgets.total, budgets.each_owner), (Some(100_000_000), Some(2_500_000)));
        assert_eq!(budgets.owners["https://issuer.test|ada"].per_day, 1);
        let mistakes = AppConfig::parse("[budgets]\ntotal = \"much\"\nhourly = 1", None, &[]).unwrap_err();
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    }
}
