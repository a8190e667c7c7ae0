//! MvccGetByKey and MvccGetByStartTs: show what is stored.

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{
    MvccGetByKeyRequest, MvccGetByKeyResponse, MvccGetByStartTsRequest, MvccGetByStartTsResponse, MvccInfo, MvccLock,
    MvccValue, MvccWrite, Op,
};

use super::command::{Context, Execute};
use super::data::{Data, Record};
use super::errors::Error;
use super::lock::{Lock, LockRef};
use super::write::{LastChange, Write, WriteKind};

#[cfg(test)]
mod tests;

impl Execute for MvccGetByKeyRequest {
    type Response = MvccGetByKeyResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<MvccGetByKeyResponse, Error> {
        let info = mvcc_info(&cx.storage.data, &self.key.clone().into());
        Ok(MvccGetByKeyResponse { info: Some(info.into()), ..MvccGetByKeyResponse::default() })
    }
}

impl Execute for MvccGetByStartTsRequest {
    type Response = MvccGetByStartTsResponse;

    /// Shows the first key of the region with a version of the transaction, and of its versions that one and the older
    /// ones. A lock alone is not found.
    fn execute(&self, cx: &mut Context<'_>) -> Result<MvccGetByStartTsResponse, Error> {
        let data = &cx.storage.data;
        let mut response = MvccGetByStartTsResponse { info: Some(Box::default()), ..Default::default() };
        let is_of_txn = |(_, write): &(Timestamp, &Write)| write.start_ts.version() == self.start_ts;
        let find = |record: &Record| Some(record.versions(Timestamp::MAX).find(is_of_txn)?.0);
        if let Some((key, commit_ts)) = data.range(cx.region).find_map(|(key, record)| Some((key, find(record)?))) {
            let mut info = mvcc_info(data, key);
            info.writes.retain(|write| write.commit_ts <= commit_ts.version());
            response.key = key.to_bytes();
            response.info = Some(info.into());
        }
        Ok(response)
    }
}

/// Everything stored of a key. Of shared locks TiKV shows any one; we show the oldest.
pub(super) fn mvcc_info(data: &Data, key: &Key) -> MvccInfo {
    let lock = match data.lock(key) {
        Some(LockRef::Exclusive(lock)) => Some(lock),
        Some(LockRef::Shared(shared)) => shared.locks.values().next(),
        None => None,
    };
    let record = data.records.get(key);
    let writes = record.into_iter().flat_map(|record| record.versions(Timestamp::MAX));
    let values = record.into_iter().flat_map(|record| record.values.iter().rev());
    MvccInfo {
        lock: lock.map(show_lock),
        writes: writes.map(|(commit_ts, write)| show_write(commit_ts, write)).collect(),
        values: values
            .map(|(start_ts, value)| MvccValue { start_ts: start_ts.version(), value: value.clone() })
            .collect(),
    }
}

/// TiKV leaves out everything that is not set here.
fn show_lock(lock: &Lock) -> MvccLock {
    let (last_change_ts, versions_to_last_change) = match lock.last_change {
        LastChange::Unknown => (0, 0),
        LastChange::NotExist => (0, 1),
        LastChange::Exist { commit_ts, versions } => (commit_ts.version(), versions),
    };
    MvccLock {
        r#type: lock.kind.op().into(),
        start_ts: lock.start_ts.version(),
        primary: lock.primary.clone(),
        short_value: lock.short_value.clone().unwrap_or_default(),
        last_change_ts,
        versions_to_last_change,
        ..MvccLock::default()
    }
}

/// TiKV does not show the last change of a version.
fn show_write(commit_ts: Timestamp, write: &Write) -> MvccWrite {
    let op = match write.kind {
        WriteKind::Put => Op::Put,
        WriteKind::Delete => Op::Del,
        WriteKind::Lock => Op::Lock,
        WriteKind::Rollback => Op::Rollback,
    };
    MvccWrite {
        r#type: op.into(),
        start_ts: write.start_ts.version(),
        commit_ts: commit_ts.version(),
        short_value: write.short_value.clone().unwrap_or_default(),
        has_overlapped_rollback: write.has_overlapped_rollback,
        has_gc_fence: write.gc_fence.is_some(),
        gc_fence: write.gc_fence.unwrap_or_default().version(),
        ..MvccWrite::default()
    }
}
