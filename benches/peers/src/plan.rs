//! What is measured.

use std::fmt;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::peer::Peer;
use crate::server::ServerKind;
use crate::targets::is_aimed_at;

/// One workload with so many callers, for several peers in turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    pub(crate) server: ServerKind,
    pub(crate) workload: String,
    pub(crate) callers: usize,
    pub(crate) peers: Vec<Peer>,
}

/// A workload and how many callers it is worth.
struct Row {
    workload: &'static str,
    quick: &'static [usize],
    full: &'static [usize],
    /// Whether the floor can do it.
    floor: bool,
}

const fn row(workload: &'static str, quick: &'static [usize], full: &'static [usize], floor: bool) -> Row {
    Row { workload, quick, full, floor }
}

const ROWS: &[Row] = &[
    row("raw_get", &[1, 16, 128, 512], &[1, 16, 128, 512, 2048], true),
    row("raw_put", &[1, 16, 128, 512], &[1, 16, 128, 512, 2048], true),
    row("snapshot_get", &[1, 16, 128, 512], &[1, 16, 128, 512, 2048], true),
    row("raw_batch_get_100", &[16], &[1, 16, 128], true),
    row("begin_get", &[128], &[1, 16, 128, 512], true),
    row("commit_1_2pc", &[128], &[1, 16, 128, 512], true),
    row("commit_1_async", &[128], &[1, 128], true),
    row("commit_1_1pc", &[128], &[1, 128], true),
    row("commit_1_pessimistic", &[128], &[1, 128], true),
    row("commit_10_2pc", &[128], &[1, 128], true),
    row("commit_10_async", &[128], &[1, 128], true),
    row("commit_10_1pc", &[128], &[1, 128], true),
    row("commit_10_pessimistic", &[], &[1, 128], true),
    row("commit_10000_2pc", &[1], &[1, 4], false),
    row("scan_10000", &[1], &[1, 4], false),
    row("ycsb_a", &[128], &[16, 128], false),
    row("ycsb_b", &[], &[16, 128], false),
    row("ycsb_c", &[], &[16, 128], false),
    row("ycsb_f", &[], &[16, 128], false),
    row("tso", &[128], &[1, 16, 128, 512], true),
];

/// With so few or many callers are servers measured that set the pace themselves.
const CALLERS_OF_REAL_SERVERS: std::ops::RangeInclusive<usize> = 1..=128;

/// Of operations on 10,000 keys too few would end in less.
const SECONDS_OF_LARGE: f64 = 2.5;

/// A peer starts and connects, some quicker than others.
const SECONDS_TO_START: f64 = 0.1;

/// The cases on one server, as the command line wants them.
pub(crate) fn plan(arguments: &Arguments, server: ServerKind) -> Vec<Case> {
    let is_skipped = |row: &Row| arguments.quick && row.quick.is_empty();
    let is_wanted = |row: &&Row| match &*arguments.workloads {
        [] => !is_skipped(row),
        named => named.iter().any(|workload| workload == row.workload),
    };
    let mut cases = Vec::new();
    for row in ROWS.iter().filter(is_wanted) {
        let planned = if arguments.quick && !is_skipped(row) { row.quick } else { row.full };
        let callers = if arguments.callers.is_empty() { planned } else { &arguments.callers };
        for callers in callers.iter().copied() {
            if server != ServerKind::Null && !CALLERS_OF_REAL_SERVERS.contains(&callers) {
                continue;
            }
            let peers =
                Peer::ALL.into_iter().filter(|peer| takes_part(*peer, arguments, row, callers, server)).collect();
            cases.push(Case { server, workload: row.workload.to_owned(), callers, peers });
        }
    }
    cases
}

/// How long it takes to measure all of them.
pub(crate) fn duration<'a>(arguments: &Arguments, cases: impl Iterator<Item = &'a Case>) -> Duration {
    let seconds = |case: &Case| case.seconds(arguments.seconds) + arguments.warm_up + SECONDS_TO_START;
    let round: f64 = cases.map(|case| case.peers.len() as f64 * seconds(case)).sum();
    Duration::try_from_secs_f64(round * arguments.rounds as f64).unwrap_or(Duration::MAX)
}

fn takes_part(peer: Peer, arguments: &Arguments, row: &Row, callers: usize, server: ServerKind) -> bool {
    match peer {
        Peer::Floor if !row.floor || server != ServerKind::Null => false,
        _ if !arguments.peers.is_empty() => arguments.peers.contains(&peer),
        Peer::Smol | Peer::AsyncStd => !arguments.quick || is_aimed_at(server, row.workload, callers, peer),
        Peer::Tokio | Peer::ClientGo | Peer::TikvClient | Peer::Floor => true,
    }
}

impl Case {
    /// For how long it is measured where the others are for `seconds`.
    pub(crate) fn seconds(&self, seconds: f64) -> f64 {
        if self.workload.contains("10000") { seconds.max(SECONDS_OF_LARGE) } else { seconds }
    }

    /// The name of the workload, with the server before it unless that is the usual one.
    pub(crate) fn name(&self) -> String {
        match self.server {
            ServerKind::Null => self.workload.clone(),
            server => format!("{server}:{}", self.workload),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.callers)
    }
}

#[cfg(test)]
mod tests {
    use tikv_bench_load::Workload;

    use super::*;

    #[test]
    fn every_planned_workload_is_known_to_peers() {
        for row in ROWS {
            assert!(row.workload.parse::<Workload>().is_ok(), "{}", row.workload);
        }
    }

    #[test]
    fn the_choices_of_the_command_line_are_kept() {
        let arguments = Arguments {
            workloads: vec!["raw_get".to_owned(), "scan_10000".to_owned()],
            callers: vec![2],
            peers: vec![Peer::Tokio, Peer::Floor],
            ..Arguments::default()
        };
        let planned: Vec<_> = plan(&arguments, ServerKind::Null).into_iter().map(|c| (c.workload, c.peers)).collect();
        let both = vec![Peer::Tokio, Peer::Floor];
        assert_eq!(planned, [("raw_get".to_owned(), both), ("scan_10000".to_owned(), vec![Peer::Tokio])]);
    }

    #[test]
    fn large_operations_are_given_the_time_to_end() {
        let cases = plan(&Arguments { quick: true, ..Arguments::default() }, ServerKind::Null);
        let longer = cases.iter().filter(|case| case.seconds(0.5) > 0.5).map(|case| &*case.workload);
        assert_eq!(longer.collect::<Vec<_>>(), ["commit_10000_2pc", "scan_10000"]);
        assert!(cases.iter().all(|case| case.seconds(9.0) == 9.0));
    }

    #[test]
    fn in_a_hurry_it_takes_less_than_eight_minutes() {
        let words = ["--quick".to_owned()];
        let arguments = Arguments::parse(&words).expect("choices");
        let took = duration(&arguments, plan(&arguments, ServerKind::Null).iter());
        assert!(took < Duration::from_secs(8 * 60), "{took:?}");
    }

    #[test]
    fn the_floor_meets_the_null_server_alone() {
        for peers in [Vec::new(), Peer::ALL.to_vec()] {
            let cases = plan(&Arguments { peers, ..Arguments::default() }, ServerKind::Sim);
            assert!(!cases.is_empty());
            assert!(cases.iter().all(|case| !case.peers.contains(&Peer::Floor) && case.callers <= 128));
        }
    }

    #[test]
    fn what_is_left_out_in_a_hurry_is_measured_if_it_is_named() {
        let quick = Arguments { quick: true, ..Arguments::default() };
        let is_planned = |arguments: &Arguments, workload: &str| {
            plan(arguments, ServerKind::Null).iter().any(|case| case.workload == workload && !case.peers.is_empty())
        };
        assert!(
            !is_planned(&quick, "ycsb_b") && !is_planned(&Arguments { callers: vec![1], ..quick.clone() }, "ycsb_b")
        );
        assert!(is_planned(&Arguments { workloads: vec!["ycsb_b".to_owned()], ..quick }, "ycsb_b"));
    }
}
