//! How long the locks of a transaction live.

use std::time::Duration;

use crate::config::Config;

/// Life of a lock of 1 MiB; it grows with the square root of the size, as the time to write it does.
const LOCK_TTL_OF_ONE_MIB: Duration = Duration::from_secs(6);

const MIB: f64 = 1024.0 * 1024.0;

/// The life of the locks of a transaction with `size_bytes` of keys and values, `elapsed` after it began. A lock's life
/// counts from the start of its transaction, so that the time it took to get here is added.
///
/// 3 s up to 256 KiB, 6 s for 1 MiB, 12 s for 4 MiB, at most 20 s. client-go: `txnLockTTL`.
pub(super) fn lock_ttl(config: &Config, size_bytes: u64, elapsed: Duration) -> Duration {
    let mut ttl = config.lock_ttl;
    if size_bytes >= config.txn_batch_bytes as u64 {
        let by_size = LOCK_TTL_OF_ONE_MIB.as_millis() as f64 * (size_bytes as f64 / MIB).sqrt();
        let longest = config.managed_lock_ttl.max(config.lock_ttl);
        ttl = Duration::from_millis(by_size as u64).clamp(config.lock_ttl, longest);
    }
    ttl.saturating_add(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl_ms(size_bytes: u64) -> u128 {
        lock_ttl(&Config::default(), size_bytes, Duration::ZERO).as_millis()
    }

    #[test]
    fn a_lock_lives_longer_the_more_there_is_to_write() {
        const KIB: u64 = 1024;
        assert_eq!(ttl_ms(0), 3_000);
        assert_eq!(ttl_ms(16 * KIB), 3_000);
        assert_eq!(ttl_ms(256 * KIB), 3_000);
        assert_eq!(ttl_ms(512 * KIB), 4_242);
        assert_eq!(ttl_ms(1024 * KIB), 6_000);
        assert_eq!(ttl_ms(4096 * KIB), 12_000);
        assert_eq!(ttl_ms(10 * 1024 * KIB), 18_973);
        assert_eq!(ttl_ms(100 * 1024 * KIB), 20_000);
        assert_eq!(ttl_ms(u64::MAX), 20_000);
    }

    #[test]
    fn the_age_of_the_transaction_is_added() {
        let ttl = lock_ttl(&Config::default(), 10, Duration::from_micros(1_500_700));
        assert_eq!(ttl, Duration::from_micros(4_500_700));
    }
}
