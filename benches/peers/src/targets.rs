//! What is aimed at.

use std::fmt;

use crate::figures::Metric;
use crate::peer::Peer;
use crate::server::ServerKind;

/// A ratio that is wanted, against the null server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    workloads: &'static [&'static str],
    callers: &'static [usize],
    pub(crate) peer: Peer,
    pub(crate) metric: Metric,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const fn target(
    workloads: &'static [&'static str],
    callers: &'static [usize],
    peer: Peer,
    metric: Metric,
    bound: Bound,
) -> Target {
    Target { workloads, callers, peer, metric, bound }
}

const POINTS: &[&str] = &["raw_get", "raw_put", "snapshot_get"];
const COMMITS: &[&str] =
    &["commit_1_2pc", "commit_1_async", "commit_1_1pc", "commit_10_2pc", "commit_10_async", "commit_10_1pc"];
/// Where runtimes are set against each other.
const RUNTIMES: &[&str] = &["raw_get", "raw_put", "snapshot_get", "begin_get", "commit_1_2pc"];

pub(crate) const TARGETS: &[Target] = &[
    target(POINTS, &[128, 512], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(4.0)),
    target(POINTS, &[128, 512], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.22)),
    target(POINTS, &[128, 512], Peer::ClientGo, Metric::P99, Bound::AtMost(0.4)),
    target(POINTS, &[128, 512], Peer::TikvClient, Metric::Throughput, Bound::AtLeast(15.0)),
    target(POINTS, &[128, 512], Peer::Floor, Metric::Cpu, Bound::AtMost(1.7)),
    target(POINTS, &[512], Peer::ClientGo, Metric::Memory, Bound::AtMost(0.5)),
    target(POINTS, &[512], Peer::TikvClient, Metric::Memory, Bound::AtMost(1.0)),
    target(POINTS, &[16], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(2.5)),
    target(POINTS, &[16], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.35)),
    target(POINTS, &[16], Peer::TikvClient, Metric::Throughput, Bound::AtLeast(6.0)),
    target(POINTS, &[1], Peer::ClientGo, Metric::P50, Bound::AtMost(1.0)),
    target(POINTS, &[1], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.6)),
    target(POINTS, &[1], Peer::TikvClient, Metric::P50, Bound::AtMost(0.5)),
    target(POINTS, &[1], Peer::Floor, Metric::P50, Bound::AtMost(1.2)),
    target(&["begin_get"], &[128], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(4.0)),
    target(&["begin_get"], &[128], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.22)),
    target(&["begin_get"], &[128], Peer::TikvClient, Metric::Throughput, Bound::AtLeast(8.0)),
    target(COMMITS, &[128], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(5.0)),
    target(COMMITS, &[128], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.18)),
    target(COMMITS, &[128], Peer::TikvClient, Metric::Throughput, Bound::AtLeast(10.0)),
    target(&["raw_batch_get_100"], &[16], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.5)),
    target(&["raw_batch_get_100"], &[16], Peer::TikvClient, Metric::Cpu, Bound::AtMost(0.5)),
    target(&["scan_10000"], &[1], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.5)),
    target(&["scan_10000"], &[1], Peer::TikvClient, Metric::Cpu, Bound::AtMost(0.5)),
    target(&["commit_10000_2pc"], &[1], Peer::ClientGo, Metric::P50, Bound::AtMost(0.5)),
    target(&["commit_10000_2pc"], &[1], Peer::ClientGo, Metric::Memory, Bound::AtMost(0.5)),
    target(&["commit_10000_2pc"], &[1], Peer::TikvClient, Metric::P50, Bound::AtMost(0.3)),
    target(RUNTIMES, &[128], Peer::Smol, Metric::Cpu, Bound::AtMost(1.25)),
    target(RUNTIMES, &[128], Peer::AsyncStd, Metric::Cpu, Bound::AtMost(1.25)),
];

/// Whether a target speaks of this peer in this case.
pub(crate) fn is_aimed_at(server: ServerKind, workload: &str, callers: usize, peer: Peer) -> bool {
    TARGETS.iter().any(|target| target.peer == peer && target.is_about(server, workload, callers))
}

impl Target {
    pub(crate) fn is_about(&self, server: ServerKind, workload: &str, callers: usize) -> bool {
        server == ServerKind::Null && self.workloads.contains(&workload) && self.callers.contains(&callers)
    }

    /// Whose figure is divided by whose.
    pub(crate) fn sides(&self) -> (Peer, Peer) {
        match self.peer {
            Peer::Smol | Peer::AsyncStd => (self.peer, Peer::Tokio),
            other => (Peer::Tokio, other),
        }
    }

    pub(crate) fn is_met(&self, ratio: f64) -> bool {
        match self.bound {
            Bound::AtLeast(least) => ratio >= least,
            Bound::AtMost(most) => ratio <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, ">= {least}"),
            Bound::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use crate::plan::plan;

    /// Each target with each of its workloads and numbers of callers.
    fn all() -> impl Iterator<Item = (&'static Target, &'static str, usize)> {
        TARGETS.iter().flat_map(|target| {
            let of_workload = move |workload| target.callers.iter().map(move |callers| (target, workload, *callers));
            target.workloads.iter().copied().flat_map(of_workload)
        })
    }

    #[test]
    fn what_is_aimed_at_is_measured_also_in_a_hurry() {
        let cases = plan(&Arguments { quick: true, ..Arguments::default() }, ServerKind::Null);
        for (target, workload, callers) in all() {
            let case = cases.iter().find(|case| case.workload == workload && case.callers == callers);
            let peers = case.map(|case| &*case.peers).unwrap_or_default();
            let (peer, over) = target.sides();
            assert!(peers.contains(&peer) && peers.contains(&over), "{workload} {callers} {target:?}");
        }
    }

    #[test]
    fn nothing_is_aimed_at_twice() {
        let mut names: Vec<_> =
            all().map(|(target, workload, callers)| (workload, callers, target.peer, target.metric)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_target_that_is_just_reached_is_met() {
        let met = |bound, ratio| target(&[], &[], Peer::Floor, Metric::Cpu, bound).is_met(ratio);
        assert_eq!([3.99, 4.0, 4.01].map(|ratio| met(Bound::AtLeast(4.0), ratio)), [false, true, true]);
        assert_eq!([0.21, 0.22, 0.23].map(|ratio| met(Bound::AtMost(0.22), ratio)), [true, true, false]);
        assert!(!met(Bound::AtLeast(1.0), f64::NAN) && !met(Bound::AtMost(1.0), f64::NAN));
    }
}
