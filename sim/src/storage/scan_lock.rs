//! ScanLock: lists the locks of a range.

use std::iter;

use tikv_core::key::{Key, KeyRange};
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{ScanLockRequest, ScanLockResponse};

use super::Refusal;
use super::command::{Context, Execute};
use super::data::Data;
use super::errors::Error;
use super::lock::{KeyLock, Lock};

#[cfg(test)]
mod tests;

impl Execute for ScanLockRequest {
    type Response = ScanLockResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<ScanLockResponse, Error> {
        let max_version = Timestamp::from_version(self.max_version);
        cx.storage.max_ts.observe(max_version);
        let range = KeyRange::new(self.start_key.clone(), self.end_key.clone());
        if !range.end.is_empty() && range.end < range.start {
            return Err(Error::Refused(Refusal::InvertedRange));
        }
        let Some(range) = range.intersection(cx.region) else { return Ok(ScanLockResponse::default()) };
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let found = scan_locks(&cx.storage.data, &range, |lock| lock.start_ts <= max_version, limit);
        let locks = found.into_iter().map(|(key, lock)| lock.info(&key)).collect();
        Ok(ScanLockResponse { locks, ..ScanLockResponse::default() })
    }
}

/// Locks of a range that `matches`, at most `limit` (zero: all). A key that is locked both in memory and in store shows the
/// latter. TiKV counts each shared lock, unless a lock in memory matches too.
pub(super) fn scan_locks(
    data: &Data,
    range: &KeyRange,
    matches: impl Fn(&Lock) -> bool,
    limit: usize,
) -> Vec<(Key, KeyLock)> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut in_memory = data.memory_range(range).filter(|(_, lock)| matches(lock)).peekable();
    let stored = stored_locks(data, range, &matches);
    if in_memory.peek().is_none() {
        return take_counting_shared(stored, limit);
    }
    let in_memory = in_memory.map(|(key, lock)| (key, KeyLock::Exclusive(lock.clone())));
    let mut merged = merge(stored, in_memory).collect::<Vec<_>>();
    merged.dedup_by(|later, earlier| later.0 == earlier.0);
    merged.truncate(limit);
    merged.into_iter().map(|(key, lock)| (key.clone(), lock)).collect()
}

/// Locks in store that match; of shared locks those that do.
pub(super) fn stored_locks<'a>(
    data: &'a Data,
    range: &KeyRange,
    matches: &impl Fn(&Lock) -> bool,
) -> impl Iterator<Item = (&'a Key, KeyLock)> {
    data.range(range).filter_map(move |(key, record)| match record.lock.as_ref()? {
        KeyLock::Exclusive(lock) => matches(lock).then(|| (key, KeyLock::Exclusive(lock.clone()))),
        KeyLock::Shared(shared) => {
            let mut shared = shared.clone();
            shared.locks.retain(|_, lock| matches(lock));
            (!shared.locks.is_empty()).then_some((key, KeyLock::Shared(shared)))
        }
    })
}

fn take_counting_shared<'a>(locks: impl Iterator<Item = (&'a Key, KeyLock)>, limit: usize) -> Vec<(Key, KeyLock)> {
    let mut taken = Vec::new();
    let mut room = limit;
    for (key, mut lock) in locks {
        if room == 0 {
            break;
        }
        match &mut lock {
            KeyLock::Exclusive(_) => room -= 1,
            KeyLock::Shared(shared) => {
                while shared.locks.len() > room {
                    shared.locks.pop_last();
                }
                room -= shared.locks.len();
            }
        }
        taken.push((key.clone(), lock));
    }
    taken
}

/// Merges two sequences in key order; at a tie the first comes first.
fn merge<'a, T>(
    first: impl Iterator<Item = (&'a Key, T)>,
    second: impl Iterator<Item = (&'a Key, T)>,
) -> impl Iterator<Item = (&'a Key, T)> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    iter::from_fn(move || match (first.peek(), second.peek()) {
        (Some((left, _)), Some((right, _))) if right < left => second.next(),
        (None, _) => second.next(),
        _ => first.next(),
    })
}
