//! How far a run of many seeds is: a bar where somebody watches, a line now and then where nobody does.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tikv_sim::simulate::{Report, Totals, TransitionTable};

use super::say;

/// How often progress is told where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How often the bar moves, at most.
const DRAWN_PER_SECOND: u8 = 5;

/// What has come of all runs so far.
pub(super) struct Progress {
    totals: Totals,
    pub(super) violations: u64,
    pub(super) begun: Instant,
    told: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// `steps` is how much there is to do; seeds, or seconds.
    pub(super) fn new(steps: u64, counts_seconds: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND));
        let unit = if counts_seconds { "s" } else { "seeds" };
        let template = format!("{{elapsed_precise}} [{{wide_bar}}] {{pos}}/{{len}} {unit}, {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        Progress { totals: Totals::default(), violations: 0, begun: now, told: now, bar }
    }

    pub(super) fn add(&mut self, seed: u64, report: &Report) {
        self.totals.add(&report.totals);
        self.violations += u64::from(report.violation.is_some());
        if self.bar.is_hidden() {
            if self.told.elapsed() >= TOLD_EVERY {
                self.told = Instant::now();
                say(&format!("seed {seed}: {} transactions, {}", self.totals.transactions, self.speed()));
            }
            return;
        }
        let violations = match self.violations {
            0 => String::new(),
            count => format!(", {count} VIOLATIONS"),
        };
        let per_second = self.totals.transactions as f64 / self.begun.elapsed().as_secs_f64();
        let message = format!("{} transactions, {per_second:.0}/s{violations}", self.totals.transactions);
        self.bar.set_message(message);
    }

    /// How much of what there is to do is done.
    pub(super) fn set_done(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Says something without mixing it up with the bar.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| say(text));
    }

    /// Takes the bar away, and says what has come of it all; of each transition how often it was taken, if they are wanted
    /// `in_full`. Whether all is well.
    pub(super) fn finish(&self, in_full: bool) -> bool {
        self.bar.finish_and_clear();
        say(&format!("{}{}", self.totals, self.speed()));
        let transitions = TransitionTable::new(&self.totals.transitions, in_full);
        say(&transitions.to_string());
        say(&match self.violations {
            0 => "no violation".to_owned(),
            1 => "1 violation".to_owned(),
            count => format!("{count} violations"),
        });
        self.violations == 0 && transitions.undeclared().next().is_none()
    }

    fn speed(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let per_second = |count: u64| count as f64 / seconds;
        format!(
            "{seconds:.1} s, {:.0} transactions/s, {:.0} events/s, {:.0} times as fast as its clocks",
            per_second(self.totals.transactions),
            per_second(self.totals.events),
            self.totals.virtual_time.as_secs_f64() / seconds,
        )
    }
}
