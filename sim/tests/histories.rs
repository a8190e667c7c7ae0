//! What clients of simulated runs could tell, judged by a checker that knows nothing of the simulation: `adya` infers the
//! dependencies between transactions from what they read and wrote, and looks for the cycles that an isolation level forbids.

use adya::{History, Opts, Report, Valid, Workload};
use tikv_sim::simulate::{FaultSet, Plan, Runner, Scenario, WorkloadKind};

/// What TiKV promises: snapshots, and that what begins after something was acknowledged sees it.
const PROMISED: &str = "strong-snapshot-isolation";

fn check(history: &str, workload: Workload, model: &str) -> Report {
    let history = History::from_json(history).expect("a history that can be read");
    let opts = Opts {
        models: vec![model.to_owned()],
        // A transaction's write follows what it has read, and a register's values follow one another in real time.
        wfr_keys: true,
        linearizable_keys: true,
        timeout: std::time::Duration::from_secs(60),
        ..Opts::default()
    };
    adya::check(&history, workload, &opts)
}

fn history(seed: u64, kind: WorkloadKind, faults: FaultSet) -> String {
    let plan = Plan { workload: Some(kind), faults, transactions: 80 };
    let report = Runner { history: true, ..Runner::default() }.run(&Scenario::draw(seed, &plan));
    assert_eq!(report.violation, None, "seed {seed}");
    report.history.expect("a history")
}

#[track_caller]
fn assert_valid(report: &Report, seed: u64) {
    assert_eq!(report.valid, Valid::True, "seed {seed}: {:?} {:#?}", report.anomaly_types, report.anomalies);
}

#[test]
fn lists_under_faults_are_snapshot_isolated_for_whoever_only_sees_what_clients_see() {
    for seed in 0..4 {
        assert_valid(&check(&history(seed, WorkloadKind::Append, FaultSet::ALL), Workload::ListAppend, PROMISED), seed);
    }
}

#[test]
fn registers_under_faults_are_strictly_serializable_since_each_transaction_has_one_key() {
    for seed in 0..4 {
        let history = history(seed, WorkloadKind::Register, FaultSet::ALL);
        assert_valid(&check(&history, Workload::RwRegister, "strict-serializable"), seed);
    }
}

#[test]
fn a_history_tells_of_every_transaction_how_it_began_and_ended() {
    let text = history(3, WorkloadKind::Append, FaultSet::NONE);
    let history = History::from_json(&text).expect("a history");
    assert!(history.ops.len() > 160, "{} lines", history.ops.len());
    assert!(history.pair.iter().all(Option::is_some), "every invocation has its end");
    // The lists are read through and through at last.
    assert!(text.lines().last().is_some_and(|line| line.contains("\"ok\"")));
}

#[test]
fn other_workloads_have_no_history() {
    let plan = Plan { workload: Some(WorkloadKind::Bank), transactions: 10, ..Plan::default() };
    let report = Runner { history: true, ..Runner::default() }.run(&Scenario::draw(1, &plan));
    assert_eq!(report.history, None);
}

// ---- The checker can see ----

/// Transactions, one after the other or all at once, of process, `ok` or not, and what they did.
fn written(at_once: bool, txns: &[&str]) -> String {
    let line = |kind: &str, process: usize, value: &str| {
        format!("{{\"type\":\"{kind}\",\"process\":{process},\"f\":\"txn\",\"value\":{value}}}\n")
    };
    let invoked = |index: usize, txn: &str| line("invoke", index, txn);
    let ended = |index: usize, txn: &str| line("ok", index, txn);
    let txns = txns.iter().enumerate();
    match at_once {
        true => txns
            .clone()
            .map(|(index, txn)| invoked(index, txn))
            .chain(txns.map(|(index, txn)| ended(index, txn)))
            .collect(),
        false => txns.map(|(index, txn)| invoked(index, txn) + &ended(index, txn)).collect(),
    }
}

#[track_caller]
fn assert_found(report: &Report, anomaly: &str) {
    assert_eq!(report.valid, Valid::False, "{:?}", report.anomaly_types);
    assert!(report.anomaly_types.iter().any(|found| found.starts_with(anomaly)), "{:?}", report.anomaly_types);
}

#[test]
fn two_transactions_that_append_to_what_both_have_read_lose_an_update() {
    let history = written(
        true,
        &[r#"[["r","a",[]],["append","a",1]]"#, r#"[["r","a",[]],["append","a",2]]"#, r#"[["r","a",[1,2]]]"#],
    );
    assert_found(&check(&history, Workload::ListAppend, PROMISED), "lost-update");
}

#[test]
fn two_transactions_that_see_each_other_go_round_in_a_circle() {
    let history = written(true, &[r#"[["append","a",1],["r","b",[2]]]"#, r#"[["append","b",2],["r","a",[1]]]"#]);
    assert_found(&check(&history, Workload::ListAppend, PROMISED), "G1c");
}

#[test]
fn readers_who_disagree_on_the_order_of_two_writes_see_a_fork() {
    let history = written(
        true,
        &[
            r#"[["append","a",1]]"#,
            r#"[["append","b",2]]"#,
            r#"[["r","a",[1]],["r","b",[]]]"#,
            r#"[["r","a",[]],["r","b",[2]]]"#,
            r#"[["r","a",[1]],["r","b",[2]]]"#,
        ],
    );
    assert_found(&check(&history, Workload::ListAppend, PROMISED), "G-nonadjacent");
}

#[test]
fn a_read_that_misses_what_was_acknowledged_before_is_stale() {
    let history = written(false, &[r#"[["append","a",1]]"#, r#"[["r","a",[]]]"#, r#"[["r","a",[1]]]"#]);
    assert_found(&check(&history, Workload::ListAppend, PROMISED), "G-single-item-realtime");
    assert_eq!(check(&history, Workload::ListAppend, "snapshot-isolation").valid, Valid::True);
}

#[test]
fn a_register_whose_old_value_comes_back_is_not_serializable() {
    let history = written(false, &[r#"[["w","a",1]]"#, r#"[["w","a",2]]"#, r#"[["r","a",1]]"#]);
    assert_found(&check(&history, Workload::RwRegister, "strict-serializable"), "cyclic-versions");
}
