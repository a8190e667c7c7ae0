//! The floor: the least code that exchanges the same messages. `bench-peer-floor PD WORKLOAD CALLERS SECONDS WARM_UP`.
//!
//! One HTTP/2 connection, one BatchCommands stream and one stream of timestamps on it, messages that were encoded
//! beforehand, and a map of who waits for what. It looks for no region, reads no answer, tries nothing again and knows no
//! time: what a client costs more than this is what it costs to be a client. Only for the null server, whose PD and store
//! are one.

mod connection;
mod exchange;
mod steps;

use std::process::ExitCode;
use std::sync::Arc;

use tikv_bench_load::{Arguments, Caller, Failure, measure};

use crate::exchange::Exchange;
use crate::steps::{Step, steps};

#[expect(clippy::print_stderr, reason = "there is nobody else to tell")]
fn main() -> ExitCode {
    match run() {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("bench-peer-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments = Arguments::of_process()?;
    let steps: Arc<[Step]> = steps(arguments.workload).ok_or("the floor does not do this")?.into();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exchange = Arc::new(Exchange::default());
    let connection = runtime.block_on(connection::open(&arguments.pd, Arc::clone(&exchange)))?;
    runtime.spawn(connection);
    measure(
        &arguments,
        |task| drop(runtime.spawn(task)),
        |_| Calling { exchange: Arc::clone(&exchange), steps: Arc::clone(&steps) },
    );
    Ok(())
}

struct Calling {
    exchange: Arc<Exchange>,
    steps: Arc<[Step]>,
}

impl Caller for Calling {
    async fn operate(&mut self) -> Result<(), Failure> {
        for step in &*self.steps {
            match step {
                Step::Timestamp => drop(self.exchange.timestamp().await?),
                Step::Call(entry) => drop(self.exchange.call(entry).await?),
                // As what clients do in the background.
                Step::Send(entry) => drop(self.exchange.call(entry)),
            }
        }
        Ok(())
    }
}
