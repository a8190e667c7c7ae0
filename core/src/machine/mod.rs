//! The contract of every machine.
//!
//! A [`Machine`] is a step-by-step program that owns its state and does nothing by itself. It is given a [`Context`] (the
//! time, a generator, what the client knows) and an event, and answers by putting commands into the context's outbox and
//! by returning `Poll::Pending` ("I wait for my tokens") or `Poll::Ready` ("done, here is the output").
//!
//! 1. The driver calls [`Machine::start`] once.
//! 2. It carries out every [`Command`] of the [`Outbox`]. A command that expects an answer names a [`Token`].
//! 3. For each such token exactly one [`Event`] comes back through [`Machine::handle`], unless it was cancelled; then
//!    none. Events for tokens that nobody waits for any more are ignored.
//! 4. After `Ready`, the machine must not be called again.
//!
//! Who writes a machine implements [`Machine::begin`] and [`Machine::advance`]; who runs one calls `start` and `handle`.
//!
//! A machine never loops without a bound and never blocks. It is `Clone + Debug + PartialEq + Eq + Hash`, so one state can
//! be continued in every possible way.

mod background;
mod command;
mod context;
mod event;
mod fan_out;
mod phases;
#[cfg(test)]
#[allow(dead_code)] // Not every test uses every step.
pub(crate) mod script;
#[cfg(test)]
mod tests;

use std::task::Poll;

pub use background::{Background, BackgroundMachine};
pub use command::{Call, Command, Observation, Outbox, SleepReason, Token};
pub use context::Context;
pub use event::Event;
pub use fan_out::{ChildId, FanOut};
pub(crate) use phases::phases;
pub use phases::{CurrentPhase, Phases, Step, Transition, TransitionCounts};

/// A step-by-step program; see the [module documentation](self).
pub trait Machine {
    /// What it ends with.
    type Output;

    /// What the machine does first.
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;

    /// What the machine does with the answer to one of its commands.
    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output>;

    /// The phase it is in, if it has phases worth naming.
    fn phase(&self) -> Option<CurrentPhase> {
        None
    }

    /// Begins. Called once, before anything else. Not to be overridden.
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let from = self.phase().map(|(phases, _)| (phases, phases::START));
        let poll = self.begin(cx);
        cx.note_step(from, self.phase().filter(|_| poll.is_pending()));
        poll
    }

    /// Takes the answer to one of its commands. Not to be overridden.
    fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        let from = self.phase();
        let poll = self.advance(cx, token, event);
        cx.note_step(from, self.phase().filter(|_| poll.is_pending()));
        poll
    }

    /// The owner has lost interest (dropped its future, or passed its deadline). The machine says whether it can simply be
    /// thrown away, or has begun something that must be finished in the background; in the latter case the driver keeps
    /// driving it and ignores its output. The default is to throw it away; the driver then cancels its tokens.
    fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
        let _ = cx;
        Abandoned::Discard
    }
}

/// What becomes of a machine whose owner has lost interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abandoned {
    /// Nothing it started matters any more: cancel its tokens and drop it.
    Discard,
    /// It must run to its end without its owner.
    FinishInBackground,
}
