//! BroadcastTxnStatus, and the memory of transactions that have ended: a prewrite of one known to be committed must be a
//! late repetition. TiKV: `TxnStatusCache`.

use std::collections::BTreeMap;

use tikv_core::timestamp::Timestamp;
use tikv_proto::errorpb;
use tikv_proto::kvrpcpb::{BroadcastTxnStatusRequest, BroadcastTxnStatusResponse};

use super::command::{Context, Execute, Reply};
use super::errors::Error;

/// TiKV keeps some five million for at least 30 s. When there are more than this, the oldest transactions go.
const CAPACITY: usize = 1 << 16;

/// Whether transactions were committed, by start_ts. What is known of one never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TxnStatusCache(BTreeMap<Timestamp, bool>);

impl TxnStatusCache {
    pub(super) fn insert(&mut self, start_ts: Timestamp, is_committed: bool) {
        self.0.entry(start_ts).or_insert(is_committed);
        while self.0.len() > CAPACITY {
            self.0.pop_first();
        }
    }

    pub(super) fn is_committed(&self, start_ts: Timestamp) -> bool {
        self.0.get(&start_ts).is_some_and(|is_committed| *is_committed)
    }
}

impl Execute for BroadcastTxnStatusRequest {
    type Response = BroadcastTxnStatusResponse;

    /// What is told of transactions that go on helps only resolved timestamps.
    fn execute(&self, cx: &mut Context<'_>) -> Result<BroadcastTxnStatusResponse, Error> {
        for status in self.txn_status.iter().filter(|status| status.rolled_back || status.commit_ts > 0) {
            cx.storage.txn_status_cache.insert(Timestamp::from_version(status.start_ts), !status.rolled_back);
        }
        Ok(BroadcastTxnStatusResponse::default())
    }
}

/// Broadcasting cannot fail.
impl Reply for BroadcastTxnStatusResponse {
    fn set_region_error(&mut self, _: Box<errorpb::Error>) {}

    fn set_error(&mut self, _: &Error) {}
}
