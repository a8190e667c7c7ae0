//! Judges what operations of core cost; `benches/micro/run` measures and calls this.
//!
//! Reads the benchmarks' summaries from standard input.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::io::read_to_string;
use std::process::ExitCode;

use bench_micro::figures::Record;
use bench_micro::{summary, verdict};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["judge", baselines, environment] => judge(baselines, environment),
        ["update", baselines, environment] => update(baselines, environment),
        _ => Err("usage: bench-micro judge|update BASELINES ENVIRONMENT".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measured(environment: &str) -> Result<Record, Box<dyn Error>> {
    let operations = summary::operations(&read_to_string(std::io::stdin())?)?;
    Ok(Record { environment: environment.to_owned(), operations })
}

fn judge(baselines: &str, environment: &str) -> Result<bool, Box<dyn Error>> {
    let before: Record = std::fs::read_to_string(baselines)?.parse()?;
    let verdict = verdict::judge(&measured(environment)?, &before);
    print!("{verdict}");
    if !verdict.failures().is_empty() {
        println!("Worse than the baselines; if that is meant, benches/micro/run --update:");
        verdict.failures().iter().for_each(|failure| println!("  {failure}"));
    }
    Ok(verdict.failures().is_empty())
}

fn update(baselines: &str, environment: &str) -> Result<bool, Box<dyn Error>> {
    let now = measured(environment)?;
    // What they change is shown as far as there was something before.
    let before = std::fs::read_to_string(baselines).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    print!("{}", verdict::judge(&now, &before));
    std::fs::write(baselines, now.to_string())?;
    Ok(true)
}
