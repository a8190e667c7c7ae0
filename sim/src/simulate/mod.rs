//! Deterministic simulation: the shipping protocol against the simulated cluster, under virtual time and faults.
//!
//! Several clients, each an [`Engine`](tikv_core::engine::Engine) of its own, run a [workload](WorkloadKind) against one
//! [`Cluster`](crate::cluster::Cluster). One thread owns every message and every timer, so that a run follows from its
//! [`Scenario`] alone, and a scenario from a seed:
//!
//! ```
//! use tikv_sim::simulate::{Plan, Scenario, simulate};
//!
//! let scenario = Scenario::draw(1, &Plan { transactions: 20, ..Plan::default() });
//! let report = simulate(&scenario);
//! assert_eq!(report.violation, None);
//! assert_eq!(simulate(&scenario).trace_hash, report.trace_hash);
//! ```
//!
//! # A run
//!
//! ```text
//!   Loading ──► Safety ──────────────────► Liveness ───────────► Audit ───────────► done
//!   the data    transactions and faults    faults end; all that   all is read;
//!   is written                             was begun must end     locks are resolved
//! ```
//!
//! What may go wrong is told by [`FaultKind`]; what must hold, by [`Rule`]. The checks know the truth, since the simulation
//! owns the data: nothing is inferred. The first broken rule ends the run.
//!
//! From the command line: `tikv-sim run --seeds 0..1000`, and `tikv-sim replay SEED` to see what happened.

#[cfg(feature = "canary")]
mod canaries;
mod check;
mod client;
mod elle;
mod faults;
mod minimise;
mod network;
mod options;
mod page;
mod queue;
mod report;
mod scenario;
mod session;
mod trace;
mod transitions;
mod workload;
mod world;

#[cfg(feature = "canary")]
pub use self::canaries::{Caught, hunt};
pub use self::check::{Broken, Rule};
pub use self::faults::{FaultKind, FaultSet, Injection, UnknownFault};
pub use self::minimise::{Limits, Minimised, minimise};
pub use self::options::{Options, UnknownOption};
pub use self::page::page;
pub use self::report::{Report, Totals};
pub use self::scenario::{Plan, Scenario};
pub use self::trace::{Node, TraceEvent, TraceKind};
pub use self::transitions::TransitionTable;
pub use self::workload::{UnknownWorkload, WorkloadKind};
use self::world::World;

/// How to run scenarios: what to write down. Whatever it is, the same happens, and as fast as it can if nothing is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runner {
    /// Whether all events are kept.
    pub trace: bool,
    /// Whether a [history](Report::history) of the transactions is written.
    pub history: bool,
    /// A mistake that all clients but the auditor make.
    #[cfg(feature = "canary")]
    pub canary: Option<tikv_core::canary::Canary>,
}

impl Runner {
    /// Runs a scenario. A panic is reported as a broken [rule](Rule::NoPanic).
    #[must_use]
    pub fn run(self, scenario: &Scenario) -> Report {
        let config = scenario.options.config();
        #[cfg(feature = "canary")]
        let config = {
            let mut config = config;
            config.canary = self.canary;
            config
        };
        World::new(scenario, config, self).run()
    }
}

/// Runs a scenario.
#[must_use]
pub fn simulate(scenario: &Scenario) -> Report {
    Runner::default().run(scenario)
}

/// Runs a scenario, and keeps all events.
#[must_use]
pub fn simulate_with_trace(scenario: &Scenario) -> Report {
    Runner { trace: true, ..Runner::default() }.run(scenario)
}
