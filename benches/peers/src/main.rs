//! Measures clients side by side: see `benches/peers/README.md`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of the command line")]

mod arguments;
mod figures;
mod peer;
mod plan;
mod report;
mod results;
mod scaling;
mod server;
mod svg;
mod targets;
mod verdicts;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::figures::Sample;
use crate::peer::Peer;
use crate::plan::{Case, duration, plan};
use crate::results::{CaseResults, Results};
use crate::server::{Server, ServerKind};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = Arguments::of_process()? else {
        println!("{}", arguments::HELP);
        return Ok(());
    };
    if arguments.scaling {
        return scaling::run(&arguments);
    }
    let plans: Vec<_> = arguments.servers.iter().map(|server| (*server, plan(&arguments, *server))).collect();
    let takes = duration(&arguments, plans.iter().flat_map(|(_, cases)| cases));
    eprintln!("this takes some {} minutes", takes.as_secs().div_ceil(60));
    let mut results = Results::default();
    for (server, cases) in plans {
        results.cases.extend(measure_on(server, &arguments, cases)?);
    }
    let text = results.text();
    print!("{text}");
    if let Some(directory) = &arguments.output {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("results.txt"), text)?;
        fs::write(directory.join("report.html"), report::html(&results))?;
    }
    if let Some(file) = &arguments.markdown {
        fs::write(file, results.markdown())?;
    }
    match results.missing(arguments.rounds) {
        0 => Ok(()),
        missing => Err(format!("{missing} measurements have failed: see above").into()),
    }
}

/// Measures all cases against the same processes.
fn measure_on(kind: ServerKind, arguments: &Arguments, cases: Vec<Case>) -> Result<Vec<CaseResults>, Box<dyn Error>> {
    let mut server = Server::start(kind, arguments)?;
    if kind != ServerKind::Null {
        Peer::Tokio.load(arguments, server.pd())?;
    }
    let mut results: Vec<CaseResults> = cases.into_iter().map(CaseResults::new).collect();
    for round in 0..arguments.rounds {
        for case in &mut results {
            // Nobody is always the first.
            let mut peers = case.case.peers.clone();
            let places = peers.len().max(1);
            peers.rotate_left(round % places);
            for peer in peers {
                match measure(peer, &case.case, arguments, &mut server) {
                    Ok(sample) => {
                        eprintln!("{} {peer} {}", case.case, sample.summary());
                        case.add(peer, round, sample);
                    }
                    Err(error) => eprintln!("{} {peer} FAILED: {error}", case.case),
                }
            }
        }
    }
    Ok(results)
}

fn measure(peer: Peer, case: &Case, arguments: &Arguments, server: &mut Server) -> Result<Sample, Box<dyn Error>> {
    let before = server.traffic()?;
    let mut sample = peer.measure(arguments, server.pd(), case)?;
    sample.wire_bytes = server.traffic()?.zip(before).map(|(after, before)| after - before);
    Ok(sample)
}
