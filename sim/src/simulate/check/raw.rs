//! What really became of raw keys, and whether clients were told so.
//!
//! Raw writes are repeated when no answer comes, and a request that was thought lost may be executed late. So an
//! acknowledged write need not be the last one; but it was made while it was asked for, and a read shows a value that the
//! key had while it was read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::time::Time;

use super::{Check, Rule, ensure};

/// The truth about raw keys. See the [module](self).
#[derive(Clone, Debug, Default)]
pub(in crate::simulate) struct RawHistory {
    keys: BTreeMap<Key, VecDeque<(Time, Option<Bytes>)>>,
    /// When the calls under way were begun, and how many then.
    open: BTreeMap<Time, usize>,
    /// Values that are written if a key has another one: how often that has happened.
    swaps: BTreeMap<Bytes, u32>,
    /// Those that must not be written any more: the swap was made, or is said to have failed.
    ended_swaps: BTreeSet<Bytes>,
}

impl RawHistory {
    /// A call begins.
    pub(in crate::simulate) fn begin(&mut self, now: Time) {
        *self.open.entry(now).or_default() += 1;
    }

    /// The call that began at `since` has ended.
    pub(in crate::simulate) fn end(&mut self, since: Time) {
        if let Some(count) = self.open.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&since);
            }
        }
    }

    /// The next write of this value comes from a compare-and-swap.
    pub(in crate::simulate) fn begin_swap(&mut self, value: Bytes) {
        self.swaps.insert(value, 0);
    }

    /// A key was written.
    pub(in crate::simulate) fn observe(&mut self, now: Time, key: &Key, value: Option<&Bytes>) -> Check {
        let oldest = self.open.first_key_value().map_or(now, |(since, _)| *since);
        let history = self.keys.entry(key.clone()).or_default();
        history.push_back((now, value.cloned()));
        while history.get(1).is_some_and(|(at, _)| *at < oldest) {
            history.pop_front();
        }
        let Some(value) = value else { return Ok(()) };
        ensure(!self.ended_swaps.contains(value), Rule::AtMostOnce, || {
            format!("{key:?} becomes {value:?}, by a swap that had ended")
        })?;
        let Some(count) = self.swaps.get_mut(value) else { return Ok(()) };
        *count += 1;
        ensure(*count == 1, Rule::AtMostOnce, || format!("a swap of {key:?} for {value:?} was made twice"))
    }

    /// A read that began at `since` shows this.
    pub(in crate::simulate) fn read(&self, since: Time, key: &Key, found: Option<&Bytes>) -> Check {
        let history = self.keys.get(key);
        let known = || self.values_since(since, key).any(|value| value == found);
        ensure(known(), Rule::RawLinearizable, || {
            format!("a read of {key:?} since {since:?} shows {found:?}, but it was {history:?}")
        })
    }

    /// A scan of a range that began at `since` shows this.
    pub(in crate::simulate) fn scan(&self, since: Time, range: &KeyRange, found: &BTreeMap<Key, Bytes>) -> Check {
        let strange = found.keys().find(|key| !range.contains(key.as_slice()));
        ensure(strange.is_none(), Rule::RawLinearizable, || format!("a scan of {range:?} shows {strange:?}"))?;
        let known = self.keys.keys().filter(|key| range.contains(key.as_slice()));
        let all: BTreeSet<&Key> = known.chain(found.keys()).collect();
        all.into_iter().try_for_each(|key| self.read(since, key, found.get(key)))
    }

    /// A write that began at `since` was acknowledged.
    pub(in crate::simulate) fn written(&self, since: Time, key: &Key, value: Option<&Bytes>) -> Check {
        let history = self.keys.get(key);
        let made =
            history.is_some_and(|history| history.iter().any(|(at, other)| *at >= since && other.as_ref() == value));
        ensure(made, Rule::RawLinearizable, || {
            format!("{key:?} is said to have been written as {value:?} since {since:?}, but it was {history:?}")
        })
    }

    /// A compare-and-swap that began at `since` is said to have been made, or not. `None`: nobody knows.
    pub(in crate::simulate) fn end_swap(&mut self, key: &Key, value: &Bytes, swapped: Option<bool>) -> Check {
        let Some(swapped) = swapped else { return Ok(()) };
        let count = self.swaps.remove(value).unwrap_or_default();
        self.ended_swaps.insert(value.clone());
        ensure((count == 1) == swapped, Rule::ReportedOutcome, || {
            format!("the swap of {key:?} for {value:?} was made {count} times, and is said to be made: {swapped}")
        })
    }

    /// The value that a key has.
    pub(in crate::simulate) fn current(&self, key: &Key) -> Option<Bytes> {
        self.keys.get(key)?.back()?.1.clone()
    }

    /// The values that the key had at some moment from `since` on.
    fn values_since<'a>(&'a self, since: Time, key: &Key) -> impl Iterator<Item = Option<&'a Bytes>> {
        let history = self.keys.get(key);
        let first = history.map_or(0, |history| history.partition_point(|(at, _)| *at < since));
        // Before the first write there was nothing.
        let before = match history.filter(|_| first > 0) {
            Some(history) => history.get(first - 1).and_then(|(_, value)| value.as_ref()),
            None => None,
        };
        let later =
            history.into_iter().flat_map(move |history| history.range(first..)).map(|(_, value)| value.as_ref());
        std::iter::once(before).chain(later)
    }
}
