//! The commands that simulate: `run` for many seeds, `replay` for one.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use tikv_sim::simulate::{
    FaultSet, Options, Plan, Report, Scenario, Totals, TransitionTable, WorkloadKind, simulate, simulate_with_trace,
};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What scenarios are drawn.
#[derive(Args, Clone, Debug)]
pub(crate) struct Draw {
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
}

/// Simulates many seeds.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The seeds, as in 0..1000.
    #[arg(long, default_value = "0..100")]
    seeds: Seeds,
    #[command(flatten)]
    draw: Draw,
    /// Goes on with further seeds until so many minutes have passed.
    #[arg(long)]
    minutes: Option<f64>,
    /// Seeds simulated at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Goes on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Tells of each transition between the phases of machines how often it was taken, not only which never were.
    #[arg(long)]
    transitions: bool,
}

/// Simulates one seed and tells what happens.
#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// The seed.
    seed: u64,
    #[command(flatten)]
    draw: Draw,
    /// Only the faults with these numbers (as in 0,3,7), of those that the seed chooses.
    #[arg(long, value_delimiter = ',', num_args = 0..)]
    keep: Option<Vec<usize>>,
    /// Tells only how it ends, and the hash of what happened.
    #[arg(long)]
    quiet: bool,
}

/// Tries deliberate mistakes.
#[cfg(feature = "canary")]
#[derive(Args, Debug)]
pub(crate) struct Canaries {
    /// The seeds to try each with.
    #[arg(long, default_value = "0..2000")]
    seeds: Seeds,
    #[command(flatten)]
    draw: Draw,
    /// Only those whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
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

impl Draw {
    fn plan(&self) -> Plan {
        Plan { workload: self.workload, faults: self.faults, transactions: self.transactions }
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
        command
    }
}

/// What all jobs share.
struct Shared {
    next_seed: AtomicU64,
    stopped: AtomicBool,
    progress: Mutex<Progress>,
}

struct Progress {
    totals: Totals,
    violations: u64,
    begun: Instant,
    told: Instant,
}

impl Run {
    pub(crate) fn execute(&self) -> ExitCode {
        let begun = Instant::now();
        let shared = Shared {
            next_seed: AtomicU64::new(self.seeds.0.start),
            stopped: AtomicBool::new(false),
            progress: Mutex::new(Progress { totals: Totals::default(), violations: 0, begun, told: begun }),
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| self.work(&shared));
            }
        });
        let progress = shared.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        say(&format!("{}{}", progress.totals, progress.speed()));
        let transitions = TransitionTable::new(&progress.totals.transitions, self.transitions);
        say(&transitions.to_string());
        let declared = transitions.undeclared().next().is_none();
        say(&match progress.violations {
            0 => "no violation".to_owned(),
            count => format!("{count} violations"),
        });
        if progress.violations == 0 && declared { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn work(&self, shared: &Shared) {
        while !shared.stopped.load(Ordering::Relaxed) {
            let seed = shared.next_seed.fetch_add(1, Ordering::Relaxed);
            if !self.goes_on(shared, seed) {
                return;
            }
            let outcome = simulate_seed(seed, &self.draw);
            let mut progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(violation) = progress.add(seed, &outcome) {
                say(&format!("seed {seed}: {violation}\n  {}", self.draw.command(seed)));
                shared.stopped.fetch_or(!self.keep_going, Ordering::Relaxed);
            }
        }
    }

    fn goes_on(&self, shared: &Shared, seed: u64) -> bool {
        match self.minutes {
            None => seed < self.seeds.0.end,
            Some(minutes) => {
                let progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner);
                progress.begun.elapsed().as_secs_f64() < minutes * 60.0
            }
        }
    }
}

/// A panic is a violation like any other.
fn simulate_seed(seed: u64, draw: &Draw) -> Result<Report, String> {
    let run = || simulate(&Scenario::draw(seed, &draw.plan()));
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

impl Progress {
    /// The violation, if there is one.
    fn add(&mut self, seed: u64, outcome: &Result<Report, String>) -> Option<String> {
        let violation = match outcome {
            Ok(report) => {
                self.totals.add(&report.totals);
                report.violation.as_ref().map(ToString::to_string)
            }
            Err(panic) => Some(format!("no panic: {panic}")),
        };
        self.violations += u64::from(violation.is_some());
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            say(&format!("seed {seed}: {} transactions, {}", self.totals.transactions, self.speed()));
        }
        violation
    }

    fn speed(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds;
        format!(
            "{:.1} s, {:.0} transactions/s, {:.0} events/s",
            seconds,
            per_second(self.totals.transactions),
            per_second(self.totals.events)
        )
    }
}

impl Replay {
    pub(crate) fn execute(&self) -> ExitCode {
        let mut scenario = Scenario::draw(self.seed, &self.draw.plan());
        if let Some(kept) = &self.keep {
            scenario = scenario.keeping(kept);
        }
        let report = if self.quiet { simulate(&scenario) } else { simulate_with_trace(&scenario) };
        if !self.quiet {
            let mut text = scenario.to_string();
            for event in &report.trace {
                let _ = writeln!(text, "{event}");
            }
            say(&format!("{text}{}", report.totals));
        }
        say(&format!("trace {:016x}", report.trace_hash));
        match &report.violation {
            None => {
                say("no violation");
                ExitCode::SUCCESS
            }
            Some(violation) => {
                say(&violation.to_string());
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(feature = "canary")]
impl Canaries {
    pub(crate) fn execute(&self) -> ExitCode {
        use tikv_core::canary::Canary;
        use tikv_sim::simulate::hunt;

        // Panics are reported as what they are.
        std::panic::set_hook(Box::new(|_| ()));
        let mut all_caught = true;
        say(&format!("{:30} {:>6}  noticed by", "mistake", "seeds"));
        for canary in Canary::ALL.iter().filter(|canary| canary.name().contains(&self.only)) {
            let caught = hunt(*canary, self.seeds.0.clone(), &self.draw.plan());
            all_caught &= caught.is_some();
            say(&match caught {
                Some(caught) => format!("{:30} {:>6}  {}", canary.name(), caught.seeds, caught.violation.rule),
                None => format!("{:30} {:>6}  nobody", canary.name(), "-"),
            });
        }
        if all_caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Nobody may be listening any more, which does not matter.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
