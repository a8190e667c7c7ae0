use super::*;
use crate::simulate::faults::FaultKind;
use crate::simulate::{Plan, WorkloadKind};

/// `ddmin` with a predicate over numbers, and how many attempts it took.
fn least(count: u32, breaks: impl Fn(&[u32]) -> bool) -> (Vec<u32>, u32) {
    let mut attempts = 0;
    let found = ddmin((0..count).collect(), |part| {
        attempts += 1;
        Some(breaks(part))
    });
    (found, attempts)
}

#[test]
fn of_many_faults_the_one_that_matters_is_found_in_few_attempts() {
    let (found, attempts) = least(100, |part| part.contains(&37));
    assert_eq!(found, [37]);
    assert!(attempts < 40, "{attempts} attempts");
}

#[test]
fn faults_that_matter_together_are_found_together_in_their_order() {
    let (found, _) = least(64, |part| [3, 4, 60].iter().all(|wanted| part.contains(wanted)));
    assert_eq!(found, [3, 4, 60]);
}

#[test]
fn what_is_left_breaks_no_more_when_any_one_of_it_is_taken_away() {
    // Whatever has an even and three odd numbers.
    let breaks = |part: &[u32]| {
        let odd = part.iter().filter(|number| *number % 2 == 1).count();
        odd >= 3 && part.len() > odd
    };
    let (found, _) = least(50, breaks);
    assert!(breaks(&found));
    for index in 0..found.len() {
        let mut less = found.clone();
        less.remove(index);
        assert!(!breaks(&less), "{found:?} without its number {index}");
    }
}

#[test]
fn nothing_is_left_where_no_fault_matters() {
    assert_eq!(least(20, |_| true), (Vec::new(), 1));
    assert_eq!(least(0, |_| true).0, Vec::<u32>::new());
}

#[test]
fn all_is_left_where_every_fault_matters() {
    let (found, _) = least(7, |part| part.len() == 7);
    assert_eq!(found.len(), 7);
}

fn scenario() -> Scenario {
    let plan = Plan { workload: Some(WorkloadKind::Bank), ..Plan::default() };
    let drawn = (0..).map(|seed| Scenario::draw(seed, &plan));
    let mut scenario =
        drawn.take(1_000).find(|scenario| scenario.faults.len() > 20).unwrap_or(Scenario::draw(0, &plan));
    scenario.options.clients = 5;
    scenario
}

#[test]
fn a_scenario_loses_faults_and_grows_smaller_while_its_rule_is_broken() {
    let mut scenario = scenario();
    scenario.faults[5].kind = FaultKind::TsoJump;
    for (index, fault) in scenario.faults.iter_mut().enumerate() {
        if index != 5 {
            fault.kind = FaultKind::Loss;
        }
    }
    // It takes the jump, three clients and twelve transactions.
    let run = |candidate: &Scenario| {
        let jumps = candidate.faults.iter().any(|fault| fault.kind == FaultKind::TsoJump);
        let large = candidate.options.clients >= 3 && candidate.options.transactions >= 12;
        (jumps && large).then_some(Rule::NoOverlap)
    };
    let least = minimise(&scenario, Rule::NoOverlap, Limits::default(), run);
    assert_eq!(least.kept, [5]);
    assert_eq!(least.scenario.faults, [scenario.faults[5]]);
    let Options { clients, transactions, keys, sessions, stores, .. } = least.scenario.options;
    assert_eq!((clients, transactions, keys, sessions, stores), (3, 12, 2, 1, 1));
    assert!(least.is_minimal);
    assert!(least.arguments().starts_with(" --keep 5 --set clients=3 --set sessions="), "{}", least.arguments());
    assert_eq!(run(&least.scenario), Some(Rule::NoOverlap));
}

#[test]
fn another_broken_rule_is_another_matter() {
    let scenario = scenario();
    let whole = scenario.faults.len();
    let run =
        |candidate: &Scenario| Some(if candidate.faults.len() == whole { Rule::NoOverlap } else { Rule::Termination });
    let least = minimise(&scenario, Rule::NoOverlap, Limits::default(), run);
    assert_eq!(least.kept.len(), whole);
}

#[test]
fn it_ends_after_so_many_runs_with_what_it_has() {
    let scenario = scenario();
    let mut count = 0;
    let least = minimise(&scenario, Rule::NoOverlap, Limits { runs: 7 }, |candidate| {
        count += 1;
        (candidate.faults.len() > 10).then_some(Rule::NoOverlap)
    });
    assert_eq!((count, least.runs), (7, 7));
    assert!(!least.is_minimal);
    assert!(least.scenario.faults.len() > 10, "what is left still breaks the rule");
}

/// Clients that make a mistake on purpose: what is left of the first seed that shows it still shows it.
#[cfg(feature = "canary")]
#[test]
fn the_schedule_of_a_known_mistake_is_cut_down() {
    use crate::simulate::{Runner, hunt};
    use tikv_core::canary::Canary;

    let plan = Plan { transactions: 100, ..Plan::default() };
    let canary = Canary::UndeterminedMasked;
    let caught = hunt(canary, 0..2_000, &plan).expect("a mistake that is noticed");
    let runner = Runner { canary: Some(canary), ..Runner::default() };
    let run = |scenario: &Scenario| runner.run(scenario).violation.map(|broken| broken.rule);
    let whole = Scenario::draw(caught.seed, &plan);
    let least = minimise(&whole, caught.violation.rule, Limits { runs: 300 }, run);
    assert_eq!(run(&least.scenario), Some(caught.violation.rule));
    assert!(least.scenario.faults.len() < whole.faults.len(), "{} of {} faults", least.kept.len(), whole.faults.len());
    assert!(least.scenario.options.transactions < whole.options.transactions);
}
