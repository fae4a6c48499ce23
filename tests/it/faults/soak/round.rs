//! What a round came to, and all of them together.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One round's account.
#[derive(Debug, Default)]
pub struct Round {
    pub name: &'static str,
    /// Events and turns.
    pub offered: i64,
    /// Of these, those that somebody was told are taken.
    pub accepted: i64,
    /// Of these, those whose effect is there, once and as it was told.
    pub once: i64,
    /// Of these, those whose effect is there more than once.
    pub doubled: i64,
    /// Refusals by what was said.
    pub refused: BTreeMap<String, usize>,
    /// Whose memory, and how much of it at the start and at the end, in KiB.
    pub memory: Vec<(String, i64, i64)>,
    /// What went wrong, in order.
    pub happened: String,
    /// How often health was asked for.
    pub probes: usize,
    /// What does not balance, lies included.
    pub faults: Vec<String>,
    /// All of it in words.
    pub text: String,
}

impl Round {
    /// What was accepted and came to nothing.
    fn lost(&self) -> i64 {
        self.accepted - self.once - self.doubled
    }
}

/// Refusals that say what is wrong: all but those of a host without a handler, which are its own.
pub fn refusals(refused: &BTreeMap<String, usize>) -> (usize, usize) {
    let (of_hosts, clear): (Vec<_>, Vec<_>) =
        refused.iter().partition(|(said, _)| said.starts_with("the host's"));
    let count = |of: Vec<(&String, &usize)>| of.into_iter().map(|(_, count)| count).sum();
    (count(clear), count(of_hosts))
}

/// All rounds.
#[derive(Default)]
pub struct Sum {
    rounds: Vec<(usize, u64, Round)>,
}

impl Sum {
    pub fn add(&mut self, number: usize, seed: u64, round: Round) {
        self.rounds.push((number, seed, round));
    }

    pub fn balances(&self) -> bool {
        self.rounds
            .iter()
            .all(|(_, _, round)| round.lost() == 0 && round.doubled == 0 && round.faults.is_empty())
    }

    pub fn faults(&self) -> String {
        let faults = self.rounds.iter().flat_map(|(number, seed, round)| {
            round.faults.iter().take(10).map(move |fault| format!("round {number}, seed {seed}: {fault}\n"))
        });
        faults.collect()
    }

    /// The ledger.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{:<5} {:<14} {:>11} {:>8} {:>8} {:>9} {:>6} {:>8} {:>8} {:>7} {:>6}\n",
            "round",
            "campaign",
            "seed",
            "offered",
            "accepted",
            "once",
            "lost",
            "doubled",
            "refused",
            "probes",
            "faults"
        );
        let mut total = Round::default();
        for (number, seed, round) in &self.rounds {
            let refused: usize = round.refused.values().sum();
            writeln!(
                table,
                "{number:<5} {:<14} {seed:>11} {:>8} {:>8} {:>9} {:>6} {:>8} {refused:>8} {:>7} {:>6}",
                round.name,
                round.offered,
                round.accepted,
                round.once,
                round.lost(),
                round.doubled,
                round.probes,
                round.faults.len()
            )
            .expect("text");
            total.offered += round.offered;
            total.accepted += round.accepted;
            total.once += round.once;
            total.doubled += round.doubled;
            total.probes += round.probes;
            total.faults.extend(round.faults.iter().cloned());
            for (said, count) in &round.refused {
                *total.refused.entry(said.clone()).or_default() += count;
            }
        }
        let (clear, of_hosts) = refusals(&total.refused);
        write!(
            table,
            "offered {}, accepted {}, done once {}, lost {}, doubled {}\n\
             refused with a clear error {clear}, by a host without a handler {of_hosts}: {:?}\n\
             asked how they are {} times; answers that were not true, and all else that is wrong: {}\n",
            total.offered,
            total.accepted,
            total.once,
            total.lost(),
            total.doubled,
            total.refused,
            total.probes,
            total.faults.len()
        )
        .expect("text");
        for (number, _, round) in &self.rounds {
            if !round.happened.is_empty() {
                writeln!(table, "round {number}: {}", round.happened).expect("text");
            }
            for (who, start, end) in &round.memory {
                writeln!(
                    table,
                    "round {number}: memory of {who}: {start} KiB at the start, {end} KiB at the end"
                )
                .expect("text");
            }
        }
        table
    }
}
