//! Cuts a scenario that breaks a rule down to what it takes to break it.
//!
//! ```text
//!   all faults ──ddmin──► few faults ──► fewer transactions, clients, sessions, keys, … ──► again, until nothing shrinks
//! ```
//!
//! Whatever is tried is a scenario like any other, and is kept if the same [rule](Rule) is broken: perhaps at another moment
//! and for another transaction, since a run without one of its faults is another run. What is left is minimal in so far as it
//! holds no more once any single fault is taken away, unless the runs were used up before that was known.
//!
//! Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input (2002), for `ddmin`.

use super::check::Rule;
use super::options::Options;
use super::scenario::Scenario;

/// Rounds over faults and options.
const MAX_ROUNDS: u32 = 4;
/// What is made smaller, in this order: the first save the most time of all further runs.
const SHRINKING: &[&str] = &[
    "transactions",
    "clients",
    "sessions",
    "keys",
    "regions",
    "stores",
    "replicas",
    "pd_members",
    "clock_skew_ms",
    "clock_drift_ppm",
];

/// How much may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Runs.
    pub runs: u32,
}

impl Default for Limits {
    /// 500 runs: seconds, where a run takes milliseconds.
    fn default() -> Self {
        Limits { runs: 500 }
    }
}

/// What is left of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minimised {
    /// The scenario that breaks the rule still.
    pub scenario: Scenario,
    /// Which faults are left, by their places in the schedule there was.
    pub kept: Vec<usize>,
    /// The options that have become smaller, and how small.
    pub options: Vec<(&'static str, u32)>,
    /// How many runs it took.
    pub runs: u32,
    /// Whether there were runs left when nothing could be made smaller any more.
    pub is_minimal: bool,
}

impl Minimised {
    /// The arguments which, after those that draw the scenario there was, make `tikv-sim replay` run this one.
    #[must_use]
    pub fn arguments(&self) -> String {
        let kept: Vec<String> = self.kept.iter().map(ToString::to_string).collect();
        let mut arguments = format!(" --keep {}", if kept.is_empty() { "none".to_owned() } else { kept.join(",") });
        for (name, value) in &self.options {
            arguments.push_str(&format!(" --set {name}={value}"));
        }
        arguments
    }
}

/// Cuts a scenario that breaks a rule. `run` says which rule a scenario breaks, if it breaks one.
///
/// ```
/// use tikv_sim::simulate::{FaultKind, Limits, Plan, Rule, Scenario, minimise};
///
/// let scenario = Scenario::draw(1, &Plan::default());
/// // As if every run with a crash of a store were wrong.
/// let crashes = |scenario: &Scenario| scenario.faults.iter().any(|fault| fault.kind == FaultKind::StoreCrash);
/// let run = |scenario: &Scenario| crashes(scenario).then_some(Rule::SnapshotRead);
/// if crashes(&scenario) {
///     assert_eq!(minimise(&scenario, Rule::SnapshotRead, Limits::default(), run).scenario.faults.len(), 1);
/// }
/// ```
#[must_use]
pub fn minimise(
    scenario: &Scenario,
    rule: Rule,
    limits: Limits,
    mut run: impl FnMut(&Scenario) -> Option<Rule>,
) -> Minimised {
    let mut runs = 0;
    let mut breaks = |candidate: &Scenario| {
        if runs == limits.runs {
            return None;
        }
        runs += 1;
        Some(run(candidate) == Some(rule))
    };
    let mut kept: Vec<usize> = (0..scenario.faults.len()).collect();
    let mut smallest = scenario.clone();
    for _ in 0..MAX_ROUNDS {
        let before = (kept.len(), smallest.options.clone());
        let options = &smallest.options;
        kept = ddmin(kept, |kept| breaks(&cut(scenario, options, kept)));
        smallest = cut(scenario, options, &kept);
        for name in SHRINKING {
            shrink_option(&mut smallest, name, &mut breaks);
        }
        if before == (kept.len(), smallest.options.clone()) {
            break;
        }
    }
    let words = smallest.options.words();
    let changed = Options::NAMES.iter().zip(scenario.options.words()).zip(words);
    let options = changed.filter(|((_, old), new)| old != new).map(|((name, _), new)| (*name, new)).collect();
    Minimised { scenario: smallest, kept, options, runs, is_minimal: runs < limits.runs }
}

fn cut(scenario: &Scenario, options: &Options, kept: &[usize]) -> Scenario {
    let cut = scenario.clone().keeping(kept);
    Scenario { options: options.clone(), ..cut }
}

/// Makes an option as small as a few attempts can: the smallest value there is, or else between it and the present one, where
/// the halves are tried that are likely to do.
fn shrink_option(scenario: &mut Scenario, name: &str, breaks: &mut impl FnMut(&Scenario) -> Option<bool>) {
    let (mut fails_not, mut fails) = (None, scenario.options.get(name).unwrap_or_default());
    let mut candidate = 0;
    loop {
        let mut smaller = scenario.clone();
        // An option that does not exist is not made smaller.
        if smaller.options.set(name, candidate).is_err() {
            return;
        }
        let value = smaller.options.get(name).unwrap_or_default();
        if value >= fails {
            return;
        }
        match breaks(&smaller) {
            None => return,
            Some(true) => {
                fails = value;
                *scenario = smaller;
            }
            Some(false) => fails_not = Some(value),
        }
        let Some(floor) = fails_not else { return };
        if fails - floor <= 1 {
            return;
        }
        candidate = floor + (fails - floor) / 2;
    }
}

/// The smallest part of `whole` found of which `breaks` holds, in the same order; `whole` is taken to be such a part. `None`
/// ends the search.
fn ddmin<T: Clone>(whole: Vec<T>, mut breaks: impl FnMut(&[T]) -> Option<bool>) -> Vec<T> {
    let mut smallest = whole;
    if !smallest.is_empty() && breaks(&[]) == Some(true) {
        return Vec::new();
    }
    let mut parts = 2;
    while smallest.len() > 1 {
        match smaller(&smallest, parts, &mut breaks) {
            Attempt::Stopped => break,
            Attempt::Part(part) => (smallest, parts) = (part, 2),
            Attempt::Rest(rest) => (smallest, parts) = (rest, (parts - 1).max(2)),
            Attempt::Nothing if parts >= smallest.len() => break,
            Attempt::Nothing => parts = (2 * parts).min(smallest.len()),
        }
    }
    smallest
}

enum Attempt<T> {
    /// One part alone does.
    Part(Vec<T>),
    /// All but one part do.
    Rest(Vec<T>),
    Nothing,
    Stopped,
}

fn smaller<T: Clone>(whole: &[T], parts: usize, breaks: &mut impl FnMut(&[T]) -> Option<bool>) -> Attempt<T> {
    let bounds: Vec<_> = (0..=parts).map(|part| part * whole.len() / parts).collect();
    for bound in bounds.windows(2) {
        let part = &whole[bound[0]..bound[1]];
        match breaks(part) {
            None => return Attempt::Stopped,
            Some(true) => return Attempt::Part(part.to_vec()),
            Some(false) => {}
        }
    }
    // Of two parts, each is the rest of the other.
    if parts == 2 {
        return Attempt::Nothing;
    }
    for bound in bounds.windows(2) {
        let rest = [&whole[..bound[0]], &whole[bound[1]..]].concat();
        match breaks(&rest) {
            None => return Attempt::Stopped,
            Some(true) => return Attempt::Rest(rest),
            Some(false) => {}
        }
    }
    Attempt::Nothing
}

#[cfg(test)]
mod tests;
