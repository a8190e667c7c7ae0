//! The immutable settings of a client.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::canary::Canary;

/// Settings of a client. A snapshot: it is handed to every machine and never changes.
///
/// Defaults are client-go's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// Time limit of one RPC that reads or writes a few keys. Default 30 s.
    pub call_timeout: Duration,
    /// Time limit of one RPC that scans or reads many keys. Default 60 s.
    pub batch_call_timeout: Duration,
    /// Time limit of one RPC to PD. Default 3 s.
    pub pd_timeout: Duration,
    /// How often PD's members are asked for without a cause. Default 60 s.
    pub pd_refresh_interval: Duration,
    /// Questions that may wait for PD at once. Default 100,000.
    pub pd_queue_limit: usize,
    /// Most timestamps in one request to PD. Default 20,000.
    pub tso_batch_limit: u32,
    /// How long an unused region stays known. Default 600 s, plus up to [`Config::region_ttl_jitter`].
    pub region_ttl: Duration,
    /// Random addition to [`Config::region_ttl`]. Default 60 s.
    pub region_ttl_jitter: Duration,
    /// The factor on all budgets of retries. Default 2, as client-go's `BackOffWeight`.
    pub backoff_weight: u32,
    /// RPCs of one operation in flight at once. Default 128.
    pub operation_concurrency: usize,
    /// Bytes of keys and values after which a batch of mutations is closed. Default 16 KiB.
    pub txn_batch_bytes: usize,
    /// From so many keys of a transaction in one region on, the region is split before they are written, and the new ones are
    /// spread over the stores. Default 100,000. client-go: `preSplitDetectThreshold`.
    pub pre_split_keys: usize,
    /// It is split so that each part takes about so many bytes of keys and values. Default 32 MiB. client-go:
    /// `preSplitSizeThreshold`.
    pub pre_split_bytes: u64,
    /// Largest key and value together in a transaction, in bytes. Default 6 MiB.
    pub txn_entry_limit_bytes: u64,
    /// Largest transaction, in bytes of keys and values. Default 100 MiB.
    pub txn_total_limit_bytes: u64,
    /// How many keys the client remembers of which its optimistic transactions take turns to commit ([`Latches`]); 0: they do
    /// not, and conflicts are left to TiKV. Default 0. client-go: `TxnLocalLatches`.
    ///
    /// [`Latches`]: crate::txn::Latches
    pub local_latch_keys: usize,
    /// Most keys that a transaction may lock and still commit asynchronously. Default 256.
    pub async_commit_max_keys: usize,
    /// Most bytes that these keys may have. Default 4 KiB.
    pub async_commit_max_key_bytes: usize,
    /// How long prewrites may decide a transaction by themselves; later, its primary is committed as ever. Default 2 s.
    pub async_commit_safe_window: Duration,
    /// Life of a lock of a small transaction. Default 3 s.
    pub lock_ttl: Duration,
    /// Longest life of a lock, however large its transaction, and the life that a heartbeat gives it. Default 20 s.
    pub managed_lock_ttl: Duration,
    /// Bytes of keys and values above which a transaction that is being prewritten is kept alive by a heartbeat. Default
    /// 32 MiB.
    pub heartbeat_txn_bytes: u64,
    /// Longest age to which a heartbeat keeps a transaction alive. Default 1 h.
    pub max_heartbeat_age: Duration,
    /// The same of a pipelined transaction. Default 24 h.
    pub max_pipelined_heartbeat_age: Duration,
    /// Longest age at which a transaction may commit. Default 24 h.
    pub max_txn_age: Duration,
    /// Pairs in a page of a snapshot scan. Default 256.
    pub scan_batch_size: u32,
    /// Keys of one batch-get RPC. Default 5,120.
    pub batch_get_size: usize,
    /// Statuses of finished transactions that are remembered. Default 2,048.
    pub resolved_lock_cache_size: usize,
    /// The limits of raw calls.
    pub raw: RawConfig,
    /// A deliberate mistake. Default: none.
    #[cfg(feature = "canary")]
    pub canary: Option<Canary>,
}

impl Config {
    /// Whether a mistake is to be made on purpose. Never, without the feature `canary`.
    #[cfg(feature = "canary")]
    pub(crate) fn has_canary(&self, canary: Canary) -> bool {
        self.canary == Some(canary)
    }

    /// Whether a mistake is to be made on purpose. Never, without the feature `canary`.
    #[cfg(not(feature = "canary"))]
    #[expect(clippy::unused_self, reason = "with the feature, it depends on the settings")]
    pub(crate) const fn has_canary(&self, _: Canary) -> bool {
        false
    }
}

/// Limits of raw calls; defaults are client-go's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RawConfig {
    /// Most pairs one scan may ask for. Default 10,240.
    pub max_scan_limit: u32,
    /// Bytes of keys and values after which a batch put is closed. Default 16 KiB.
    pub batch_put_bytes: usize,
    /// Keys in one batch-get or batch-delete RPC. Default 512.
    pub batch_keys: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            call_timeout: Duration::from_secs(30),
            batch_call_timeout: Duration::from_secs(60),
            pd_timeout: Duration::from_secs(3),
            pd_refresh_interval: Duration::from_secs(60),
            pd_queue_limit: 100_000,
            tso_batch_limit: 20_000,
            region_ttl: Duration::from_secs(600),
            region_ttl_jitter: Duration::from_secs(60),
            backoff_weight: 2,
            operation_concurrency: 128,
            txn_batch_bytes: 16 * 1024,
            pre_split_keys: 100_000,
            pre_split_bytes: 32 * 1024 * 1024,
            txn_entry_limit_bytes: 6 * 1024 * 1024,
            txn_total_limit_bytes: 100 * 1024 * 1024,
            local_latch_keys: 0,
            async_commit_max_keys: 256,
            async_commit_max_key_bytes: 4 * 1024,
            async_commit_safe_window: Duration::from_secs(2),
            lock_ttl: Duration::from_secs(3),
            managed_lock_ttl: Duration::from_secs(20),
            heartbeat_txn_bytes: 32 * 1024 * 1024,
            max_heartbeat_age: Duration::from_secs(60 * 60),
            max_pipelined_heartbeat_age: Duration::from_secs(24 * 60 * 60),
            max_txn_age: Duration::from_secs(24 * 60 * 60),
            scan_batch_size: 256,
            batch_get_size: 5120,
            resolved_lock_cache_size: 2048,
            raw: RawConfig::default(),
            #[cfg(feature = "canary")]
            canary: None,
        }
    }
}

impl Default for RawConfig {
    fn default() -> Self {
        RawConfig { max_scan_limit: 10_240, batch_put_bytes: 16 * 1024, batch_keys: 512 }
    }
}
