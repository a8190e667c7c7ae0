//! The commands that simulate: `run` for many seeds, `replay` for one.

#[cfg(feature = "canary")]
mod canaries;
mod failure;
mod progress;
mod replay;
mod run;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;
use std::str::FromStr;

use clap::Args;
use tikv_sim::simulate::{FaultSet, Options, Plan, Runner, WorkloadKind};

#[cfg(feature = "canary")]
pub(crate) use self::canaries::Canaries;
pub(crate) use self::replay::Replay;
pub(crate) use self::run::Run;

/// What scenarios are drawn.
#[derive(Args, Clone, Debug)]
struct Draw {
    /// What clients do: bank, register, append, long-fork, write-skew, cycle, insert, large or raw. Without it, each seed
    /// chooses.
    #[arg(long)]
    workload: Option<WorkloadKind>,
    /// What may go wrong: all, none, or names with commas between. Of these each seed chooses some.
    #[arg(long, default_value = "all")]
    faults: FaultSet,
    /// Transactions (or raw calls) in each run.
    #[arg(long, default_value_t = Options::DEFAULT_TRANSACTIONS)]
    transactions: u32,
    /// A mistake that clients make on purpose.
    #[cfg(feature = "canary")]
    #[arg(long, value_parser = canaries::named)]
    canary: Option<tikv_core::canary::Canary>,
}

impl Draw {
    fn plan(&self) -> Plan {
        Plan { workload: self.workload, faults: self.faults, transactions: self.transactions }
    }

    /// A run of which nothing is written down.
    fn runner(&self) -> Runner {
        Runner {
            #[cfg(feature = "canary")]
            canary: self.canary,
            ..Runner::default()
        }
    }

    /// The command that repeats a run.
    fn command(&self, seed: u64) -> String {
        let mut command = format!("tikv-sim replay {seed}");
        if let Some(workload) = self.workload {
            let _ = write!(command, " --workload {workload}");
        }
        if self.faults != FaultSet::ALL {
            let _ = write!(command, " --faults {}", self.faults);
        }
        if self.transactions != Options::DEFAULT_TRANSACTIONS {
            let _ = write!(command, " --transactions {}", self.transactions);
        }
        #[cfg(feature = "canary")]
        if let Some(canary) = self.canary {
            let _ = write!(command, " --canary {}", canary.name());
        }
        command
    }
}

/// A range of seeds.
#[derive(Clone, Debug)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seed = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no seed"));
        match text.split_once("..") {
            Some((from, to)) => Ok(Seeds(seed(from)?..seed(to)?)),
            None => seed(text).map(|from| Seeds(from..from.saturating_add(1))),
        }
    }
}

/// Nobody may be listening any more, which does not matter.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "tikv-sim: {text}");
}
