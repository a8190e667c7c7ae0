//! All samples, and what they say.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::figures::{Metric, Sample, Spread};
use crate::peer::Peer;
use crate::plan::Case;

#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) cases: Vec<CaseResults>,
}

/// The samples of a case.
#[derive(Clone, Debug)]
pub(crate) struct CaseResults {
    pub(crate) case: Case,
    /// By peer and round.
    samples: BTreeMap<Peer, BTreeMap<usize, Sample>>,
}

impl CaseResults {
    pub(crate) fn new(case: Case) -> Self {
        CaseResults { case, samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, peer: Peer, round: usize, sample: Sample) {
        self.samples.entry(peer).or_default().insert(round, sample);
    }

    /// The peers that were measured.
    pub(crate) fn peers(&self) -> impl Iterator<Item = Peer> {
        self.samples.keys().copied()
    }

    /// How many measurements are missing, of so many rounds.
    fn missing(&self, rounds: usize) -> usize {
        let measured = |peer| self.samples.get(peer).map_or(0, BTreeMap::len);
        self.case.peers.iter().map(|peer| rounds.saturating_sub(measured(peer))).sum()
    }

    /// A peer's figure over the rounds.
    pub(crate) fn figure(&self, peer: Peer, metric: Metric) -> Option<Spread> {
        Spread::of(self.samples.get(&peer)?.values().filter_map(|sample| sample.get(metric)))
    }

    /// One peer's figure over another's, of the same round each.
    pub(crate) fn ratio(&self, peer: Peer, over: Peer, metric: Metric) -> Option<Spread> {
        let (samples, others) = (self.samples.get(&peer)?, self.samples.get(&over)?);
        Spread::of(
            samples.iter().filter_map(|(round, sample)| Some(sample.get(metric)? / others.get(round)?.get(metric)?)),
        )
    }

    /// How many of a peer's operations have failed.
    pub(crate) fn errors(&self, peer: Peer) -> u64 {
        self.samples.get(&peer).into_iter().flatten().map(|(_, sample)| sample.errors).sum()
    }

    /// Whose figures are set against whose.
    fn pairs(&self) -> impl Iterator<Item = (Peer, Peer)> {
        self.peers().filter(|peer| *peer != Peer::Tokio).map(|peer| match peer {
            Peer::Smol | Peer::AsyncStd => (peer, Peer::Tokio),
            other => (Peer::Tokio, other),
        })
    }
}

impl Results {
    /// The table, the lines for machines, and how the targets are met.
    pub(crate) fn text(&self) -> String {
        let mut text = self.table();
        text.push('\n');
        for case in &self.cases {
            for (peer, over) in case.pairs() {
                text.push_str(&ratio_line(case, peer, over));
            }
        }
        text.push('\n');
        for verdict in self.verdicts() {
            text.push_str(&verdict.line());
        }
        text
    }

    /// How many measurements are missing, of so many rounds.
    pub(crate) fn missing(&self, rounds: usize) -> usize {
        self.cases.iter().map(|case| case.missing(rounds)).sum()
    }

    fn table(&self) -> String {
        let mut table = format!("{:28} {:>7}  {:11}", "workload", "callers", "peer");
        for metric in Metric::ALL {
            let _ = write!(table, " {:>12}", metric.name());
        }
        table.push_str("   spread of throughput, cpu\n");
        for case in &self.cases {
            for peer in case.peers() {
                let _ = write!(table, "{:28} {:>7}  {peer:11}", case.case.name(), case.case.callers);
                for metric in Metric::ALL {
                    let _ = write!(
                        table,
                        " {:>12}",
                        case.figure(peer, metric).map_or("-".to_owned(), |f| digits(f.median))
                    );
                }
                for metric in [Metric::Throughput, Metric::Cpu] {
                    if let Some(spread) = case.figure(peer, metric) {
                        let _ = write!(table, "   {} … {}", digits(spread.lowest), digits(spread.highest));
                    }
                }
                if case.errors(peer) > 0 {
                    let _ = write!(table, "   {} errors", case.errors(peer));
                }
                table.push('\n');
            }
        }
        table
    }
}

/// `ratio raw_get 128 client-go throughput 2.31 cpu 0.28 …`: ours over the peer's; of another runtime, its over tokio's.
fn ratio_line(case: &CaseResults, peer: Peer, over: Peer) -> String {
    let named = if peer == Peer::Tokio { over } else { peer };
    let mut line = format!("ratio {} {named}", case.case);
    for metric in Metric::ALL {
        if let Some(ratio) = case.ratio(peer, over, metric) {
            let _ = write!(line, " {} {:.2}", metric.name(), ratio.median);
        }
    }
    line.push('\n');
    line
}

/// Three digits that matter, more of large numbers.
pub(crate) fn digits(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerKind;

    fn sample(operations: u64, cpu_seconds: f64) -> Sample {
        Sample { operations, all_operations: operations, seconds: 1.0, cpu_seconds, ..Sample::default() }
    }

    fn case(rounds: &[(Peer, usize, Sample)]) -> CaseResults {
        let (workload, peers) = ("raw_get".to_owned(), Vec::new());
        let mut results = CaseResults::new(Case { server: ServerKind::Null, workload, callers: 128, peers });
        for (peer, round, sample) in rounds {
            results.add(*peer, *round, sample.clone());
        }
        results
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        // The machine is half as fast in the second round, and the peer is missing in the third.
        let results = case(&[
            (Peer::Tokio, 0, sample(4000, 1.0)),
            (Peer::ClientGo, 0, sample(1000, 1.0)),
            (Peer::Tokio, 1, sample(1000, 1.0)),
            (Peer::ClientGo, 1, sample(500, 1.0)),
            (Peer::Tokio, 2, sample(9000, 1.0)),
        ]);
        let ratio = results.ratio(Peer::Tokio, Peer::ClientGo, Metric::Throughput);
        assert_eq!(ratio, Some(Spread { median: 3.0, lowest: 2.0, highest: 4.0 }));
        assert_eq!(results.ratio(Peer::Tokio, Peer::Floor, Metric::Throughput), None);
    }

    #[test]
    fn lines_are_ours_over_theirs_and_of_other_runtimes_over_tokio() {
        let cases = vec![case(&[
            (Peer::Tokio, 0, sample(1000, 1.0)),
            (Peer::Smol, 0, sample(500, 1.0)),
            (Peer::Floor, 0, sample(4000, 1.0)),
        ])];
        let text = Results { cases }.text();
        assert!(text.contains("\nratio raw_get 128 smol throughput 0.50 cpu 2.00\n"), "{text}");
        assert!(text.contains("\nratio raw_get 128 floor throughput 0.25 cpu 4.00\n"), "{text}");
    }
}
