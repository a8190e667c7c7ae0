//! What to do about a seed that breaks a rule: find out how little it takes, and show it.

use clap::Args;
use tikv_sim::simulate::{Broken, Limits, Minimised, Scenario, minimise};

use super::Draw;

/// What becomes of seeds that break rules.
#[derive(Args, Clone, Debug)]
pub(super) struct Care {
    /// Runs that may be spent on making a schedule of faults that breaks a rule smaller; 0 leaves it as it is.
    #[arg(long, default_value_t = Limits::default().runs, value_name = "RUNS")]
    minimise_runs: u32,
}

impl Care {
    /// What is said about a seed that breaks a rule.
    pub(super) fn tell(&self, draw: &Draw, seed: u64, violation: &Broken) -> String {
        let whole = Scenario::draw(seed, &draw.plan());
        let command = draw.command(seed);
        let mut text = format!("seed {seed}: {violation}\n  {command}");
        if self.minimise_runs > 0 {
            let least = self.minimised(draw, &whole, violation);
            text.push_str(&format!("\n{}\n  {command}{}", size(&whole, &least), least.arguments()));
        }
        text
    }

    fn minimised(&self, draw: &Draw, whole: &Scenario, violation: &Broken) -> Minimised {
        let simulation = draw.simulation();
        let run = |scenario: &Scenario| simulation.run(scenario).violation.map(|broken| broken.rule);
        minimise(whole, violation.rule, Limits { runs: self.minimise_runs }, run)
    }
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
