//! Which of the declared transitions between phases were taken.

use std::fmt;

use tikv_core::engine;
use tikv_core::machine::{Phases, Transition, TransitionCounts};

/// Why the simulation hardly ever takes a transition. The unit tests of its machine take it.
const SELDOM: &[(&str, &str, &str, &str)] = &[
    ("RegionCall", "Calling", "Locating", "most region errors of a call by key are waited for first"),
    ("SplitRegions", "start", "done", "keys at which regions begin are not asked for"),
    ("SplitRegions", "Settling", "Pausing", SETTLED),
    ("SplitRegions", "Pausing", "Settling", SETTLED),
    ("SplitRegions", "Pausing", "done", SETTLED),
    ("SweepRegion", "Resolving", "Scanning", "no region here has more locks than a page"),
    ("ScanPage", "PassingLocks", "Locating", MEMORY_LOCK),
    ("ScanPage", "PassingLocks", "Scanning", MEMORY_LOCK),
    ("PassLocks", "start", "Waiting", "a reader that meets ever new locks of known transactions"),
    ("Heartbeat", "FetchingTimestamp", "Sleeping", "PD fails just when a transaction is kept alive"),
    ("Heartbeat", "FetchingTimestamp", "done", "no transaction is an hour old"),
    ("FetchCommitTs", "Fetching", "WaitingForClock", CLOCK),
    ("FetchCommitTs", "WaitingForClock", "Fetching", CLOCK),
    ("FetchCommitTs", "WaitingForClock", "done", CLOCK),
    ("CommitPrimary", "FetchingCommitTs", "Locating", "the region changes while a second timestamp is fetched"),
    ("CommitPrimary", "BackingOff", "done", "the deadline passes just then"),
    ("Cleanup", "Grouping", "done", "PD fails for longer than the budget of a cleanup"),
    ("PrewriteBatch", "Calling", "WaitingForLock", "nine transactions in a row are known to have ended"),
    ("Flush", "start", "done", "the deadline of a commit passes before its last flush"),
    ("Flush", "Throttling", "Grouping", NOTHING_LOCKED),
    ("Flush", "Throttling", "FlushingPrimary", NOTHING_LOCKED),
    ("Flush", "CheckingInserts", "done", "PD and stores fail for longer than the budget of a read"),
    ("FlushBatch", "Calling", "WaitingForLock", "nine transactions in a row are known to have ended"),
    ("FinishFlushed", "Pausing", "done", "a client that has flushed knows stores"),
    ("ResolveFlushed", "Locating", "done", "PD fails for longer than the budget of a clean-up"),
];
const SETTLED: &str = "regions that are scattered stay where they are, and PD would have to fail just then";
const MEMORY_LOCK: &str = "only a lock in memory makes TiKV refuse a whole page";
const CLOCK: &str = "PD's clock is behind only timestamps of other clusters";
const NOTHING_LOCKED: &str = "an earlier generation has only checked that keys are absent";

/// Machines that the simulation does not run: what nobody reads any more has no place in a history that knows everything. Scripts
/// run them (`sim/tests/scripts/gc.rs`).
const NOT_RUN: &[&str] = &["CollectGarbage", "DestroyRange", "DestroyOnStore"];

/// What [`TransitionCounts`] amount to, one line for each machine.
#[derive(Clone, Debug)]
pub struct TransitionTable<'a> {
    counts: &'a TransitionCounts,
    in_full: bool,
}

impl<'a> TransitionTable<'a> {
    /// A table of these counts: in full with one line for each transition, else with those only that were not taken.
    #[must_use]
    pub fn new(counts: &'a TransitionCounts, in_full: bool) -> Self {
        TransitionTable { counts, in_full }
    }

    /// Transitions that were taken although no machine declares them.
    pub fn undeclared(&self) -> impl Iterator<Item = Transition> {
        let is_declared =
            |step: &Transition| engine::phases().any(|phases| phases.transitions().any(|one| one == *step));
        self.counts.iter().map(|(transition, _)| transition).filter(move |step| !is_declared(step))
    }

    fn write_machine(&self, f: &mut fmt::Formatter<'_>, phases: &Phases) -> fmt::Result {
        let declared: Vec<(Transition, u64)> =
            phases.transitions().map(|transition| (transition, self.counts.of(transition))).collect();
        let taken = declared.iter().filter(|(_, count)| *count > 0).count();
        if taken == 0 && NOT_RUN.contains(&phases.machine) {
            return writeln!(f, "{:18} is not run", phases.machine);
        }
        writeln!(f, "{:18} {taken} of {} transitions taken", phases.machine, declared.len())?;
        for (transition, count) in declared {
            let Transition { from, to, .. } = transition;
            match count {
                0 => writeln!(f, "  {from} → {to}: never; {}", why_not(transition))?,
                _ if self.in_full => writeln!(f, "  {from} → {to}: {count}")?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Display for TransitionTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phases in engine::phases() {
            self.write_machine(f, phases)?;
        }
        self.undeclared().try_for_each(|Transition { machine, from, to }| {
            writeln!(f, "{machine}: {from} → {to} was taken, and is not declared")
        })
    }
}

fn why_not(transition: Transition) -> &'static str {
    let known = SELDOM.iter().find(|(machine, from, to, _)| Transition { machine, from, to } == transition);
    known.map_or("it may be rare", |(.., why)| why)
}

#[cfg(test)]
mod tests {
    use tikv_core::machine::{Step, TransitionCounts};

    use super::*;

    #[test]
    fn what_is_explained_is_declared() {
        for (machine, from, to, _) in SELDOM {
            let step = Transition { machine, from, to };
            assert!(
                engine::phases().any(|phases| step.is_declared_by(phases) && phases.machine == *machine),
                "{step:?}"
            );
        }
    }

    #[test]
    fn what_is_not_run_exists_and_has_no_list() {
        let text = TransitionTable::new(&TransitionCounts::default(), false).to_string();
        for machine in NOT_RUN {
            assert!(engine::phases().any(|phases| phases.machine == *machine), "{machine}");
            assert!(text.lines().any(|line| line == format!("{machine:18} is not run")), "{text}");
        }
    }

    #[test]
    fn the_table_tells_what_was_never_taken_and_what_should_not_have_been() {
        let mut counts = TransitionCounts::default();
        let phases = engine::phases().find(|phases| phases.machine == "Get").expect("a machine");
        let (start, calling, done) = ((phases, 0), Some((phases, 1)), (phases, phases.steps.len()));
        counts.note(Step::new(start, calling));
        counts.note(Step::new(done, calling));
        let table = TransitionTable::new(&counts, true);
        assert_eq!(table.undeclared().count(), 1);
        let text = table.to_string();
        assert!(
            text.contains("Get                1 of 6 transitions taken\n  start → Calling: 1\n  start → done: never"),
            "{text}"
        );
        assert!(text.ends_with("Get: done → Calling was taken, and is not declared\n"), "{text}");
        assert!(!TransitionTable::new(&counts, false).to_string().contains("start → Calling: 1"));
    }
}
