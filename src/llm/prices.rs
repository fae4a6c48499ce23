//! What tokens cost, in whole micro-units of the deployment's currency.

use super::TokenUsage;
use crate::config::app::PriceConfig;

/// Micro-units per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    pub input: u64,
    pub cached_input: u64,
    pub cache_write: u64,
    pub output: u64,
}

impl From<PriceConfig> for Price {
    fn from(config: PriceConfig) -> Self {
        let input = config.input.unwrap_or(0);
        Self {
            input,
            cached_input: config.cached_input.unwrap_or(input),
            cache_write: config.cache_write.unwrap_or(input),
            output: config.output.unwrap_or(0),
        }
    }
}

/// The cost of one attempt: the exact sum over the classes of tokens, rounded up once.
pub fn cost(usage: &TokenUsage, price: &Price) -> i64 {
    let plain = usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_written);
    let parts = [
        (plain, price.input),
        (usage.cached, price.cached_input),
        (usage.cache_written, price.cache_write),
        (usage.output, price.output),
    ];
    let sum: u128 = parts.iter().map(|(tokens, each)| u128::from(*tokens) * u128::from(*each)).sum();
    i64::try_from(sum.div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_class_has_its_price_and_the_sum_is_rounded_up_once() {
        let price =
            Price { input: 2_500_000, cached_input: 1_250_000, cache_write: 3_125_000, output: 10_000_000 };
        let usage = TokenUsage { input: 1_000, cached: 400, cache_written: 100, output: 50, reasoning: 40 };
        assert_eq!(cost(&usage, &price), 500 * 5 / 2 + 400 * 5 / 4 + 313 + 50 * 10);
        assert_eq!(
            cost(&TokenUsage { input: 1, ..TokenUsage::default() }, &Price { input: 1, ..Price::default() }),
            1
        );
        assert_eq!(cost(&usage, &Price::default()), 0);
        let huge = TokenUsage { output: u64::MAX, ..TokenUsage::default() };
        assert_eq!(cost(&huge, &price), i64::MAX);
        let odd = TokenUsage { input: 1, cached: 5, ..TokenUsage::default() };
        assert_eq!(cost(&odd, &price), 7);
    }

    proptest! {
        #[test]
        fn one_attempt_never_costs_more_than_its_halves(
            input in 0u64..1_000_000, output in 0u64..1_000_000, each in 0u64..100_000_000, out in 0u64..100_000_000,
        ) {
            let price = Price { input: each, output: out, ..Price::default() };
            let usage = |input, output| TokenUsage { input, output, ..TokenUsage::default() };
            let whole = cost(&usage(input, output), &price);
            let halves = cost(&usage(input, 0), &price) + cost(&usage(0, output), &price);
            prop_assert!(whole <= halves && halves - whole <= 1);
        }
    }
}
