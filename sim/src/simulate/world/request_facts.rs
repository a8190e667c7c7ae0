//! Which transaction and which key a request is about.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::request::Request;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::Mutation;

/// The transaction (or the timestamp of a read), zero for none, and the key, or the first of several.
pub(super) fn facts(request: &Request) -> (Timestamp, Option<&[u8]>) {
    let (ts, key) = match request {
        Request::Get(get) => (get.version, Some(&get.key)),
        Request::BatchGet(get) => (get.version, get.keys.first()),
        Request::Scan(scan) => (scan.version, Some(&scan.start_key)),
        Request::Prewrite(prewrite) => (prewrite.start_version, prewrite.mutations.first().map(|first| &first.key)),
        Request::Flush(flush) => (flush.start_ts, flush.mutations.first().map(|first| &first.key)),
        Request::BufferBatchGet(get) => (get.version, get.keys.first()),
        Request::Commit(commit) => (commit.start_version, commit.keys.first()),
        Request::BatchRollback(rollback) => (rollback.start_version, rollback.keys.first()),
        Request::ResolveLock(resolve) => (resolve.start_version, resolve.keys.first()),
        Request::CheckTxnStatus(check) => (check.lock_ts, Some(&check.primary_key)),
        Request::CheckSecondaryLocks(check) => (check.start_version, check.keys.first()),
        Request::TxnHeartBeat(beat) => (beat.start_version, Some(&beat.primary_lock)),
        Request::PessimisticLock(lock) => (lock.start_version, lock.mutations.first().map(|first| &first.key)),
        Request::PessimisticRollback(rollback) => (rollback.start_version, rollback.keys.first()),
        Request::RawGet(get) => (0, Some(&get.key)),
        Request::RawPut(put) => (0, Some(&put.key)),
        Request::RawDelete(delete) => (0, Some(&delete.key)),
        Request::RawCompareAndSwap(swap) => (0, Some(&swap.key)),
        Request::RawScan(scan) => (0, Some(&scan.start_key)),
        Request::RawBatchGet(get) => (0, get.keys.first()),
        _ => (0, None),
    };
    (Timestamp::from_version(ts), key.map(Bytes::as_ref))
}

/// All keys that the request names.
pub(super) fn keys(request: &Request) -> Vec<Key> {
    let one = |key: &Bytes| vec![Key::from(key.clone())];
    let several = |keys: &[Bytes]| keys.iter().cloned().map(Key::from).collect();
    let of_mutations =
        |mutations: &[Mutation]| mutations.iter().map(|mutation| Key::from(mutation.key.clone())).collect();
    match request {
        Request::BatchGet(get) => several(&get.keys),
        Request::Prewrite(prewrite) => of_mutations(&prewrite.mutations),
        Request::Flush(flush) => of_mutations(&flush.mutations),
        Request::BufferBatchGet(get) => several(&get.keys),
        Request::Commit(commit) => several(&commit.keys),
        Request::BatchRollback(rollback) => several(&rollback.keys),
        Request::ResolveLock(resolve) => several(&resolve.keys),
        Request::CheckSecondaryLocks(check) => several(&check.keys),
        Request::PessimisticLock(lock) => of_mutations(&lock.mutations),
        Request::PessimisticRollback(rollback) => several(&rollback.keys),
        Request::RawBatchGet(get) => several(&get.keys),
        Request::RawBatchDelete(delete) => several(&delete.keys),
        Request::RawBatchPut(put) => put.pairs.iter().map(|pair| Key::from(pair.key.clone())).collect(),
        request => facts(request).1.map_or_else(Vec::new, |key| one(&Bytes::copy_from_slice(key))),
    }
}
