//! What is left to chance, drawn from one seed: the same seed gives the same plan. When things happen beside one another
//! is still the machine's.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Everything random of one run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub turns: usize,
}

impl Plan {
    /// `COLLOQUY_FAULT_SEED`, or another seed each time, and `COLLOQUY_FAULT_TURNS`.
    pub fn read() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
        let seed = number("COLLOQUY_FAULT_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let turns =
            number("COLLOQUY_FAULT_TURNS").and_then(|turns| usize::try_from(turns).ok()).unwrap_or(60);
        println!("COLLOQUY_FAULT_SEED={seed} COLLOQUY_FAULT_TURNS={turns}");
        Self { seed, turns }
    }

    /// The plan of a round of several.
    pub fn round(self, number: usize) -> Self {
        Self { seed: u64::from(self.dice("round of several", number).random::<u32>()), ..self }
    }

    /// For a test that needs no other than its own.
    pub fn fixed() -> Self {
        Self { seed: 0, turns: 0 }
    }

    /// Dice for one thing, which no other thing's throws change.
    pub fn dice(self, purpose: &str, number: usize) -> StdRng {
        let mut hasher = DefaultHasher::new();
        (self.seed, purpose, number).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    /// Turns at the same time: more of them where there are more in all, and few enough for many faults to happen.
    pub fn at_once(self) -> usize {
        (self.turns / 10).clamp(12, 24)
    }
}

/// A pause, so that what follows hits whatever is under way.
pub async fn moment(dice: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(dice.random_range(200..1_500))).await;
}
