//! Interop peer on the `tikv` client: does what the JSON lines on stdin say (see `../PROTOCOL.md`).

mod bank;
mod die;
mod load;
mod peer;
mod raw;
mod request;
mod txn;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;

use serde_json::json;
use tikv::{Client, Runtime};
use tikv_transport_async_std::AsyncStd;
use tikv_transport_smol::Smol;
use tikv_transport_tokio::Tokio;

use crate::peer::Peer;
use crate::request::{Fault, Outcome, Request};

const USAGE: &str = "usage: peer --pd ADDR [--runtime tokio|smol|async-std]";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let ended = Arguments::parse(std::env::args().skip(1)).and_then(|Arguments { pd, runtime }| match &*runtime {
        "tokio" => {
            let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            serve(&Tokio::new(tokio.handle().clone()), "tikv-tokio", pd)
        }
        "smol" => serve(&Smol::new(), "tikv-smol", pd),
        "async-std" => serve(&AsyncStd::new(), "tikv-async-std", pd),
        _ => Err(USAGE.into()),
    });
    match ended {
        // Not by returning: unfinished work must not hold the process up.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            let _ = writeln!(io::stderr(), "peer: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    pd: String,
    runtime: String,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let (mut pd, mut runtime) = (None, "tokio".to_owned());
        while let Some(name) = words.next() {
            let value = words.next().ok_or(USAGE)?;
            match &*name {
                "--pd" => pd = Some(value),
                "--runtime" => runtime = value,
                _ => return Err(USAGE.into()),
            }
        }
        Ok(Arguments { pd: pd.ok_or(USAGE)?, runtime })
    }
}

/// Connects, then answers each line of stdin by a task of its own, until stdin ends or says `quit`.
fn serve<R: Runtime + Clone>(runtime: &R, name: &'static str, pd: String) -> Result<(), Failure> {
    let (connected, connecting) = mpsc::channel();
    let for_client = runtime.clone();
    runtime.spawn(Box::pin(async move {
        // The receiver is gone only if the process ends.
        let _ = connected.send(Client::connect([pd], for_client).await);
    }));
    let peer = Arc::new(Peer::new(connecting.recv()??, Arc::new(runtime.clone()), name));
    for line in io::stdin().lock().lines() {
        let Some(request) = Request::parse(&line?) else {
            answer(0, Err(Fault::other("that line is no request")));
            continue;
        };
        if request.cmd == "quit" {
            answer(request.id, Ok(json!({})));
            return Ok(());
        }
        let peer = Arc::clone(&peer);
        runtime.spawn(Box::pin(async move { answer(request.id, peer.run_in_time(&request).await) }));
    }
    Ok(())
}

/// Writes one answer line.
fn answer(id: u64, outcome: Outcome) {
    let mut line = match outcome {
        Ok(fields) => fields,
        Err(fault) => json!({ "error": { "kind": fault.kind, "message": fault.message } }),
    };
    line["ok"] = json!(line.get("error").is_none());
    line["id"] = json!(id);
    // One write a line, so that the lines of several tasks do not mix; who does not read any more has ended.
    let _ = io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}
