//! Can the checks see? Clients that make one mistake on purpose, until a check notices.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tikv_core::canary::Canary;

use super::check::{Broken, Rule};
use super::scenario::{Plan, Scenario};
use super::world::World;

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
        let violation = run(canary, &Scenario::draw(seed, plan))?;
        Some(Caught { seed, seeds: seed - first + 1, violation })
    })
}

fn run(canary: Canary, scenario: &Scenario) -> Option<Broken> {
    let mut config = scenario.options.config();
    config.canary = Some(canary);
    // What a mistake leads to may be a panic.
    let report = catch_unwind(AssertUnwindSafe(|| World::new(scenario, config, false).run()));
    match report {
        Ok(report) => report.violation,
        Err(_) => Some(Broken { rule: Rule::NoPanic, detail: "a panic".to_owned() }),
    }
}
