//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tikv_core::machine::TransitionCounts;

use super::check::Broken;
use super::faults::FaultKind;
use super::trace::TraceEvent;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened, counted.
    pub totals: Totals,
    /// The rule that was broken, if one was: the run ended there.
    pub violation: Option<Broken>,
    /// A hash of all events. Equal scenarios have equal hashes, in whichever process.
    pub trace_hash: u64,
    /// All events, if they were asked for.
    pub trace: Vec<TraceEvent>,
    /// What clients did and were told, line by line, if it was asked for and the workload
    /// [has such a history](super::WorkloadKind::history_model).
    pub history: Option<String>,
}

/// What happened, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs.
    pub runs: u64,
    /// Transactions begun, raw calls, and sweeps.
    pub transactions: u64,
    /// Those that wrote and committed, or were acknowledged.
    pub committed: u64,
    /// Those that only read, and gave up nothing.
    pub read_only: u64,
    /// Those that failed for certain.
    pub rolled_back: u64,
    /// Those whose end was not known to their clients.
    pub undetermined: u64,
    /// Of those, the ones whose outcome was found out later.
    pub found_out: u64,
    /// Those whose clients died or lost interest.
    pub abandoned: u64,
    /// Sweeps that have resolved all locks up to a safe point.
    pub sweeps: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost.
    pub lost: u64,
    /// Requests that arrived twice.
    pub duplicated: u64,
    /// Time that passed in the simulation.
    pub virtual_time: Duration,
    /// Faults injected.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Errors that operations ended with, by kind.
    pub errors: BTreeMap<&'static str, u64>,
    /// Transitions between phases of the clients' machines. Empty without the feature `transitions`.
    pub transitions: TransitionCounts,
}

impl Totals {
    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Totals) {
        self.runs += other.runs;
        self.transactions += other.transactions;
        self.committed += other.committed;
        self.read_only += other.read_only;
        self.rolled_back += other.rolled_back;
        self.undetermined += other.undetermined;
        self.found_out += other.found_out;
        self.abandoned += other.abandoned;
        self.sweeps += other.sweeps;
        self.events += other.events;
        self.messages += other.messages;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.virtual_time += other.virtual_time;
        for (kind, count) in &other.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.transitions.add(&other.transitions);
    }
}

impl fmt::Display for Totals {
    /// Several lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} transactions in {} runs: {} committed, {} only read, {} rolled back, {} undetermined ({} found out), {} abandoned",
            self.transactions,
            self.runs,
            self.committed,
            self.read_only,
            self.rolled_back,
            self.undetermined,
            self.found_out,
            self.abandoned,
        )?;
        writeln!(
            f,
            "{} sweeps, {} events, {} messages ({} lost, {} duplicated), {:.1} s of virtual time",
            self.sweeps,
            self.events,
            self.messages,
            self.lost,
            self.duplicated,
            self.virtual_time.as_secs_f64(),
        )?;
        list(f, "faults", self.faults.iter().map(|(kind, count)| (kind.name(), *count)))?;
        list(f, "errors", self.errors.iter().map(|(name, count)| (*name, *count)))
    }
}

fn list<'a>(f: &mut fmt::Formatter<'_>, title: &str, counts: impl Iterator<Item = (&'a str, u64)>) -> fmt::Result {
    let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
    if counts.is_empty() { Ok(()) } else { writeln!(f, "{title}: {}", counts.join(", ")) }
}
