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
//! A machine never loops without a bound and never blocks. It is `Clone + Debug + PartialEq + Eq + Hash`, so one state can
//! be continued in every possible way.

mod background;
mod command;
mod context;
mod event;
mod fan_out;
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

/// A step-by-step program; see the [module documentation](self).
pub trait Machine {
    /// What it ends with.
    type Output;

    /// Begins. Called once, before anything else.
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;

    /// Takes the answer to one of its commands.
    fn handle(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output>;

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
