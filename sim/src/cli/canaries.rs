//! `tikv-sim canaries`: deliberate mistakes, and who notices them.

use std::process::ExitCode;

use clap::Args;
use tikv_core::canary::Canary;
use tikv_sim::simulate::hunt;

use super::{Draw, Seeds, say};

/// Tries deliberate mistakes.
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

/// The mistake of this name.
pub(super) fn named(name: &str) -> Result<Canary, String> {
    let found = Canary::ALL.iter().find(|canary| canary.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = Canary::ALL.iter().map(|canary| canary.name()).collect();
        format!("there is no mistake {name}; there are {}", names.join(", "))
    })
}

impl Canaries {
    pub(crate) fn execute(&self) -> ExitCode {
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
