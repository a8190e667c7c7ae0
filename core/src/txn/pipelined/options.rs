//! How a pipelined transaction flushes.

use std::sync::Arc;

use crate::error::Error;

/// How a pipelined transaction flushes. The defaults are client-go's. client-go: `PipelinedTxnOptions`, `flushOption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PipelinedOptions {
    /// The buffer is flushed when it has this many keys, and [`min_flush_bytes`](PipelinedOptions::min_flush_bytes) as well.
    /// Default 10,000.
    pub min_flush_keys: usize,
    /// See [`min_flush_keys`](PipelinedOptions::min_flush_keys). Bytes of memory. Default 16 MiB.
    pub min_flush_bytes: usize,
    /// The buffer is flushed when it takes this much memory, however many keys it has. As long as the flush before has not
    /// ended, nothing more can be written then. Bytes. Default 128 MiB.
    pub force_flush_bytes: usize,
    /// Requests of a flush in flight at once. Default 128.
    pub flush_concurrency: usize,
    /// Regions whose locks are resolved at once when the transaction has ended. Default 8.
    pub resolve_concurrency: usize,
    /// How much of the time, in thousandths, flushes stand still, to leave TiKV room for others: each pauses before it begins,
    /// as long as it takes for that by the mean of the last ones, none of which counts for more than a minute. Below 1000.
    /// Default 0. client-go: `WriteThrottleRatio`, without that bound.
    pub write_throttle_permille: u32,
    /// How many bytes of keys and values that were flushed and read again are remembered until the next flush. Default
    /// 16 MiB.
    pub read_cache_bytes: usize,
}

impl Default for PipelinedOptions {
    fn default() -> Self {
        PipelinedOptions {
            min_flush_keys: 10_000,
            min_flush_bytes: 16 << 20,
            force_flush_bytes: 128 << 20,
            flush_concurrency: 128,
            resolve_concurrency: 8,
            write_throttle_permille: 0,
            read_cache_bytes: 16 << 20,
        }
    }
}

impl PipelinedOptions {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if nothing may be in flight, or flushes would stand still all the time.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |detail: &str| Err(Error::InvalidArgument(Arc::from(detail)));
        if self.flush_concurrency == 0 || self.resolve_concurrency == 0 {
            return wrong("a pipelined transaction needs a concurrency of at least one");
        }
        if self.write_throttle_permille >= 1000 {
            return wrong("a write throttle of 1000 permille or more lets nothing through");
        }
        Ok(())
    }
}
