//! Ranges of anything that converts to keys.

use std::ops::{Bound, RangeBounds};

use crate::{Key, KeyRange};

/// The range of keys that `range` means.
pub(crate) fn key_range<K: Into<Key> + Clone>(range: &impl RangeBounds<K>) -> KeyRange {
    let key = |bound: Bound<&K>| bound.map(|key| key.clone().into());
    KeyRange::from((key(range.start_bound()), key(range.end_bound())))
}
