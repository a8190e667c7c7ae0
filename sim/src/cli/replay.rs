//! `tikv-sim replay`: one seed again, to be looked at.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;
use tikv_sim::simulate::{Options, Report, Scenario, page};

use super::{Draw, complain, say};

/// Simulates one seed and tells what happens.
#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// The seed.
    seed: u64,
    #[command(flatten)]
    draw: Draw,
    /// Only the faults with these numbers (as in 0,3,7), of those that the seed chooses; or none.
    #[arg(long, value_name = "FAULTS")]
    keep: Option<Kept>,
    /// Another value for an option of the run, as in clients=1 (what the options are is printed first of all); may be repeated.
    #[arg(long = "set", value_name = "OPTION=VALUE")]
    settings: Vec<Setting>,
    /// Writes what happens as a page for a browser, instead of line by line: who sends what to whom, and when.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes what clients did and were told as JSON lines, as Elle and other checkers of histories read them (of the
    /// workloads append and register).
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Tells only how it ends, and the hash of what happened.
    #[arg(long)]
    quiet: bool,
}

/// Numbers of faults.
#[derive(Clone, Debug)]
struct Kept(Vec<usize>);

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Kept(Vec::new()));
        }
        let number = |number: &str| number.trim().parse().map_err(|_| format!("{number} is no number of a fault"));
        text.split(',').map(number).collect::<Result<_, _>>().map(Kept)
    }
}

#[derive(Clone, Debug)]
struct Setting(String, u32);

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("an option and its value are wanted, as in clients=1")?;
        let value = value.parse().map_err(|_| format!("{value} is no number"))?;
        if !Options::NAMES.contains(&name) {
            return Err(format!("there is no option {name}; there are {}", Options::NAMES.join(", ")));
        }
        Ok(Setting(name.to_owned(), value))
    }
}

impl Replay {
    pub(crate) fn execute(&self) -> ExitCode {
        let scenario = self.scenario();
        if self.history.is_some() && scenario.workload.history_model().is_none() {
            complain(&format!("the workload {} has no history: append and register have", scenario.workload));
            return ExitCode::FAILURE;
        }
        let mut runner = self.draw.runner();
        runner.trace = !self.quiet || self.html.is_some();
        runner.history = self.history.is_some();
        let report = runner.run(&scenario);
        if !self.quiet && self.html.is_none() {
            let mut text = scenario.to_string();
            for event in &report.trace {
                let _ = writeln!(text, "{event}");
            }
            say(&format!("{text}{}", report.totals));
        }
        if let Err((path, error)) = self.write_files(&scenario, &report) {
            complain(&format!("{}: {error}", path.display()));
            return ExitCode::FAILURE;
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

    fn scenario(&self) -> Scenario {
        let mut scenario = Scenario::draw(self.seed, &self.draw.plan());
        if let Some(Kept(kept)) = &self.keep {
            scenario = scenario.keeping(kept);
        }
        for Setting(name, value) in &self.settings {
            // The names have been looked at when the command line was read.
            let _ = scenario.options.set(name, *value);
        }
        scenario
    }

    /// What repeats this run.
    fn command(&self) -> String {
        let mut command = self.draw.command(self.seed);
        if let Some(Kept(kept)) = &self.keep {
            let kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
            let _ = write!(command, " --keep {}", if kept.is_empty() { "none".to_owned() } else { kept.join(",") });
        }
        for Setting(name, value) in &self.settings {
            let _ = write!(command, " --set {name}={value}");
        }
        command
    }

    fn write_files<'a>(&'a self, scenario: &Scenario, report: &Report) -> Result<(), (&'a Path, io::Error)> {
        if let (Some(path), Some(history)) = (&self.history, &report.history) {
            std::fs::write(path, history).map_err(|error| (path.as_path(), error))?;
            say(&format!("history: {}", path.display()));
        }
        if let Some(path) = &self.html {
            std::fs::write(path, page(scenario, report, &self.command())).map_err(|error| (path.as_path(), error))?;
            say(&format!("page: {}", path.display()));
        }
        Ok(())
    }
}
