//! Messages shared between attempts.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A protobuf message behind a reference count: clones share it, nobody changes it.
pub struct Shared<M>(Arc<M>);

impl<M> Shared<M> {
    /// Shares `message`.
    pub fn new(message: M) -> Self {
        Shared(Arc::new(message))
    }

    /// The message, to be changed; cloned first if somebody else shares it.
    pub fn make_mut(&mut self) -> &mut M
    where
        M: Clone,
    {
        Arc::make_mut(&mut self.0)
    }

    /// The message itself, cloned only if somebody else shares it.
    pub fn into_inner(self) -> M
    where
        M: Clone,
    {
        Arc::unwrap_or_clone(self.0)
    }
}

impl<M> From<M> for Shared<M> {
    fn from(message: M) -> Self {
        Shared::new(message)
    }
}

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Shared(Arc::clone(&self.0))
    }
}

impl<M> Deref for Shared<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: fmt::Debug> fmt::Debug for Shared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<M: PartialEq> PartialEq for Shared<M> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<M: Eq> Eq for Shared<M> {}

impl<M: Hash> Hash for Shared<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
