//! How the targets are met.

use std::fmt::Write;

use crate::figures::Spread;
use crate::plan::Case;
use crate::results::{CaseResults, Results};
use crate::targets::{TARGETS, Target};

/// One target in one case.
#[derive(Debug)]
pub(crate) struct Verdict<'a> {
    case: &'a Case,
    target: &'static Target,
    /// `None` if there was no round in which both sides were measured.
    ratio: Option<Spread>,
    /// Some operations have failed, of either side: the others are no measure then.
    has_errors: bool,
}

impl Results {
    /// All that could be judged: every target, in each case in which both sides were to be measured.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = Verdict<'_>> {
        TARGETS.iter().flat_map(|target| self.cases.iter().filter_map(|case| verdict(case, target)))
    }

    /// Those as a table of a document.
    pub(crate) fn markdown(&self) -> String {
        let mut table = "| workload | callers | against | figure | target | measured | rounds | |\n".to_owned();
        table.push_str("|---|---|---|---|---|---|---|---|\n");
        for verdict in self.verdicts() {
            table.push_str(&verdict.row());
        }
        table
    }
}

fn verdict<'a>(results: &'a CaseResults, target: &'static Target) -> Option<Verdict<'a>> {
    let case = &results.case;
    let (peer, over) = target.sides();
    let is_planned = case.peers.contains(&peer) && case.peers.contains(&over);
    if !is_planned || !target.is_about(case.server, &case.workload, case.callers) {
        return None;
    }
    let has_errors = results.errors(peer) + results.errors(over) > 0;
    Some(Verdict { case, target, ratio: results.ratio(peer, over, target.metric), has_errors })
}

impl Verdict<'_> {
    /// For machines: `target raw_get 128 client-go cpu <= 0.22 0.28 [0.27 0.31] missed`.
    pub(crate) fn line(&self) -> String {
        let Target { peer, metric, bound, .. } = self.target;
        let ratio = self.ratio.map_or_else(
            || "-".to_owned(),
            |ratio| format!("{:.2} [{:.2} {:.2}]", ratio.median, ratio.lowest, ratio.highest),
        );
        format!("target {} {peer} {} {bound} {ratio} {}\n", self.case, metric.name(), self.word())
    }

    fn row(&self) -> String {
        let (case, target) = (self.case, self.target);
        let mut row =
            format!("| `{}` | {} | {} | {} | ", case.workload, case.callers, target.peer, target.metric.name());
        let bound = target.bound.to_string().replace(">=", "≥").replace("<=", "≤");
        let _ = match self.ratio {
            Some(ratio) => {
                write!(row, "{bound} | {:.2} | {:.2} … {:.2} | ", ratio.median, ratio.lowest, ratio.highest)
            }
            None => write!(row, "{bound} | | | "),
        };
        row + self.word() + " |\n"
    }

    fn word(&self) -> &'static str {
        match self.ratio {
            _ if self.has_errors => "has errors",
            None => "not measured",
            Some(ratio) if self.target.is_met(ratio.median) => "met",
            Some(_) => "missed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Sample;
    use crate::peer::Peer;
    use crate::server::ServerKind;

    fn results(callers: usize, samples: &[(Peer, f64)]) -> Results {
        let peers = vec![Peer::Tokio, Peer::Floor];
        let case = Case { server: ServerKind::Null, workload: "raw_get".to_owned(), callers, peers };
        let mut results = CaseResults::new(case);
        for (peer, cpu_seconds) in samples.iter().copied() {
            let sample = Sample { operations: 1000, seconds: 1.0, cpu_seconds, ..Sample::default() };
            results.add(peer, 0, sample);
        }
        Results { cases: vec![results] }
    }

    fn lines(results: &Results) -> Vec<String> {
        results.verdicts().map(|verdict| verdict.line()).collect()
    }

    #[test]
    fn a_ratio_is_held_against_its_bound() {
        let met = results(128, &[(Peer::Tokio, 3.0), (Peer::Floor, 2.0)]);
        assert_eq!(lines(&met), ["target raw_get 128 floor cpu <= 1.7 1.50 [1.50 1.50] met\n"]);
        let missed = results(128, &[(Peer::Tokio, 4.0), (Peer::Floor, 2.0)]);
        assert_eq!(lines(&missed), ["target raw_get 128 floor cpu <= 1.7 2.00 [2.00 2.00] missed\n"]);
        assert!(
            missed.markdown().ends_with("| `raw_get` | 128 | floor | cpu | ≤ 1.7 | 2.00 | 2.00 … 2.00 | missed |\n")
        );
    }

    #[test]
    fn what_was_not_measured_or_has_failed_is_said_to_be_neither_met_nor_missed() {
        let alone = results(128, &[(Peer::Tokio, 3.0)]);
        assert_eq!(lines(&alone), ["target raw_get 128 floor cpu <= 1.7 - not measured\n"]);
        assert!(alone.markdown().ends_with("| floor | cpu | ≤ 1.7 | | | not measured |\n"));
        let mut failing = results(128, &[(Peer::Tokio, 1.0), (Peer::Floor, 2.0)]);
        failing.cases[0].add(Peer::Tokio, 1, Sample { errors: 1, ..Sample::default() });
        assert_eq!(lines(&failing), ["target raw_get 128 floor cpu <= 1.7 0.50 [0.50 0.50] has errors\n"]);
    }

    #[test]
    fn nothing_is_said_where_nothing_is_aimed_at() {
        assert!(lines(&results(2, &[(Peer::Tokio, 3.0), (Peer::Floor, 2.0)])).is_empty());
    }
}
