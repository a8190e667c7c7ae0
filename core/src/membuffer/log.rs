//! The values of a buffer in the order in which they were written.

use super::Value;
use crate::key::Key;

/// Every value that may still be read, now or after something is undone.
///
/// Moments are counted by a serial number: what is older than a moment was written before it. A value that nothing
/// could fall back to is overwritten in place, any other is kept and pointed to by its successor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Log {
    versions: Vec<Version>,
    /// The present.
    now: Moment,
    /// The latest moment that something may fall back to.
    mark: Moment,
}

/// A point in the history of the buffer.
pub(super) type Moment = u64;

/// A place in the log; valid until the log is cut before it.
pub(super) type Place = usize;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    pub(super) key: Key,
    pub(super) value: Value,
    /// The value that this one replaced.
    pub(super) previous: Option<Place>,
    written: Moment,
}

impl Version {
    /// What this version adds to the footprint of the buffer, in bytes.
    pub(super) fn footprint(&self) -> usize {
        size_of::<Version>() + self.value.len()
    }
}

impl Log {
    pub(super) fn get(&self, place: Place) -> &Version {
        &self.versions[place]
    }

    /// Marks the present as a moment to fall back to: what is written was written before it. No two marks are the same.
    pub(super) fn mark(&mut self) -> Moment {
        self.now += 1;
        self.mark = self.now;
        self.mark
    }

    /// Forgets every value. Moments stay in the past.
    pub(super) fn clear(&mut self) {
        self.versions.clear();
        self.mark();
    }

    /// Whether anything that was written since `moment` is still there.
    pub(super) fn written_since(&self, moment: Moment) -> bool {
        self.versions.last().is_some_and(|version| version.written >= moment)
    }

    /// Writes a value over the one at `previous`. Says where it is, and what was lost for good.
    pub(super) fn write(&mut self, key: &Key, value: Value, previous: Option<Place>) -> (Place, Option<Value>) {
        if let Some(place) = previous {
            let version = &mut self.versions[place];
            if version.written >= self.mark {
                return (place, Some(std::mem::replace(&mut version.value, value)));
            }
        }
        self.versions.push(Version { key: key.clone(), value, previous, written: self.now });
        (self.versions.len() - 1, None)
    }

    /// Takes the newest version off the log, unless it is older than `moment`.
    pub(super) fn pop_since(&mut self, moment: Moment) -> Option<Version> {
        self.written_since(moment).then(|| self.versions.pop())?
    }

    /// The versions written since `moment`, the newest first, with their places.
    pub(super) fn since(&self, moment: Moment) -> impl Iterator<Item = (Place, &Version)> {
        self.versions.iter().enumerate().rev().take_while(move |(_, version)| version.written >= moment)
    }

    /// The version at `place` and those that it replaced, the newest first.
    pub(super) fn history(&self, place: Option<Place>) -> impl Iterator<Item = &Version> {
        std::iter::successors(place.map(|place| self.get(place)), |version| {
            version.previous.map(|place| self.get(place))
        })
    }

    /// The newest of a version and those that it replaced that is older than `moment`.
    pub(super) fn before(&self, place: Option<Place>, moment: Moment) -> Option<&Version> {
        self.history(place).find(|version| version.written < moment)
    }
}
