//! Explores the cases and prints what was found.
//!
//! ```text
//! cargo run --release -p tikv-model -- [small|large] [part of a case's name]
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // It is what this program is for.

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use tikv_model::cases;
use tikv_model::explorer::{Limits, explore};
use tikv_model::world::Protocol;

/// Enough for every case, and no more than some gigabytes.
const MAX_STATES: usize = 6_000_000;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let which = args.next().unwrap_or_else(|| "small".to_owned());
    let name = args.next().unwrap_or_default();
    let cases = if which == "large" { cases::large() } else { cases::small() };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut code = ExitCode::SUCCESS;
    for case in cases.into_iter().filter(|case| case.name.contains(&name)) {
        let (title, begin) = (case.name, Instant::now());
        let explored = explore(&Protocol::new(case), Limits { states: MAX_STATES, threads });
        println!("{title}: {explored} ({:.1} s)", begin.elapsed().as_secs_f64());
        if !explored.complete {
            code = ExitCode::FAILURE;
        }
    }
    code
}
