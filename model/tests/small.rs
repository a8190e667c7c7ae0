//! The small cases hold, and every deliberate mistake is found.
#![allow(clippy::print_stdout)] // The numbers of states are of interest (`cargo test -- --nocapture`).

use tikv_model::cases;
use tikv_model::explorer::{Broken, Explored, Limits, explore};
use tikv_model::history::property;
use tikv_model::mistake::Mistake;
use tikv_model::setup::{End, Locks, Luck, Pessimistic, Setup, Work};
use tikv_model::world::Protocol;

const LIMITS: Limits = Limits { states: 200_000, threads: 2 };

#[test]
fn whatever_happens_in_the_small_cases_every_property_holds() {
    for case in cases::small() {
        let name = case.name;
        let explored = explore(&Protocol::new(case), LIMITS);
        println!("{name}: {explored}");
        assert!(explored.complete, "{name}: {explored}");
        assert!(explored.states > 500 && explored.final_states > 10, "{name} explores next to nothing: {explored}");
    }
}

fn explore_with(mistake: Mistake, clients: Vec<Vec<Work>>, luck: Luck) -> Broken {
    let setup = Setup { name: "mistake", bounds: &["b"], split_at: None, clients, heartbeats: false, luck };
    let explored: Explored = explore(&Protocol::new(setup).with_mistake(mistake), LIMITS);
    println!("{mistake:?}: {explored}");
    explored.broken.expect("a broken property")
}

fn writer_and_reader(mistake: Mistake, luck: Luck) -> Broken {
    explore_with(mistake, vec![vec![Work::Write(&["a", "b"])], vec![Work::BatchGet(&["a", "b"])]], luck)
}

#[test]
fn a_secondary_committed_beside_its_primary_is_found() {
    let broken = writer_and_reader(Mistake::SecondariesFirst, Luck::default());
    assert_eq!(broken.property, property::PRIMARY_FIRST);
    assert!(broken.steps.last().is_some_and(|step| step.starts_with("executed: Commit b")), "{broken:?}");
}

#[test]
fn a_lock_judged_by_the_local_clock_is_found() {
    let broken = writer_and_reader(Mistake::LocalClock, Luck::default());
    assert_eq!(broken.property, property::ALIVE);
}

#[test]
fn a_reader_that_ignores_locks_is_found() {
    let broken = writer_and_reader(Mistake::LocksIgnored, Luck::default());
    assert_eq!(broken.property, property::SNAPSHOT_READ);
}

#[test]
fn a_commit_without_an_answer_that_is_taken_for_unsent_is_found() {
    let luck = Luck { faults: 1, leaps: 1, ..Luck::default() };
    let broken = explore_with(Mistake::FaultsMasked, vec![vec![Work::WriteInTime(&["a"])]], luck);
    assert_eq!(broken.property, property::OUTCOME);
}

#[test]
fn an_async_commit_recovered_without_its_secondaries_is_found() {
    let clients = vec![vec![Work::AsyncWrite(&["a", "b"])], vec![Work::BatchGet(&["a", "b"])]];
    let broken = explore_with(Mistake::SecondariesForgotten, clients, Luck { crashes: 1, ..Luck::default() });
    assert!([property::ASYNC_DECIDED, property::COMMIT_CONSISTENCY].contains(&broken.property), "{broken:?}");
}

/// The version that is lost can even be overwritten: one that commits in one phase does so at a timestamp that PD has not given
/// yet, and gives to the other one then.
const LOST_UPDATE: [&str; 2] = [property::NO_LOST_UPDATE, property::COMMIT_CONSISTENCY];

fn pessimistic(keys: &'static [&'static str], locks: Locks) -> Work {
    Work::Pessimistic(Pessimistic { keys, locks, end: End::Commit })
}

#[test]
fn a_pessimistic_lock_that_nobody_checks_when_its_key_is_prewritten_is_found() {
    let clients = vec![vec![pessimistic(&["a"], Locks::AtOnce)], vec![Work::OnePhaseWrite(&["a"])]];
    let broken = explore_with(Mistake::LocksUnchecked, clients, Luck { leaps: 1, ..Luck::default() });
    assert!(LOST_UPDATE.contains(&broken.property), "{broken:?}");
}

#[test]
fn a_deadlock_that_nobody_notices_is_found() {
    let (there, back) = (pessimistic(&["a", "b"], Locks::OneByOne), pessimistic(&["b", "a"], Locks::OneByOne));
    let broken = explore_with(Mistake::DeadlocksUnnoticed, vec![vec![there], vec![back]], Luck::default());
    assert_eq!(broken.property, property::NO_HELP_OF_TIME);
}

#[test]
fn a_release_that_takes_a_later_lock_away_is_found() {
    let clients = vec![vec![pessimistic(&["a", "b"], Locks::FairlyAtFirst)]];
    let broken = explore_with(Mistake::LaterLocksReleased, clients, Luck::default());
    assert_eq!(broken.property, property::LOCK_HELD);
    assert!(broken.steps.iter().any(|step| step.starts_with("executed: PessimisticRollback a")), "{broken:?}");
}

#[test]
fn a_later_lock_of_fair_locking_that_is_taken_for_the_one_reported_is_found() {
    let clients = vec![vec![pessimistic(&["a"], Locks::Fairly)], vec![Work::OnePhaseWrite(&["a"])]];
    let broken = explore_with(Mistake::LaterLocksTrusted, clients, Luck { leaps: 1, ..Luck::default() });
    assert!(LOST_UPDATE.contains(&broken.property), "{broken:?}");
}
