//! What is aimed at.

use std::fmt;

use crate::figures::Metric;
use crate::peer::Peer;
use crate::plan::Case;
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

pub(crate) const TARGETS: &[Target] = &[
    target(POINTS, &[128, 512], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(4.0)),
    target(POINTS, &[128, 512], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.22)),
    target(POINTS, &[128, 512], Peer::TikvClient, Metric::Throughput, Bound::AtLeast(15.0)),
    target(POINTS, &[128, 512], Peer::Floor, Metric::Cpu, Bound::AtMost(1.7)),
    target(POINTS, &[16], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(2.5)),
    target(POINTS, &[1], Peer::ClientGo, Metric::P50, Bound::AtMost(1.0)),
    target(&["begin_get"], &[128], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(4.0)),
    target(COMMITS, &[128], Peer::ClientGo, Metric::Throughput, Bound::AtLeast(5.0)),
    target(&["raw_batch_get_100"], &[16], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.5)),
    target(&["scan_10000"], &[1], Peer::ClientGo, Metric::Cpu, Bound::AtMost(0.5)),
    target(&["commit_10000_2pc"], &[1], Peer::ClientGo, Metric::P50, Bound::AtMost(0.5)),
    target(&["commit_10000_2pc"], &[1], Peer::ClientGo, Metric::Memory, Bound::AtMost(0.5)),
    target(&["raw_get", "raw_put", "commit_1_2pc"], &[128], Peer::Smol, Metric::Cpu, Bound::AtMost(1.25)),
    target(&["raw_get", "raw_put", "commit_1_2pc"], &[128], Peer::AsyncStd, Metric::Cpu, Bound::AtMost(1.25)),
];

impl Target {
    pub(crate) fn is_about(&self, case: &Case) -> bool {
        case.server == ServerKind::Null
            && self.workloads.contains(&&*case.workload)
            && self.callers.contains(&case.callers)
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
