//! Machines without an owner.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::task::Poll;

use super::{Context, Event, Machine, Token};

/// A machine that can be left running: every machine without output that is plain data.
///
/// Implemented for all of them; there is nothing to implement by hand.
pub trait Background: Machine<Output = ()> + fmt::Debug + Send + Sync + Any {
    #[doc(hidden)]
    fn clone_box(&self) -> Box<dyn Background>;
    #[doc(hidden)]
    fn eq_box(&self, other: &dyn Background) -> bool;
    #[doc(hidden)]
    fn hash_box(&self, state: &mut dyn Hasher);
    #[doc(hidden)]
    fn as_any(&self) -> &dyn Any;
}

impl<M> Background for M
where
    M: Machine<Output = ()> + Clone + fmt::Debug + Eq + Hash + Send + Sync + 'static,
{
    fn clone_box(&self) -> Box<dyn Background> {
        Box::new(self.clone())
    }

    fn eq_box(&self, other: &dyn Background) -> bool {
        other.as_any().downcast_ref::<M>().is_some_and(|other| self == other)
    }

    fn hash_box(&self, mut state: &mut dyn Hasher) {
        self.hash(&mut state);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Any [`Background`] machine, as data.
pub struct BackgroundMachine(Box<dyn Background>);

impl BackgroundMachine {
    /// Wraps `machine`.
    #[must_use]
    pub fn new(machine: impl Background) -> Self {
        BackgroundMachine(Box::new(machine))
    }

    /// The machine inside, if it is an `M`.
    #[must_use]
    pub fn downcast_ref<M: 'static>(&self) -> Option<&M> {
        self.0.as_any().downcast_ref()
    }
}

impl Machine for BackgroundMachine {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.start(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<()> {
        self.0.handle(cx, token, event)
    }
}

impl Clone for BackgroundMachine {
    fn clone(&self) -> Self {
        BackgroundMachine(self.0.clone_box())
    }
}

impl fmt::Debug for BackgroundMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq for BackgroundMachine {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_box(&*other.0)
    }
}

impl Eq for BackgroundMachine {}

impl Hash for BackgroundMachine {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash_box(state);
    }
}
