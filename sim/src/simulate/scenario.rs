//! All that a run depends on, as data: drawn from a seed, written as bytes, cut by whoever wants it smaller.

use std::fmt;

use tikv_core::rng::Rng;

use super::faults::{FaultKind, FaultSet, Injection};
use super::options::{Options, log_uniform};
use super::workload::WorkloadKind;

/// All that a run depends on. Equal scenarios give equal runs.
///
/// ```
/// use tikv_sim::simulate::{FaultSet, Plan, Scenario};
///
/// let scenario = Scenario::draw(7, &Plan { faults: FaultSet::ALL, ..Plan::default() });
/// assert_eq!(Scenario::from_bytes(&scenario.to_bytes()), scenario);
/// // Any bytes are a scenario, as a fuzzer wants it.
/// Scenario::from_bytes(b"anything");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scenario {
    /// All that is random in the run, but for the options and the faults, follows from this.
    pub seed: u64,
    /// What clients do.
    pub workload: WorkloadKind,
    /// What the run is like.
    pub options: Options,
    /// What goes wrong, in any order. Nothing else does.
    pub faults: Vec<Injection>,
}

/// What scenarios to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What clients do; `None` for one that follows from the seed.
    pub workload: Option<WorkloadKind>,
    /// What may go wrong. Of these each scenario has some only, each with a weight of its own.
    pub faults: FaultSet,
    /// Transactions in a run.
    pub transactions: u32,
}

impl Default for Plan {
    /// Any workload, all faults, [`Options::DEFAULT_TRANSACTIONS`].
    fn default() -> Self {
        Plan { workload: None, faults: FaultSet::ALL, transactions: Options::DEFAULT_TRANSACTIONS }
    }
}

/// Most injections in a scenario.
const MAX_INJECTIONS: usize = 1024;
/// Most injections that are drawn.
const MAX_DRAWN: u32 = 100;

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn draw(seed: u64, plan: &Plan) -> Self {
        let mut rng = Rng::new(seed);
        let any = WorkloadKind::ALL[rng.below(WorkloadKind::ALL.len() as u64) as usize];
        let workload = plan.workload.unwrap_or(any);
        let mut options = Options::draw(&mut rng.child(), workload, !plan.faults.is_empty());
        options.transactions = plan.transactions.max(1);
        let faults = draw_faults(&mut rng.child(), &options, plan.faults);
        Scenario { seed, workload, options, faults }
    }

    /// The same with those faults only whose places in the list are named.
    #[must_use]
    pub fn keeping(mut self, kept: &[usize]) -> Self {
        self.faults = kept.iter().filter_map(|index| self.faults.get(*index).copied()).collect();
        self
    }

    /// As bytes, which [`Scenario::from_bytes`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.push(self.workload as u8);
        bytes.extend(self.options.words().iter().flat_map(|word| word.to_le_bytes()));
        for fault in self.faults.iter().take(MAX_INJECTIONS) {
            bytes.extend(fault.to_bytes());
        }
        bytes
    }

    /// The scenario that the bytes describe. All bytes do: what is missing is zero, what is out of bounds is brought within.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut bytes = Reader(bytes);
        let seed = u64::from_le_bytes(bytes.take());
        let [workload] = bytes.take();
        let options = Options::of_words(std::array::from_fn(|_| u32::from_le_bytes(bytes.take())));
        let faults = Injection::all_of_bytes(bytes.0).take(MAX_INJECTIONS).collect();
        Scenario { seed, workload: WorkloadKind::ALL[usize::from(workload) % WorkloadKind::ALL.len()], options, faults }
    }
}

impl fmt::Display for Scenario {
    /// Several lines: the workload, the options, each fault with its place in the list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, workload {}", self.seed, self.workload)?;
        writeln!(f, "{}", self.options)?;
        for (index, fault) in self.faults.iter().enumerate() {
            writeln!(f, "fault {index}: {fault}")?;
        }
        Ok(())
    }
}

/// A swarm: some kinds of faults only, some of them much more often than others, many or few, long or short.
fn draw_faults(rng: &mut Rng, options: &Options, set: FaultSet) -> Vec<Injection> {
    let kinds: Vec<FaultKind> = set.kinds().filter(|_| rng.below(3) > 0).collect();
    let weights: Vec<u64> = kinds.iter().map(|_| log_uniform(rng, 1, 64).into()).collect();
    let total = weights.iter().sum();
    if total == 0 {
        return Vec::new();
    }
    let longest_us = log_uniform(rng, 1_000, Injection::MAX_DURATION_US);
    let horizon_us = options.expected_us() * (1 + rng.below(4)) / 4;
    let horizon_us = u32::try_from(horizon_us).unwrap_or(u32::MAX).max(10_000);
    let count = log_uniform(rng, 1, MAX_DRAWN);
    let mut faults: Vec<Injection> = (0..count)
        .map(|_| {
            let mut place = rng.below(total);
            let index = weights.iter().position(|weight| {
                let found = place < *weight;
                place = place.saturating_sub(*weight);
                found
            });
            draw_fault(rng, kinds[index.unwrap_or_default()], horizon_us, longest_us)
        })
        .collect();
    faults.sort();
    faults
}

fn draw_fault(rng: &mut Rng, kind: FaultKind, horizon_us: u32, longest_us: u32) -> Injection {
    let least = match kind {
        FaultKind::Loss
        | FaultKind::Duplication
        | FaultKind::Undetermined
        | FaultKind::Busy
        | FaultKind::RegionErrors => 10,
        FaultKind::Delay | FaultKind::StoreSlow => 100,
        _ => 1,
    };
    let amount = match kind.max_amount() {
        0 => 0,
        most => log_uniform(rng, least, most),
    };
    Injection {
        at_us: rng.below(horizon_us.into()) as u32,
        kind,
        duration_us: log_uniform(rng, 100, longest_us),
        target: rng.next_u64() as u16,
        other: rng.next_u64() as u16,
        amount,
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let (head, rest) = self.0.split_at(self.0.len().min(N));
        taken[..head.len()].copy_from_slice(head);
        self.0 = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_survives_its_bytes() {
        for seed in 0..500 {
            let scenario = Scenario::draw(seed, &Plan::default());
            assert_eq!(Scenario::from_bytes(&scenario.to_bytes()), scenario, "seed {seed}");
        }
    }

    #[test]
    fn any_bytes_are_a_scenario_that_survives_its_own() {
        let mut rng = Rng::new(3);
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
            let scenario = Scenario::from_bytes(&bytes);
            assert_eq!(Scenario::from_bytes(&scenario.to_bytes()), scenario);
        }
    }

    #[test]
    fn nothing_goes_wrong_unless_it_may() {
        for seed in 0..100 {
            let none = Scenario::draw(seed, &Plan { faults: FaultSet::NONE, ..Plan::default() });
            assert!(none.faults.is_empty());
            let splits = FaultSet::NONE.with(FaultKind::Split);
            let some = Scenario::draw(seed, &Plan { faults: splits, ..Plan::default() });
            assert!(some.faults.iter().all(|fault| fault.kind == FaultKind::Split));
        }
    }

    #[test]
    fn a_schedule_can_be_cut() {
        let seed = (0..).find(|seed| Scenario::draw(*seed, &Plan::default()).faults.len() > 3).unwrap_or(0);
        let whole = Scenario::draw(seed, &Plan::default());
        let cut = whole.clone().keeping(&[2, 0, 9_999]);
        assert_eq!(cut.faults, [whole.faults[2], whole.faults[0]]);
        assert_eq!(cut.options, whole.options);
    }
}
