//! `tikv-sim run`: many seeds.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Args;
use tikv_sim::simulate::{Report, Runner, Scenario};

use super::failure::Care;
use super::progress::Progress;
use super::{Draw, Seeds, complain};

/// Violations that are looked into. More of them are only counted and told.
const LOOKED_INTO: u64 = 5;

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
    #[command(flatten)]
    care: Care,
    /// Writes what clients did and were told into a file for each seed with the workload append or register, as Elle and
    /// other checkers of histories read it.
    #[arg(long, value_name = "DIR")]
    histories: Option<PathBuf>,
}

/// What all jobs share.
struct Shared {
    next_seed: AtomicU64,
    stopped: AtomicBool,
    /// Whether something could not be written.
    failed: AtomicBool,
    progress: Mutex<Progress>,
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    pub(crate) fn execute(&self) -> ExitCode {
        if let Some(directory) = &self.histories {
            if let Err(error) = fs::create_dir_all(directory) {
                complain(&format!("{}: {error}", directory.display()));
                return ExitCode::FAILURE;
            }
        }
        let steps = match self.minutes {
            Some(minutes) => (minutes * 60.0) as u64,
            None => self.seeds.0.end.saturating_sub(self.seeds.0.start),
        };
        let shared = Shared {
            next_seed: AtomicU64::new(self.seeds.0.start),
            stopped: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            progress: Mutex::new(Progress::new(steps, self.minutes.is_some())),
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| self.work(&shared));
            }
        });
        let is_well = shared.progress().finish(self.transitions) && !shared.failed.load(Ordering::Relaxed);
        if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn work(&self, shared: &Shared) {
        let runner = Runner { history: self.histories.is_some(), ..self.draw.runner() };
        while !shared.stopped.load(Ordering::Relaxed) {
            let seed = shared.next_seed.fetch_add(1, Ordering::Relaxed);
            if !self.goes_on(shared, seed) {
                return;
            }
            let report = runner.run(&Scenario::draw(seed, &self.draw.plan()));
            self.keep_history(shared, seed, &report);
            let violations = {
                let mut progress = shared.progress();
                progress.add(seed, &report);
                progress.violations
            };
            let Some(violation) = &report.violation else { continue };
            shared.stopped.fetch_or(!self.keep_going, Ordering::Relaxed);
            let told = if violations <= LOOKED_INTO {
                self.care.tell(&self.draw, seed, violation)
            } else {
                format!("seed {seed}: {violation}\n  {}", self.draw.command(seed))
            };
            shared.progress().say(&told);
        }
    }

    fn goes_on(&self, shared: &Shared, seed: u64) -> bool {
        let progress = shared.progress();
        let (done, goes_on) = match self.minutes {
            None => (seed.saturating_sub(self.seeds.0.start), seed < self.seeds.0.end),
            Some(minutes) => {
                let seconds = progress.begun.elapsed().as_secs_f64();
                (seconds as u64, seconds < minutes * 60.0)
            }
        };
        progress.set_done(done);
        goes_on
    }

    fn keep_history(&self, shared: &Shared, seed: u64, report: &Report) {
        let (Some(directory), Some(history)) = (&self.histories, &report.history) else { return };
        let model = Scenario::draw(seed, &self.draw.plan()).workload.history_model().unwrap_or_default();
        let path = directory.join(format!("seed-{seed}.{model}.jsonl"));
        if let Err(error) = fs::write(&path, history) {
            shared.progress().say(&format!("{}: {error}", path.display()));
            shared.failed.store(true, Ordering::Relaxed);
            shared.stopped.store(true, Ordering::Relaxed);
        }
    }
}
