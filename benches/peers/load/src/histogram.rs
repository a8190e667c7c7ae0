//! Latencies of all callers in one place, without a lock and in constant space.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two is divided into so many buckets of equal width: no latency is off by more than a 64th.
const PER_OCTAVE: usize = 64;
const PER_OCTAVE_BITS: u32 = PER_OCTAVE.trailing_zeros();
const BUCKETS: usize = PER_OCTAVE * (65 - PER_OCTAVE_BITS as usize);

/// Counts durations by their length. The peer in Go has the same buckets.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Histogram {
    /// Counts one more.
    pub fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The shortest duration, in microseconds, that so many of all do not exceed; 0 of none.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        let wanted = ((self.count() as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count.load(Ordering::Relaxed);
            seen >= wanted
        });
        found.map_or(0.0, |bucket| middle(bucket) as f64 / 1e3)
    }
}

fn bucket(nanoseconds: u64) -> usize {
    // The leading bits choose the bucket: those below are lost.
    let lost = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(PER_OCTAVE_BITS + 1);
    lost as usize * PER_OCTAVE + (nanoseconds >> lost) as usize
}

fn middle(bucket: usize) -> u64 {
    let lost = (bucket / PER_OCTAVE).saturating_sub(1);
    let first = (bucket - lost * PER_OCTAVE) as u64;
    (first << lost) + ((1 << lost) - 1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_told_to_a_64th() {
        for exponent in 0..64 {
            for offset in [0, 1, 2, 3, 1 << 40] {
                let nanoseconds = (1_u64 << exponent).saturating_add(offset);
                let told = middle(bucket(nanoseconds));
                assert!(told.abs_diff(nanoseconds) <= nanoseconds / 64, "{nanoseconds} became {told}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn a_quantile_is_what_so_many_do_not_exceed() {
        let histogram = Histogram::default();
        assert_eq!((histogram.count(), histogram.quantile_us(0.5)), (0, 0.0));
        for us in 1..=1000 {
            histogram.record(Duration::from_micros(us));
        }
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let told = histogram.quantile_us(quantile);
            assert!((told - expected).abs() <= expected / 64.0, "{quantile}: {told}");
        }
    }
}
