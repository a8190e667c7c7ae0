use super::*;

/// Defaults that client-go has as well: the name of its setting or constant, its default, and ours in the same unit.
#[test]
fn defaults_are_those_of_client_go() {
    let config = Config::default();
    let seconds = |duration: Duration| duration.as_secs_f64();
    for (name, theirs, ours) in [
        ("client.ReadTimeoutShort (s)", 30.0, seconds(config.call_timeout)),
        ("client.ReadTimeoutMedium (s)", 60.0, seconds(config.batch_call_timeout)),
        ("PDClient.PDServerTimeout (s)", 3.0, seconds(config.pd_timeout)),
        ("pd member update interval (s)", 60.0, seconds(config.pd_refresh_interval)),
        ("TiKVClient.RegionCacheTTL (s)", 600.0, seconds(config.region_ttl)),
        ("locate.regionCacheTTLJitterSec (s)", 60.0, seconds(config.region_ttl_jitter)),
        ("kv.DefBackOffWeight", 2.0, f64::from(config.backoff_weight)),
        ("CommitterConcurrency", 128.0, config.operation_concurrency as f64),
        ("transaction.txnCommitBatchSize (bytes)", 16_384.0, config.txn_batch_bytes as f64),
        ("kv.TxnEntrySizeLimit (bytes)", 6_291_456.0, config.txn_entry_limit_bytes as f64),
        ("kv.TxnTotalSizeLimit (bytes)", 104_857_600.0, config.txn_total_limit_bytes as f64),
        ("TiKVClient.AsyncCommit.KeysLimit", 256.0, config.async_commit_max_keys as f64),
        ("TiKVClient.AsyncCommit.TotalKeySizeLimit (bytes)", 4_096.0, config.async_commit_max_key_bytes as f64),
        ("TiKVClient.AsyncCommit.SafeWindow (s)", 2.0, seconds(config.async_commit_safe_window)),
        ("transaction.defaultLockTTL (s)", 3.0, seconds(config.lock_ttl)),
        ("transaction.ManagedLockTTL (s)", 20.0, seconds(config.managed_lock_ttl)),
        ("TiKVClient.TTLRefreshedTxnSize (bytes)", 33_554_432.0, config.heartbeat_txn_bytes as f64),
        ("MaxTxnTTL (s)", 3_600.0, seconds(config.max_heartbeat_age)),
        ("transaction.maxTxnTimeUse (s)", 86_400.0, seconds(config.max_txn_age)),
        ("txnsnapshot.defaultScanBatchSize", 256.0, f64::from(config.scan_batch_size)),
        ("txnsnapshot.batchGetSize", 5_120.0, config.batch_get_size as f64),
        ("txnlock.ResolvedCacheSize", 2_048.0, config.resolved_lock_cache_size as f64),
        ("rawkv.MaxRawKVScanLimit", 10_240.0, f64::from(config.raw.max_scan_limit)),
        ("rawkv.rawBatchPutSize (bytes)", 16_384.0, config.raw.batch_put_bytes as f64),
        ("rawkv.rawBatchPairCount", 512.0, config.raw.batch_keys as f64),
    ] {
        assert!((theirs - ours).abs() < f64::EPSILON, "{name}: {theirs} there, {ours} here");
    }
}
