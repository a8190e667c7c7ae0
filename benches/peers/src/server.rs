//! The servers, each a process of its own.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

use crate::arguments::Arguments;

/// What the clients talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Answers at once, from nothing.
    Null,
    /// The simulated cluster.
    Sim,
    /// That of the interop checks.
    Unistore,
}

impl ServerKind {
    pub(crate) const ALL: [ServerKind; 3] = [ServerKind::Null, ServerKind::Sim, ServerKind::Unistore];

    pub(crate) fn name(self) -> &'static str {
        match self {
            ServerKind::Null => "null",
            ServerKind::Sim => "sim",
            ServerKind::Unistore => "unistore",
        }
    }

    fn command(self, arguments: &Arguments) -> Command {
        match self {
            ServerKind::Null => Command::new(arguments.programs.join("bench-null-server")),
            ServerKind::Sim => {
                let mut command = Command::new(arguments.programs.join("tikv-sim"));
                command.args(["serve", "--exit-on-eof"]);
                command
            }
            ServerKind::Unistore => {
                let mut command = Command::new(arguments.others.join("unistore"));
                command.args(["--pd-addr", "127.0.0.1:0", "--stores", "3", "--regions", "8", "--exit-on-eof"]);
                command
            }
        }
    }
}

impl FromStr for ServerKind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        ServerKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A server that runs until this is dropped.
pub(crate) struct Server {
    kind: ServerKind,
    pd: String,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn start(kind: ServerKind, arguments: &Arguments) -> io::Result<Self> {
        Server::run(kind, kind.command(arguments))
    }

    /// The null server with so many stores.
    pub(crate) fn with_stores(stores: usize, arguments: &Arguments) -> io::Result<Self> {
        let mut command = ServerKind::Null.command(arguments);
        command.args(["--stores", &stores.to_string()]);
        Server::run(ServerKind::Null, command)
    }

    fn run(kind: ServerKind, mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", command.get_program().to_string_lossy()))
        })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a child without pipes"));
        };
        let mut server = Server { kind, pd: String::new(), child, stdin, stdout: BufReader::new(stdout) };
        let line = server.line()?;
        let pd = line.strip_prefix("pd ").ok_or_else(|| io::Error::other(format!("{kind} said: {line}")))?;
        server.pd = pd.to_owned();
        Ok(server)
    }

    /// Where its PD listens.
    pub(crate) fn pd(&self) -> &str {
        &self.pd
    }

    /// The bytes that it has received and sent so far, if it counts them.
    pub(crate) fn traffic(&mut self) -> io::Result<Option<u64>> {
        if self.kind != ServerKind::Null {
            return Ok(None);
        }
        writeln!(self.stdin, "bytes")?;
        self.stdin.flush()?;
        let line = self.line()?;
        Ok(Some(line.split(' ').filter_map(|word| word.parse::<u64>().ok()).sum()))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to lose, and may have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
