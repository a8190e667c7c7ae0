//! Garbage collection: drops versions that no read at or after the safe point can see.

use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{GcRequest, GcResponse};

use super::Refusal;
use super::batch::Batch;
use super::command::{Context, Execute};
use super::data::{Data, Record};
use super::errors::Error;
use super::write::{Write, WriteKind};

#[cfg(test)]
mod tests;

impl Execute for GcRequest {
    type Response = GcResponse;

    /// TiKV collects on its own, by the safe point it gets from PD, and has no such method any more.
    fn execute(&self, _: &mut Context<'_>) -> Result<GcResponse, Error> {
        Err(Error::Refused(Refusal::Unimplemented))
    }
}

/// Collects all keys of a range. Versions above the safe point stay, and of those below it the newest Put.
pub(super) fn collect(data: &mut Data, range: &KeyRange, safe_point: Timestamp) {
    let mut batch = Batch::new(Timestamp::ZERO);
    for (key, record) in data.range(range) {
        collect_key(&mut batch, key, record, safe_point);
    }
    data.apply(batch, false);
}

fn collect_key(batch: &mut Batch, key: &Key, record: &Record, safe_point: Timestamp) {
    let mut is_newest_data_found = false;
    for (commit_ts, write) in record.versions(safe_point) {
        let stays = !is_newest_data_found && write.kind == WriteKind::Put;
        is_newest_data_found |= write.is_data();
        if !stays {
            drop_version(batch, key, commit_ts, write);
        }
    }
}

fn drop_version(batch: &mut Batch, key: &Key, commit_ts: Timestamp, write: &Write) {
    batch.delete_write(key, commit_ts);
    if write.kind == WriteKind::Put && write.short_value.is_none() {
        batch.delete_value(key, write.start_ts);
    }
}
