//! What to do about a seed that breaks a rule: find out how little it takes, and show it.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::Args;
use tikv_sim::simulate::{Broken, Limits, Minimised, Runner, Scenario, minimise, page};

use super::Draw;

/// What becomes of seeds that break rules.
#[derive(Args, Clone, Debug)]
pub(super) struct Care {
    /// Runs that may be spent on making a schedule of faults that breaks a rule smaller; 0 leaves it as it is.
    #[arg(long, default_value_t = Limits::default().runs, value_name = "RUNS")]
    minimise_runs: u32,
    /// Where pages of seeds that break rules are written: by default target/simulation where there is a directory target, and
    /// else a directory for temporary files.
    #[arg(long, value_name = "DIR")]
    html_dir: Option<PathBuf>,
}

impl Care {
    /// What is said about a seed that breaks a rule.
    pub(super) fn tell(&self, draw: &Draw, seed: u64, violation: &Broken) -> String {
        let mut scenario = Scenario::draw(seed, &draw.plan());
        let mut command = draw.command(seed);
        let mut text = format!("seed {seed}: {violation}\n  {command}");
        if self.minimise_runs > 0 {
            let least = self.minimised(draw, &scenario, violation);
            command.push_str(&least.arguments());
            text.push_str(&format!("\n{}\n  {command}", size(&scenario, &least)));
            scenario = least.scenario;
        }
        let written = self.write_page(draw, &scenario, &command);
        text + &written.map_or_else(|error| format!("\nno page: {error}"), |path| format!("\npage: {}", path.display()))
    }

    fn write_page(&self, draw: &Draw, scenario: &Scenario, command: &str) -> io::Result<PathBuf> {
        let directory = self.html_dir.clone().unwrap_or_else(usual_directory);
        fs::create_dir_all(&directory)?;
        let report = Runner { trace: true, ..draw.runner() }.run(scenario);
        let path = directory.join(format!("seed-{}-{}.html", scenario.seed, scenario.workload));
        fs::write(&path, page(scenario, &report, command))?;
        Ok(path)
    }

    fn minimised(&self, draw: &Draw, whole: &Scenario, violation: &Broken) -> Minimised {
        let runner = draw.runner();
        let run = |scenario: &Scenario| runner.run(scenario).violation.map(|broken| broken.rule);
        minimise(whole, violation.rule, Limits { runs: self.minimise_runs }, run)
    }
}

/// Where what is built lies, if it lies here.
fn usual_directory() -> PathBuf {
    let target = Path::new("target");
    if target.is_dir() { target.join("simulation") } else { env::temp_dir().join("tikv-simulation") }
}

fn size(whole: &Scenario, least: &Minimised) -> String {
    let rest = if least.is_minimal { "" } else { "; there may be less to it" };
    format!(
        "{} of {} faults and {} of {} transactions do ({} runs{rest}):",
        least.kept.len(),
        whole.faults.len(),
        least.scenario.options.transactions,
        whole.options.transactions,
        least.runs,
    )
}
