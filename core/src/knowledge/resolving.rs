//! Which locks are just being resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::key::Key;
use crate::timestamp::Timestamp;

/// A lock that somebody has met and is getting out of the way. client-go: `txnlock.ResolvingLock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolvingLock {
    /// Who has met it: the timestamp of a reader, or of a transaction that prewrites; zero of others.
    pub caller_ts: Timestamp,
    /// The transaction that holds it.
    pub start_ts: Timestamp,
    /// What is locked.
    pub key: Key,
    /// Where the fate of the transaction is decided.
    pub primary: Key,
}

/// The locks that operations are just resolving, for those who want to look: nothing depends on it. As many as they have met.
///
/// client-go: `LockResolver.Resolving`, which others have to keep up to date.
#[derive(Debug, Default)]
pub struct ResolvingRegistry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    locks: BTreeMap<u64, Vec<ResolvingLock>>,
}

/// Takes locks out of the registry again when the last clone of it is dropped. All are alike.
#[derive(Clone)]
pub(crate) struct Registered {
    _entry: Arc<Entry>,
}

struct Entry {
    inner: Arc<Mutex<Inner>>,
    id: u64,
}

impl ResolvingRegistry {
    /// All of them, those first that somebody began to resolve first.
    #[must_use]
    pub fn list(&self) -> Vec<ResolvingLock> {
        lock(&self.inner).locks.values().flatten().cloned().collect()
    }

    pub(crate) fn add(&self, locks: Vec<ResolvingLock>) -> Registered {
        let mut inner = lock(&self.inner);
        let id = inner.next;
        inner.next += 1;
        inner.locks.insert(id, locks);
        Registered { _entry: Arc::new(Entry { inner: Arc::clone(&self.inner), id }) }
    }
}

/// What is under way is known to the original: it will end there.
impl Clone for ResolvingRegistry {
    fn clone(&self) -> Self {
        ResolvingRegistry::default()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.inner).locks.remove(&self.id);
    }
}

impl PartialEq for Registered {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Registered {}

impl Hash for Registered {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registered")
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(key: &str) -> Vec<ResolvingLock> {
        let (caller_ts, start_ts) = (Timestamp::ZERO, Timestamp::from_version(1));
        vec![ResolvingLock { caller_ts, start_ts, key: key.into(), primary: "p".into() }]
    }

    #[test]
    fn locks_are_listed_until_the_last_who_resolves_them_is_gone() {
        let registry = ResolvingRegistry::default();
        let (first, second) = (registry.add(locks("a")), registry.add(locks("b")));
        assert_eq!(registry.list(), [locks("a"), locks("b")].concat());
        let copy = first.clone();
        drop(first);
        assert_eq!(registry.list().len(), 2);
        drop(copy);
        assert_eq!(registry.list(), locks("b"));
        drop(second);
        assert_eq!(registry.list(), []);
    }

    #[test]
    fn a_copy_of_the_registry_knows_nothing_of_what_is_under_way() {
        let registry = ResolvingRegistry::default();
        let registered = registry.add(locks("a"));
        assert_eq!(registry.clone().list(), []);
        drop(registry);
        assert_eq!(format!("{registered:?}"), "Registered");
    }
}
