//! The kept inputs, as they are and slightly changed: what `scripts/fuzz` found once is not found again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{TARGETS, run};

/// How often each input is changed. `scripts/fuzz` changes them for as long as one likes, and knows where that leads.
const CHANGES: u64 = 60;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let corpus = folder("corpus").join(name);
    let files = std::fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut inputs: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below.max(1)).unwrap()).unwrap()
    }
}

fn changed(input: &[u8], others: &[(String, Vec<u8>)], numbers: &mut Numbers) -> Vec<u8> {
    let mut data = input.to_vec();
    for _ in 0..=numbers.next(3) {
        let at = numbers.next(data.len() + 1);
        match numbers.next(6) {
            0 => data.truncate(at),
            1 => data.insert(at, b"\"\\{}[]:,\0\n\xff.%0"[numbers.next(14)]),
            2 if at < data.len() => data[at] ^= 1 << numbers.next(8),
            3 if at < data.len() => drop(data.remove(at)),
            4 => {
                let (from, to) = (at.min(data.len()), (at + numbers.next(16)).min(data.len()));
                let piece = data[from..to].to_vec();
                data.splice(from..from, piece);
            }
            _ => {
                let (_, other) = &others[numbers.next(others.len())];
                data.truncate(at);
                data.extend_from_slice(&other[numbers.next(other.len() + 1)..]);
            }
        }
    }
    data
}

fn replay(name: &str) {
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name}: no inputs are kept");
    for (seed, (_, input)) in (1..).zip(&inputs) {
        run(name, input);
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ seed);
        for _ in 0..CHANGES {
            run(name, &changed(input, &inputs, &mut numbers));
        }
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_has_inputs_and_a_program() {
            let wanted: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(BTreeSet::from([$(stringify!($name)),*]), wanted);
            let found = |under: &str| -> BTreeSet<String> {
                let entries = std::fs::read_dir(folder(under)).unwrap().map(|entry| entry.unwrap().path());
                entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
            };
            let wanted: BTreeSet<String> = wanted.into_iter().map(str::to_owned).collect();
            assert_eq!(found("corpus"), wanted);
            assert_eq!(found("fuzz_targets"), wanted);
        }
    };
}

replayed!(
    signatures deliveries envelopes messages streams websocket requests chat headers tokens templates schemas addresses
    configuration settings
);
