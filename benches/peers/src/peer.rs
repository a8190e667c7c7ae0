//! The peers, each a process for each measurement.

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::figures::Sample;
use crate::plan::Case;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// Our client over tokio: what "ours" means where nothing else is said.
    Tokio,
    Smol,
    AsyncStd,
    ClientGo,
    /// The `tikv-client` crate.
    TikvClient,
    /// The least code that exchanges the same messages.
    Floor,
}

/// What a peer may take beyond its time before it has failed.
const GRACE: Duration = Duration::from_secs(20);

impl Peer {
    pub(crate) const ALL: [Peer; 6] =
        [Peer::Tokio, Peer::Smol, Peer::AsyncStd, Peer::ClientGo, Peer::TikvClient, Peer::Floor];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Tokio => "tokio",
            Peer::Smol => "smol",
            Peer::AsyncStd => "async-std",
            Peer::ClientGo => "client-go",
            Peer::TikvClient => "tikv-client",
            Peer::Floor => "floor",
        }
    }

    /// Writes the records.
    pub(crate) fn load(self, arguments: &Arguments, pd: &str) -> Result<(), Box<dyn Error>> {
        self.run(arguments, &[pd, "load", "1", "0", "0"], GRACE * 3).map(drop)
    }

    pub(crate) fn measure(self, arguments: &Arguments, pd: &str, case: &Case) -> Result<Sample, Box<dyn Error>> {
        self.measure_with(arguments, pd, case, &[])
    }

    /// With words behind those that all peers understand.
    pub(crate) fn measure_with(
        self,
        arguments: &Arguments,
        pd: &str,
        case: &Case,
        more: &[&str],
    ) -> Result<Sample, Box<dyn Error>> {
        let (seconds, warm_up) = (case.seconds(arguments.seconds), arguments.warm_up);
        let limit = Duration::try_from_secs_f64(seconds + warm_up)? + GRACE;
        let words = [case.callers.to_string(), seconds.to_string(), warm_up.to_string()];
        let words = [pd, &case.workload, &words[0], &words[1], &words[2]];
        Ok(Sample::parse(&self.run(arguments, &[&words, more].concat(), limit)?)?)
    }

    fn run(self, arguments: &Arguments, words: &[&str], limit: Duration) -> Result<String, Box<dyn Error>> {
        let mut child = self.command(arguments).args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let given_up = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > given_up {
                child.kill()?;
                child.wait()?;
                return Err("it did not end".into());
            }
            thread::sleep(Duration::from_millis(5));
        };
        // One short line: it fits in the pipe, so that the child never waited for a reader.
        let mut line = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut line)?;
        }
        if status.success() { Ok(line) } else { Err(format!("it ended with {status}").into()) }
    }

    fn command(self, arguments: &Arguments) -> Command {
        let ours = |runtime: &str| {
            let mut command = Command::new(arguments.programs.join("bench-peer-tikv"));
            command.arg(runtime);
            command
        };
        match self {
            Peer::Tokio | Peer::AsyncStd => ours(self.name()),
            Peer::Smol => {
                let mut command = ours(self.name());
                // The others have a thread for each processor unasked.
                command.env("SMOL_THREADS", thread::available_parallelism().map_or(1, usize::from).to_string());
                command
            }
            Peer::ClientGo => Command::new(arguments.others.join("bench-peer-client-go")),
            Peer::TikvClient => Command::new(arguments.others.join("bench-peer-tikv-client")),
            Peer::Floor => Command::new(arguments.programs.join("bench-peer-floor")),
        }
    }
}

impl FromStr for Peer {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Peer::ALL.into_iter().find(|peer| peer.name() == name).ok_or(())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
