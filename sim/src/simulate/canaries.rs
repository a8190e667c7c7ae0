//! Can the checks see? Clients that make one mistake on purpose, until a check notices.

use std::ops::Range;

use tikv_core::canary::Canary;

use super::Runner;
use super::check::Broken;
use super::scenario::{Plan, Scenario};

/// A mistake that was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// The seed with which it was.
    pub seed: u64,
    /// How many seeds it took.
    pub seeds: u64,
    /// What it broke.
    pub violation: Broken,
}

/// Has all clients but the auditor make a mistake, one seed after the other, until a check notices. `None` if none does.
#[must_use]
pub fn hunt(canary: Canary, seeds: Range<u64>, plan: &Plan) -> Option<Caught> {
    let first = seeds.start;
    seeds.into_iter().find_map(|seed| {
        let runner = Runner { canary: Some(canary), ..Runner::default() };
        let violation = runner.run(&Scenario::draw(seed, plan)).violation?;
        Some(Caught { seed, seeds: seed - first + 1, violation })
    })
}
