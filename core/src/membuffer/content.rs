//! Buffers are equal if their content is, however it lies in memory.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::{MemBuffer, Place};
use crate::key::KeyRange;

impl MemBuffer {
    /// All keys, in order, with what undoing could bring back.
    fn has_entries_of(&self, other: &MemBuffer) -> bool {
        let places = |buffer: &MemBuffer| buffer.tree.walk(&buffer.log, &KeyRange::ALL).collect::<Vec<_>>();
        places(self).into_iter().zip(places(other)).all(|(a, b)| self.has_entry_of(a, other, b))
    }

    fn has_entry_of(&self, a: Place, other: &MemBuffer, b: Place) -> bool {
        let (first, second) = (self.log.record(a), other.log.record(b));
        if (first.key(), first.flags()) != (second.key(), second.flags()) {
            return false;
        }
        let versions = self.log.history(Some(a)).map(|(place, record)| (self.log.moment_of(place), record.value()));
        let others = other.log.history(Some(b)).map(|(place, record)| (other.log.moment_of(place), record.value()));
        !first.has_value() && !second.has_value() || versions.eq(others)
    }
}

impl PartialEq for MemBuffer {
    fn eq(&self, other: &Self) -> bool {
        (&self.stages, self.limits, self.dirty) == (&other.stages, other.limits, other.dirty)
            && (self.len(), self.size, self.base_changes) == (other.len(), other.size, other.base_changes)
            && self.has_entries_of(other)
    }
}

impl Eq for MemBuffer {}

impl Hash for MemBuffer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stages.hash(state);
        self.len().hash(state);
        for entry in self.iter_with_flags(&KeyRange::ALL) {
            (entry.key, entry.value, entry.flags).hash(state);
        }
    }
}

impl fmt::Debug for MemBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries = Vec::new();
        entries.extend(self.iter_with_flags(&KeyRange::ALL));
        f.debug_struct("MemBuffer").field("entries", &entries).field("stages", &self.stages).finish_non_exhaustive()
    }
}
