//! The phases of machines, declared: which may follow which, and which have.
//!
//! A machine of several phases lists the steps between them with [`phases!`](crate::machine::phases!). A step of a machine that
//! does nothing but wait is none; what happens between the beginning and the end of one call of [`Machine`](super::Machine) is
//! one step, however many phases it passes through. Unit tests refuse steps that are not declared. With the feature
//! `transitions` every step is noted, and the simulation shows which of them have been taken.

/// The phases of one kind of machine, and what may follow each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// A [`Transition`] as it is noted while machines run: by the places of its phases among those of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    phases: &'static Phases,
    from: usize,
    to: usize,
}

/// How often each transition was taken. In the order of the machines' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransitionCounts(Vec<MachineCounts>);

/// The counts of one machine: a row for each phase before, in it a column for each phase after.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct MachineCounts {
    phases: &'static Phases,
    counts: Vec<u64>,
}

impl Phases {
    /// Every transition that is declared, in order.
    pub fn transitions(&self) -> impl Iterator<Item = Transition> {
        let machine = self.machine;
        self.steps.iter().flat_map(move |(from, next)| next.iter().map(move |to| Transition { machine, from, to }))
    }

    /// How many phases there are, `done` included, which comes last.
    fn len(&self) -> usize {
        self.steps.len() + 1
    }

    fn name(&self, index: usize) -> &'static str {
        self.steps.get(index).map_or("done", |(name, _)| name)
    }
}

impl Transition {
    /// Whether it may happen. To stay in a phase is always allowed.
    #[must_use]
    pub fn is_declared_by(self, phases: &Phases) -> bool {
        self.from == self.to || phases.transitions().any(|declared| declared == self)
    }
}

impl Step {
    /// From one phase to another, or to the end.
    #[must_use]
    pub fn new((phases, from): CurrentPhase, to: Option<CurrentPhase>) -> Self {
        Step { phases, from, to: to.map_or(phases.steps.len(), |(_, to)| to) }
    }

    /// Whether the machine is where it was.
    #[must_use]
    pub fn stays(self) -> bool {
        self.from == self.to
    }

    /// The names.
    #[must_use]
    pub fn transition(self) -> Transition {
        let Step { phases, from, to } = self;
        Transition { machine: phases.machine, from: phases.name(from), to: phases.name(to) }
    }
}

impl TransitionCounts {
    /// Counts one more.
    pub fn note(&mut self, step: Step) {
        let index = step.from * step.phases.len() + step.to;
        self.machine(step.phases).counts[index] += 1;
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &TransitionCounts) {
        for theirs in &other.0 {
            let ours = &mut self.machine(theirs.phases).counts;
            ours.iter_mut().zip(&theirs.counts).for_each(|(ours, theirs)| *ours += theirs);
        }
    }

    /// How often a transition was taken.
    #[must_use]
    pub fn of(&self, transition: Transition) -> u64 {
        self.iter().find(|(taken, _)| *taken == transition).map_or(0, |(_, count)| count)
    }

    /// All that were taken, machine by machine.
    pub fn iter(&self) -> impl Iterator<Item = (Transition, u64)> {
        self.0.iter().flat_map(|MachineCounts { phases, counts }| {
            let taken = counts.iter().enumerate().filter(|(_, count)| **count > 0);
            taken.map(|(index, count)| {
                let step = Step { phases, from: index / phases.len(), to: index % phases.len() };
                (step.transition(), *count)
            })
        })
    }

    /// There are a few dozen machines: to look at one after the other is quicker than to search in order.
    fn machine(&mut self, phases: &'static Phases) -> &mut MachineCounts {
        let index = self.0.iter().position(|known| std::ptr::eq(known.phases, phases)).unwrap_or_else(|| {
            let index = self.0.partition_point(|known| known.phases.machine < phases.machine);
            self.0.insert(index, MachineCounts { phases, counts: vec![0; phases.len() * phases.len()] });
            index
        });
        &mut self.0[index]
    }
}

/// The place of the phase before the first.
pub(super) const START: usize = 0;

/// Where a machine is: its phases, and the place of the present one among them.
pub type CurrentPhase = (&'static Phases, usize);

/// Declares the phases of the machine of a module: `PHASES`, and the names of the enum that holds them.
///
/// Variants without a row are no phases: a machine is in them only before it starts, or after its end.
macro_rules! phases {
    ($machine:ident: $phase:ident $(<$param:ident>)?;
     start => $first:ident $(| $more:ident)*;
     $($from:ident => $to:ident $(| $or:ident)*;)+) => {
        /// The phases, and what may follow each.
        pub(crate) static PHASES: crate::machine::Phases = crate::machine::Phases {
            machine: stringify!($machine),
            steps: &[
                ("start", &[stringify!($first) $(, stringify!($more))*]),
                $((stringify!($from), &[stringify!($to) $(, stringify!($or))*]),)+
            ],
        };

        impl$(<$param>)? $phase$(<$param>)? {
            fn current(&self) -> crate::machine::CurrentPhase {
                #[derive(Clone, Copy)]
                #[allow(dead_code)] // Of phases that are never looked at.
                enum Place {
                    Start,
                    $($from,)+
                }
                #[allow(unreachable_patterns)] // Where every variant is a phase.
                let place = match self {
                    $($phase::$from { .. } => Place::$from,)+
                    _ => Place::Start,
                };
                (&PHASES, place as usize)
            }
        }
    };
}
pub(crate) use phases;
