//! What time it is by PD's clock, roughly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::time::Time;
use crate::timestamp::Timestamp;

/// The newest timestamp seen, and when. Enough to judge whether a lock has expired without asking PD.
///
/// client-go: `oracle.Oracle.GetLowResolutionTimestamp`, `IsExpired`, `UntilExpired`.
#[derive(Debug, Default)]
pub struct Clock {
    seen: Mutex<Option<Seen>>,
    /// The newest timestamp once more, or zero, which PD never gives: every read looks at it, and need not lock for that.
    newest: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    newest: Timestamp,
    at: Time,
}

impl Clock {
    /// Learns a timestamp that PD gave at `now`. Older ones are ignored.
    pub fn learn(&self, now: Time, timestamp: Timestamp) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none_or(|seen| timestamp > seen.newest) {
            *seen = Some(Seen { newest: timestamp, at: now });
            self.newest.store(timestamp.version(), Ordering::Release);
        }
    }

    /// The newest timestamp seen, as it was given; `None` before the first.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        let newest = Timestamp::from_version(self.newest.load(Ordering::Acquire));
        (newest != Timestamp::ZERO).then_some(newest)
    }

    /// When the newest timestamp was seen.
    #[must_use]
    pub fn newest_at(&self) -> Option<Time> {
        self.seen().map(|seen| seen.at)
    }

    /// Whether a lock taken at `start_ts` with this life has expired, judged by the newest timestamp seen: PD's time, never
    /// the local clock's. Without a timestamp, nothing can be judged and the answer is false.
    #[must_use]
    pub fn is_expired(&self, start_ts: Timestamp, ttl_ms: u64) -> bool {
        self.newest().is_some_and(|now| now.physical_ms() >= start_ts.physical_ms().saturating_add(ttl_ms))
    }

    /// Milliseconds until a lock expires, by the newest timestamp seen; 0 if it has.
    #[must_use]
    pub fn ms_until_expired(&self, start_ts: Timestamp, ttl_ms: u64) -> u64 {
        let expires = start_ts.physical_ms().saturating_add(ttl_ms);
        self.newest().map_or(ttl_ms, |now| expires.saturating_sub(now.physical_ms()))
    }

    fn seen(&self) -> Option<Seen> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Clock {
    fn clone(&self) -> Self {
        let seen = self.seen();
        let newest = seen.map_or(Timestamp::ZERO, |seen| seen.newest).version();
        Clock { seen: Mutex::new(seen), newest: AtomicU64::new(newest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_judged_by_the_newest_timestamp_of_pd() {
        let clock = Clock::default();
        let start_ts = Timestamp::compose(1_000, 3);
        assert!(!clock.is_expired(start_ts, 0), "nothing is known yet");
        clock.learn(Time::ZERO, Timestamp::compose(3_999, 0));
        assert!(!clock.is_expired(start_ts, 3_000));
        assert_eq!(clock.ms_until_expired(start_ts, 3_000), 1);
        clock.learn(Time::ZERO, Timestamp::compose(4_000, 0));
        clock.learn(Time::from_millis(1), Timestamp::compose(2_000, 0));
        assert!(clock.is_expired(start_ts, 3_000), "an older timestamp must not turn time back");
        assert_eq!(clock.ms_until_expired(start_ts, 3_000), 0);
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let clock = Clock::default();
        let copy = clock.clone();
        clock.learn(Time::ZERO, Timestamp::compose(1, 0));
        assert_eq!(copy.newest(), None);
    }
}
