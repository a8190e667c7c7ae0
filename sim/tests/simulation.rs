//! Every workload under every kind of fault, for a few seeds each; and that a run follows from its seed alone.
//!
//! Thousands of seeds: `cargo run --release -p tikv-sim -- run --seeds 0..10000`.

use std::process::Command;

use tikv_core::rng::Rng;
use tikv_sim::simulate::{FaultSet, Plan, Scenario, WorkloadKind, simulate, simulate_with_trace};

const SEEDS: u64 = 4;
const TRANSACTIONS: u32 = 40;

fn plan(workload: WorkloadKind, faults: FaultSet) -> Plan {
    Plan { workload: Some(workload), faults, transactions: TRANSACTIONS }
}

fn assert_holds(workload: WorkloadKind, faults: FaultSet) {
    for seed in 0..SEEDS {
        let report = simulate(&Scenario::draw(seed, &plan(workload, faults)));
        assert_eq!(
            report.violation, None,
            "see `tikv-sim replay {seed} --workload {workload} --faults {faults} --transactions {TRANSACTIONS}`"
        );
    }
}

macro_rules! holds_whatever_goes_wrong {
    ($($test:ident: $workload:ident;)+) => {$(
        #[test]
        fn $test() {
            assert_holds(WorkloadKind::$workload, FaultSet::ALL);
        }
    )+};
}

holds_whatever_goes_wrong! {
    money_is_neither_made_nor_lost: Bank;
    registers_are_linear: Register;
    lists_grow_at_their_ends: Append;
    readers_agree_on_the_order_of_writes: LongFork;
    locked_reads_keep_off_write_skew: WriteSkew;
    the_ring_stays_whole: Cycle;
    what_is_inserted_was_absent: Insert;
    large_transactions_are_atomic: Large;
    work_is_done_once: Queue;
    raw_keys_are_linear: Raw;
}

#[test]
fn without_faults_nothing_fails_but_for_conflicts() {
    for workload in WorkloadKind::ALL {
        assert_holds(*workload, FaultSet::NONE);
    }
}

#[test]
fn a_run_follows_from_its_scenario() {
    for workload in WorkloadKind::ALL {
        let scenario = Scenario::draw(11, &plan(*workload, FaultSet::ALL));
        let (first, second) = (simulate_with_trace(&scenario), simulate_with_trace(&scenario));
        for (one, other) in first.trace.iter().zip(&second.trace) {
            assert_eq!(one, other, "{workload}");
        }
        assert_eq!(first, second, "{workload}");
        let bare = simulate(&scenario);
        assert_eq!(bare.trace_hash, first.trace_hash, "whether the trace is kept makes no difference");
        assert_eq!(bare.totals, first.totals);
    }
}

#[test]
fn a_run_in_another_process_is_the_same() {
    for (seed, workload) in (20..).zip([WorkloadKind::Bank, WorkloadKind::Large, WorkloadKind::Raw]) {
        let report = simulate(&Scenario::draw(seed, &plan(workload, FaultSet::ALL)));
        let replay = Command::new(env!("CARGO_BIN_EXE_tikv-sim"))
            .args(["replay", &seed.to_string(), "--workload", workload.name()])
            .args(["--transactions", &TRANSACTIONS.to_string(), "--quiet"])
            .output()
            .expect("the binary runs");
        let printed = String::from_utf8_lossy(&replay.stdout);
        assert_eq!(printed.lines().next(), Some(format!("trace {:016x}", report.trace_hash).as_str()), "seed {seed}");
    }
}

#[test]
fn another_seed_is_another_run() {
    let hash = |seed| simulate(&Scenario::draw(seed, &plan(WorkloadKind::Bank, FaultSet::NONE))).trace_hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_scenario_that_was_written_down_runs_as_it_did() {
    let scenario = Scenario::draw(5, &plan(WorkloadKind::Cycle, FaultSet::ALL));
    let read = Scenario::from_bytes(&scenario.to_bytes());
    assert_eq!(simulate(&read), simulate(&scenario));
}

#[test]
fn whatever_bytes_say_is_a_scenario_in_which_all_rules_hold() {
    let mut rng = Rng::new(1);
    for _ in 0..20 {
        let length = rng.below(400);
        let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
        let mut scenario = Scenario::from_bytes(&bytes);
        // So that it does not take too long.
        let options = &mut scenario.options;
        options.transactions = TRANSACTIONS;
        options.keys %= 64;
        let scenario = Scenario::from_bytes(&scenario.to_bytes());
        assert_eq!(simulate(&scenario).violation, None, "{scenario}");
    }
}
