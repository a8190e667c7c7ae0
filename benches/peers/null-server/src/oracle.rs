//! Timestamps.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tikv_proto::pdpb::Timestamp;

/// Timestamps of one millisecond.
const LOGICAL: i64 = 1 << 18;

/// Gives growing timestamps near the wall clock's time.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// The last timestamp given: milliseconds, and its number within them.
    last: Mutex<(i64, i64)>,
}

impl Oracle {
    /// The last of `count` new timestamps, which follow each other.
    pub(crate) fn next(&self, count: u32) -> Timestamp {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.next_at(count, i64::try_from(since_1970.as_millis()).unwrap_or_default())
    }

    fn next_at(&self, count: u32, now_ms: i64) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut physical, mut logical) = *last;
        if now_ms > physical || logical + i64::from(count) >= LOGICAL {
            (physical, logical) = (now_ms.max(physical + 1), 0);
        }
        logical += i64::from(count);
        *last = (physical, logical);
        Timestamp { physical, logical, ..Timestamp::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_grow_whatever_the_clock_does() {
        let oracle = Oracle::default();
        let given = [(5, 100), (1, 100), (3, 90), (1, 101), (200_000, 101), (200_000, 101)].map(|(count, now)| {
            let last = oracle.next_at(count, now);
            (last.physical, last.logical)
        });
        assert_eq!(given, [(100, 5), (100, 6), (100, 9), (101, 1), (101, 200_001), (102, 200_000)]);
    }
}
