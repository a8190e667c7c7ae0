//! The `tikv` client as a peer: `bench-peer-tikv RUNTIME PD WORKLOAD CALLERS SECONDS WARM_UP [CONNECTIONS]`, the last one those
//! to each store, if there are to be more than one.

mod load;
mod operations;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;

use tikv::{Client, ClientBuilder, Runtime};
use tikv_bench_load::{Arguments, Failure, Workload, measure};
use tikv_transport_async_std::AsyncStd;
use tikv_transport_smol::Smol;
use tikv_transport_tokio::Tokio;

use crate::operations::Operations;

fn main() -> ExitCode {
    match run() {
        // Not by returning: callers that are still at it must not hold the process up.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench-peer-tikv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let mut words: Vec<_> = words.collect();
    let connections = if words.len() > Arguments::WORDS { words.pop() } else { None };
    let connections = connections.map_or(Ok(1), |count| parse_connections(&count))?;
    let arguments = Arguments::parse(&words)?;
    match &*name {
        "tokio" => {
            let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            run_on(&Tokio::new(tokio.handle().clone()), &arguments, connections)
        }
        "smol" => run_on(&Smol::new(), &arguments, connections),
        "async-std" => run_on(&AsyncStd::new(), &arguments, connections),
        other => Err(format!("the runtime is tokio, smol or async-std, not {other}").into()),
    }
}

fn parse_connections(count: &str) -> Result<usize, Failure> {
    let parsed = count.parse().ok().filter(|count| *count > 0);
    parsed.ok_or_else(|| format!("no number of connections: {count}").into())
}

fn run_on<R: Runtime + Clone>(runtime: &R, arguments: &Arguments, connections: usize) -> Result<(), Failure> {
    let (connected, connecting) = mpsc::channel();
    let (for_client, workload) = (runtime.clone(), arguments.workload);
    let client = Client::builder([arguments.pd.clone()]).connections_per_store(connections);
    runtime.spawn(Box::pin(async move {
        // The receiver is gone only if the process ends.
        let _ = connected.send(prepare(client, for_client, workload).await);
    }));
    let operations = connecting.recv()??;
    if workload != Workload::Load {
        measure(arguments, |task| runtime.spawn(task), |keys| operations.of_caller(keys));
    }
    Ok(())
}

async fn prepare(client: ClientBuilder, runtime: impl Runtime, workload: Workload) -> Result<Operations, Failure> {
    let client = client.connect(runtime).await?;
    if workload == Workload::Load {
        load::write_records(&client).await?;
    }
    let read_ts = client.current_timestamp().await?;
    Ok(Operations::new(client, workload, read_ts))
}
