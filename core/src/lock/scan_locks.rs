//! Lists the locks of a range.

use std::sync::Arc;

use tikv_proto::kvrpcpb;

use crate::backoff::budget;
use crate::config::Config;
use crate::error::{Error, KeyError, LockInfo};
use crate::key::{Direction, KeyRange};
use crate::request::StoreRequest;
use crate::route::{self, CallOptions, RangeVisit, RangeWalk};
use crate::timestamp::Timestamp;

/// Locks of a range in the order of their keys. client-go: `scanLocksInOneRegionWithRange`.
pub type ScanLocks = RangeWalk<ScanLocksVisit>;

/// The first locks of `range` whose transactions began at `max_ts` or before: about `limit` of them, for the shared locks of a key
/// count as one where TiKV sees fit. If there are more, they begin at the key of the last one, which may have more locks itself.
///
/// TiKV lets no async commit take a timestamp at or below `max_ts` any more.
#[must_use]
pub fn scan_locks(config: &Config, range: KeyRange, max_ts: Timestamp, limit: u32, options: &CallOptions) -> ScanLocks {
    let visit = ScanLocksVisit { max_ts, limit, locks: Vec::new() };
    let options = options.clone().with_timeout(config.batch_call_timeout);
    let budget = route::budget(config, budget::GC_RESOLVE_LOCK);
    RangeWalk::new(visit, range, Direction::Forward, options, budget)
}

/// What [`ScanLocks`] asks of each region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanLocksVisit {
    max_ts: Timestamp,
    limit: u32,
    locks: Vec<LockInfo>,
}

impl ScanLocksVisit {
    fn room(&self) -> u32 {
        self.limit.saturating_sub(u32::try_from(self.locks.len()).unwrap_or(u32::MAX))
    }
}

impl RangeVisit for ScanLocksVisit {
    type Request = kvrpcpb::ScanLockRequest;
    type Output = Vec<LockInfo>;

    fn request(&self, part: &KeyRange) -> kvrpcpb::ScanLockRequest {
        kvrpcpb::ScanLockRequest {
            max_version: self.max_ts.version(),
            start_key: part.start.to_bytes(),
            end_key: part.end.to_bytes(),
            limit: self.room(),
            ..Default::default()
        }
    }

    fn on_response(&mut self, response: kvrpcpb::ScanLockResponse, address: &Arc<str>) -> Result<(), Error> {
        if let Some(error) = response.error {
            return Err(Error::Key(KeyError::from_proto(*error)));
        }
        let found = response.locks.into_iter().flat_map(LockInfo::expand);
        for lock in found {
            // Whoever asks for old locks may be about to end their transactions.
            if lock.start_ts.is_zero() || lock.start_ts > self.max_ts {
                let message = format!("a lock of {}, where none after {} was asked for", lock.start_ts, self.max_ts);
                let operation = kvrpcpb::ScanLockRequest::KIND.facts().name;
                return Err(Error::Refused { operation, address: Arc::clone(address), message: message.into() });
            }
            self.locks.push(lock);
        }
        Ok(())
    }

    fn is_satisfied(&self) -> bool {
        self.room() == 0
    }

    fn finish(&mut self) -> Vec<LockInfo> {
        std::mem::take(&mut self.locks)
    }
}
