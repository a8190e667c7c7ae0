//! What the driver is told to do.

use std::path::PathBuf;

use tikv_bench_load::Workload;

use crate::peer::Peer;
use crate::server::ServerKind;

pub(crate) const HELP: &str = "\
benches/peers/run [OPTIONS]

  --scaling           instead: our client alone, with more and more callers, connections and stores; three minutes
  --quick             fewer numbers of callers, shorter runs, the null server: some minutes
  --output DIR        writes results.txt and report.html there (--scaling: scaling.md and scaling.html)
  --markdown FILE     writes the table of targets there, as docs/performance.md has it (--scaling: all tables)
  --workloads A,B     only these (raw_get, raw_put, raw_batch_get_100, snapshot_get, begin_get, commit_1_2pc, …)
  --callers 1,128     so many callers, instead of those of the plan
  --peers A,B         only these (tokio, smol, async-std, client-go, tikv-client, floor)
  --servers A,B       only these (null, sim, unistore)
  --rounds N          rounds (3 if quick or scaling, else 5)
  --seconds S         measures for so long at once (0.8 if quick, 1.2 if scaling, else 2; workloads of 10,000 keys longer)
  --no-build          with the programs of the last time";

/// What is measured is fixed there.
const NOT_OF_SCALING: [&str; 5] = ["--quick", "--workloads", "--callers", "--peers", "--servers"];

/// The choices of the command line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Arguments {
    pub(crate) quick: bool,
    pub(crate) scaling: bool,
    pub(crate) output: Option<PathBuf>,
    pub(crate) markdown: Option<PathBuf>,
    /// Where the programs of the workspace are.
    pub(crate) programs: PathBuf,
    /// Where the others are.
    pub(crate) others: PathBuf,
    /// Empty for those of the plan, as the next two.
    pub(crate) workloads: Vec<String>,
    pub(crate) callers: Vec<usize>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) servers: Vec<ServerKind>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
}

impl Arguments {
    /// Those of this process; `None` if it is asked for help.
    pub(crate) fn of_process() -> Result<Option<Self>, String> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        if words.iter().any(|word| word == "--help") {
            return Ok(None);
        }
        Arguments::parse(&words).map(Some)
    }

    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let is_given = |flag: &str| words.iter().any(|word| word == flag);
        let (quick, scaling) = (is_given("--quick"), is_given("--scaling"));
        if let Some(choice) = NOT_OF_SCALING.into_iter().find(|choice| scaling && is_given(choice)) {
            return Err(format!("{choice} means nothing with --scaling"));
        }
        let mut arguments = Arguments { quick, scaling, ..Arguments::default() };
        (arguments.rounds, arguments.seconds, arguments.warm_up) = match (scaling, quick) {
            (true, _) => (3, 1.2, 0.4),
            (_, true) => (3, 0.8, 0.3),
            _ => (5, 2.0, 0.5),
        };
        arguments.servers = if quick { vec![ServerKind::Null] } else { ServerKind::ALL.to_vec() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if ["--quick", "--scaling", "--no-build"].contains(&&**word) {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} is unknown or lacks a value"))?;
            match &**word {
                "--output" => arguments.output = Some(value.into()),
                "--markdown" => arguments.markdown = Some(value.into()),
                "--programs" => arguments.programs = value.into(),
                "--others" => arguments.others = value.into(),
                "--workloads" => arguments.workloads = value.split(',').map(known).collect::<Result<_, _>>()?,
                "--callers" => arguments.callers = list(value)?,
                "--peers" => arguments.peers = list(value)?,
                "--servers" => arguments.servers = list(value)?,
                "--rounds" => arguments.rounds = number(value)?,
                "--seconds" => arguments.seconds = number(value)?,
                _ => return Err(format!("{word} is unknown")),
            }
        }
        Ok(arguments)
    }
}

fn known(workload: &str) -> Result<String, String> {
    workload.parse::<Workload>().map(|workload| workload.to_string())
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(number).collect()
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} makes no sense here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn quick_means_less_and_what_is_said_wins() {
        let quick = parse("--rounds 1 --quick --callers 1,16").expect("choices");
        assert_eq!((quick.rounds, quick.callers, quick.servers), (1, vec![1, 16], vec![ServerKind::Null]));
        assert!(quick.seconds < parse("").expect("choices").seconds);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for line in [
            "--fast",
            "--fast 1",
            "--rounds",
            "--rounds x",
            "--peers tokio,java",
            "--servers real",
            "--workloads raw_got",
            "--scaling --quick",
            "--callers 1 --scaling",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
