//! The phases of machines, declared: which may follow which, and which have.
//!
//! A machine of several phases lists the steps between them with [`phases!`](crate::machine::phases!). A step of a machine that
//! does nothing but wait is none; what happens between the beginning and the end of one call of [`Machine`](super::Machine) is
//! one step, however many phases it passes through. Unit tests refuse steps that are not declared. With the feature
//! `transitions` every step is noted, and the simulation shows which of them have been taken.

use std::collections::BTreeMap;

/// The phases of one kind of machine, and what may follow each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases {
    /// The machine.
    pub machine: &'static str,
    /// Each phase with those that may follow it. The first is `start`; `done` is the end.
    pub steps: &'static [(&'static str, &'static [&'static str])],
}

/// A machine has gone from one phase to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transition {
    /// The machine.
    pub machine: &'static str,
    /// The phase before, or `start`.
    pub from: &'static str,
    /// The phase after, or `done`.
    pub to: &'static str,
}

/// How often each transition was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransitionCounts(BTreeMap<Transition, u64>);

impl Phases {
    /// Every transition that is declared, in order.
    pub fn transitions(&self) -> impl Iterator<Item = Transition> {
        let machine = self.machine;
        self.steps.iter().flat_map(move |(from, next)| next.iter().map(move |to| Transition { machine, from, to }))
    }
}

impl Transition {
    /// Whether it may happen. To stay in a phase is always allowed.
    #[must_use]
    pub fn is_declared_by(self, phases: &Phases) -> bool {
        self.from == self.to || phases.transitions().any(|declared| declared == self)
    }
}

impl TransitionCounts {
    /// Counts one more.
    pub fn note(&mut self, transition: Transition) {
        *self.0.entry(transition).or_default() += 1;
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &TransitionCounts) {
        for (transition, count) in other.iter() {
            *self.0.entry(transition).or_default() += count;
        }
    }

    /// How often a transition was taken.
    #[must_use]
    pub fn of(&self, transition: Transition) -> u64 {
        self.0.get(&transition).copied().unwrap_or_default()
    }

    /// All that were taken, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Transition, u64)> {
        self.0.iter().map(|(transition, count)| (*transition, *count))
    }
}

/// Where a machine is: its phases, and the present one.
pub type CurrentPhase = (&'static Phases, &'static str);

/// Declares the phases of the machine of a module: `PHASES`, and the names of the enum that holds them.
///
/// Variants without a row are no phases: a machine is in them only before it starts, or after its end.
macro_rules! phases {
    ($machine:ident: $phase:ident $(<$param:ident>)?;
     start => $first:ident $(| $more:ident)*;
     $($from:ident => $to:ident $(| $or:ident)*;)+) => {
        /// The phases, and what may follow each.
        pub(crate) const PHASES: crate::machine::Phases = crate::machine::Phases {
            machine: stringify!($machine),
            steps: &[
                ("start", &[stringify!($first) $(, stringify!($more))*]),
                $((stringify!($from), &[stringify!($to) $(, stringify!($or))*]),)+
            ],
        };

        impl$(<$param>)? $phase$(<$param>)? {
            fn current(&self) -> crate::machine::CurrentPhase {
                #[allow(unreachable_patterns)] // Where every variant is a phase.
                let name = match self {
                    $($phase::$from { .. } => stringify!($from),)+
                    _ => "start",
                };
                (&PHASES, name)
            }
        }
    };
}
pub(crate) use phases;
