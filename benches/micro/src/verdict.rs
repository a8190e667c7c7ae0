//! Whether operations cost more than they did.

use std::fmt;

use crate::figures::{Figures, Record};

/// By how much a figure may grow.
const TOLERATED: f64 = 0.03;

/// What is aimed at: instructions and allocations at most.
const TARGETS: [(&str, f64, f64); 2] = [("raw_get", 2_500.0, 4.0), ("commit_1", 12_000.0, 30.0)];

/// What was measured, next to what was before.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether compiler and processor are those of before.
    comparable: bool,
    lines: Vec<Line>,
    failures: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    now: Figures,
    before: Option<Figures>,
}

/// Sets measured figures against those of before.
#[must_use]
pub fn judge(now: &Record, before: &Record) -> Verdict {
    let comparable = now.environment == before.environment;
    let line = |(name, figures): (&String, &Figures)| Line {
        name: name.clone(),
        now: *figures,
        before: before.operations.get(name).copied(),
    };
    let lines: Vec<Line> = now.operations.iter().map(line).collect();
    let unmeasured = before.operations.keys().filter(|name| !now.operations.contains_key(*name));
    let mut failures: Vec<_> = unmeasured.map(|name| format!("{name} was not measured")).collect();
    for line in &lines {
        match line.before {
            Some(before) => failures.extend(line.growths(before, comparable)),
            None => failures.push(format!("{} is not recorded", line.name)),
        }
    }
    Verdict { comparable, lines, failures }
}

impl Verdict {
    /// What is wrong; nothing if all is well.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl Line {
    /// What grew by too much.
    fn growths(&self, before: Figures, comparable: bool) -> impl Iterator<Item = String> {
        let Figures { instructions, allocations, bytes } = self.now;
        [
            ("instructions", instructions, before.instructions, comparable),
            ("allocations", allocations, before.allocations, true),
            ("bytes", bytes, before.bytes, true),
        ]
        .into_iter()
        .filter(|(_, now, before, judged)| *judged && *now > before * (1.0 + TOLERATED))
        .map(|(what, now, before, _)| format!("{what} of {} grew from {before} to {now}", self.name))
    }

    /// Whether the target is met, if there is one.
    fn target(&self) -> Option<String> {
        let (_, instructions, allocations) = TARGETS.into_iter().find(|(name, ..)| *name == self.name)?;
        let met = self.now.instructions <= instructions && self.now.allocations <= allocations;
        Some(format!("≤ {instructions} and {allocations}: {}", if met { "met" } else { "missed" }))
    }
}

/// A figure and by how many percent it changed.
fn change(now: f64, before: Option<f64>) -> String {
    let percent = before.filter(|before| *before > 0.0).map(|before| (now / before - 1.0) * 100.0);
    format!("{now:>12.2} {:>8}", percent.map_or_else(String::new, |percent| format!("{percent:+.1} %")))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15} {:>12} {:>21} {:>21}           target",
            "operation", "instructions", "allocations", "bytes"
        )?;
        for line in &self.lines {
            let before = line.before;
            let row = format!(
                "{:<15} {} {} {}  {}",
                line.name,
                change(line.now.instructions, before.map(|before| before.instructions)),
                change(line.now.allocations, before.map(|before| before.allocations)),
                change(line.now.bytes, before.map(|before| before.bytes)),
                line.target().unwrap_or_default(),
            );
            writeln!(f, "{}", row.trim_end())?;
        }
        if !self.comparable {
            writeln!(f, "Another compiler or processor than that of the baselines: instructions are not judged.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Figures = Figures { instructions: 1_000.0, allocations: 10.0, bytes: 0.0 };

    fn record(environment: &str, operations: &[(&str, Figures)]) -> Record {
        let operations = operations.iter().map(|(name, figures)| ((*name).to_owned(), *figures)).collect();
        Record { environment: environment.to_owned(), operations }
    }

    fn failures(environment: &str, now: Figures) -> Vec<String> {
        judge(&record(environment, &[("get", now)]), &record("here", &[("get", BEFORE)])).failures
    }

    #[test]
    fn growth_by_three_percent_is_tolerated_and_more_is_not() {
        assert!(failures("here", Figures { instructions: 1_030.0, allocations: 10.3, bytes: 0.0 }).is_empty());
        let grown = failures("here", Figures { instructions: 1_030.1, ..BEFORE });
        assert_eq!(grown, ["instructions of get grew from 1000 to 1030.1"]);
        assert_eq!(failures("here", Figures { allocations: 10.31, ..BEFORE }).len(), 1);
        assert_eq!(failures("here", Figures { bytes: 0.01, ..BEFORE }).len(), 1);
    }

    #[test]
    fn what_shrinks_is_welcome() {
        assert!(failures("here", Figures { instructions: 1.0, allocations: 0.0, bytes: 0.0 }).is_empty());
    }

    #[test]
    fn instructions_of_another_compiler_are_shown_and_only_allocations_and_bytes_judged() {
        assert!(failures("elsewhere", Figures { instructions: 9_000.0, ..BEFORE }).is_empty());
        let grown = failures("elsewhere", Figures { instructions: 9_000.0, allocations: 11.0, bytes: 1.0 });
        assert_eq!(grown, ["allocations of get grew from 10 to 11", "bytes of get grew from 0 to 1"]);
        let shown = judge(&record("elsewhere", &[("get", BEFORE)]), &record("here", &[("get", BEFORE)])).to_string();
        assert!(shown.contains("instructions are not judged"), "{shown}");
    }

    #[test]
    fn an_operation_without_a_baseline_and_one_that_was_not_measured_fail() {
        let (now, before) = (record("here", &[("new", BEFORE)]), record("here", &[("old", BEFORE)]));
        assert_eq!(judge(&now, &before).failures, ["old was not measured", "new is not recorded"]);
    }

    #[test]
    fn the_table_says_whether_targets_are_met() {
        let shown = |allocations| {
            let now = record("here", &[("raw_get", Figures { instructions: 2_500.0, allocations, bytes: 1.0 })]);
            judge(&now, &now).to_string()
        };
        assert!(shown(4.0).contains("≤ 2500 and 4: met"), "{}", shown(4.0));
        assert!(shown(4.01).contains("missed"), "{}", shown(4.01));
    }
}
