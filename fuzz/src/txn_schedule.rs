//! Transactions under a schedule of faults.
//!
//! ```text
//! workload (1 byte), seed (8 bytes), injections (17 bytes each, as `Injection::to_bytes` writes them)
//! ```

use tikv_sim::simulate::{Injection, Options, Plan, Scenario, WorkloadKind, simulate};

/// Most faults.
const MAX_FAULTS: usize = 64;
/// Transactions: a short run is worth more than a long one, since inputs that differ a little then differ in what happens.
const TRANSACTIONS: u32 = 40;

/// Runs the scenario that the bytes describe; whatever rule is broken has been found. The options are those of the seed, since
/// settings that no one would choose make operations fail for reasons that are no faults.
pub fn txn_schedule(data: &[u8]) {
    let scenario = scenario(data);
    let report = simulate(&scenario);
    assert!(report.violation.is_none(), "{:?}\n{scenario}", report.violation);
}

fn scenario(data: &[u8]) -> Scenario {
    let (head, faults) = data.split_at(data.len().min(9));
    let mut bytes = [0; 9];
    bytes[..head.len()].copy_from_slice(head);
    let [workload, seed @ ..] = bytes;
    let workload = WorkloadKind::ALL[usize::from(workload) % WorkloadKind::ALL.len()];
    let plan = Plan { workload: Some(workload), transactions: TRANSACTIONS, ..Plan::default() };
    let mut scenario = Scenario::draw(u64::from_le_bytes(seed), &plan);
    scenario.faults = Injection::all_of_bytes(faults).take(MAX_FAULTS).collect();
    let Options { keys, regions, .. } = &mut scenario.options;
    (*keys, *regions) = ((*keys).min(64), (*regions).min(8));
    scenario
}
