//! What a peer is told to do.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The command line of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Arguments {
    /// Where PD listens, as `host:port`.
    pub pd: String,
    /// What each caller does again and again.
    pub workload: Workload,
    /// How many callers there are at once.
    pub callers: usize,
    /// For how long it is measured.
    pub duration: Duration,
    /// How long it runs before that.
    pub warm_up: Duration,
}

/// What one operation of a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Gets one raw key.
    RawGet,
    /// Puts one raw key.
    RawPut,
    /// Gets 100 raw keys in one call.
    RawBatchGet,
    /// Gets one key from a fresh snapshot at a known timestamp.
    SnapshotGet,
    /// Begins a transaction and gets one key.
    BeginGet,
    /// Writes so many keys in a transaction of this kind.
    Commit(usize, Commit),
    /// Scans the 10,000 transactional records.
    Scan,
    /// Raw gets and puts in the proportions of the Yahoo benchmark.
    Ycsb(Ycsb),
    /// Takes a timestamp.
    Tso,
    /// Writes the records, once.
    Load,
}

/// How a transaction commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Prewrite, then commit.
    TwoPhase,
    /// Decided by the last prewrite.
    Async,
    /// One request.
    OnePhase,
    /// Locks its keys before it writes them, then as `TwoPhase`.
    Pessimistic,
}

/// Workloads of the Yahoo benchmark, on keys of equal probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ycsb {
    /// Half gets, half puts.
    A,
    /// 95 gets of 100.
    B,
    /// Gets.
    C,
    /// Half gets, half gets followed by a put of the same key.
    F,
}

impl Ycsb {
    /// Of 100 operations, how many only read.
    pub fn reads_of_100(self) -> u32 {
        match self {
            Ycsb::A | Ycsb::F => 50,
            Ycsb::B => 95,
            Ycsb::C => 100,
        }
    }
}

const WORKLOADS: &[(&str, Workload)] = &[
    ("raw_get", Workload::RawGet),
    ("raw_put", Workload::RawPut),
    ("raw_batch_get_100", Workload::RawBatchGet),
    ("snapshot_get", Workload::SnapshotGet),
    ("begin_get", Workload::BeginGet),
    ("commit_1_2pc", Workload::Commit(1, Commit::TwoPhase)),
    ("commit_1_async", Workload::Commit(1, Commit::Async)),
    ("commit_1_1pc", Workload::Commit(1, Commit::OnePhase)),
    ("commit_1_pessimistic", Workload::Commit(1, Commit::Pessimistic)),
    ("commit_10_2pc", Workload::Commit(10, Commit::TwoPhase)),
    ("commit_10_async", Workload::Commit(10, Commit::Async)),
    ("commit_10_1pc", Workload::Commit(10, Commit::OnePhase)),
    ("commit_10_pessimistic", Workload::Commit(10, Commit::Pessimistic)),
    ("commit_10000_2pc", Workload::Commit(10_000, Commit::TwoPhase)),
    ("scan_10000", Workload::Scan),
    ("ycsb_a", Workload::Ycsb(Ycsb::A)),
    ("ycsb_b", Workload::Ycsb(Ycsb::B)),
    ("ycsb_c", Workload::Ycsb(Ycsb::C)),
    ("ycsb_f", Workload::Ycsb(Ycsb::F)),
    ("tso", Workload::Tso),
    ("load", Workload::Load),
];

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = WORKLOADS.iter().find(|(known, _)| *known == name);
        found.map(|(_, workload)| *workload).ok_or_else(|| format!("no such workload: {name}"))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = WORKLOADS.iter().find(|(_, workload)| workload == self);
        f.write_str(found.map_or("?", |(name, _)| name))
    }
}

impl Arguments {
    /// How many words there are.
    pub const WORDS: usize = 5;

    /// Those of this process.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn of_process() -> Result<Self, String> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        Arguments::parse(&words)
    }

    /// Those in `words`, without the name of the program.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let [pd, workload, callers, seconds, warm_up] = words else {
            return Err("usage: PEER PD WORKLOAD CALLERS SECONDS WARM_UP".to_owned());
        };
        Ok(Arguments {
            pd: pd.clone(),
            workload: workload.parse()?,
            callers: callers.parse().map_err(|_| format!("no number of callers: {callers}"))?,
            duration: parse_seconds(seconds)?,
            warm_up: parse_seconds(warm_up)?,
        })
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("no number of seconds: {text}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("no time to wait: {text} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn a_peer_understands_the_line_of_the_driver() {
        let expected = Arguments {
            pd: "127.0.0.1:2379".to_owned(),
            workload: Workload::Commit(10, Commit::Async),
            callers: 128,
            duration: Duration::from_millis(2500),
            warm_up: Duration::from_millis(500),
        };
        assert_eq!(parse("127.0.0.1:2379 commit_10_async 128 2.5 0.5"), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in
            ["", "pd raw_get 1 1", "pd raw_set 1 1 1", "pd raw_get x 1 1", "pd raw_get 1 -1 1", "pd raw_get 1 1 NaN"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_workload_has_a_name_that_means_it() {
        for (name, workload) in WORKLOADS {
            assert_eq!((name.parse(), workload.to_string()), (Ok(*workload), (*name).to_owned()));
        }
    }
}
