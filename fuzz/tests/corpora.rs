//! Replays the corpora on stable Rust, and a fixed number of random inputs.

use std::fs;
use std::path::Path;

use tikv_core::rng::Rng;
use tikv_fuzz::TARGETS;

#[test]
fn every_input_of_the_corpora_passes() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs: Vec<_> =
            fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            target(&fs::read(&input).expect("an input"));
        }
    }
}

#[test]
fn random_inputs_pass() {
    let mut rng = Rng::new(1);
    for (name, target) in TARGETS {
        for _ in 0..runs(name) {
            let len = rng.below(96);
            let input: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
            target(&input);
        }
    }
}

/// A story of hostile servers or of faults is told in milliseconds, not microseconds.
fn runs(name: &str) -> usize {
    if matches!(name, "hostile_server" | "txn_schedule") { 40 } else { 500 }
}
