//! Transactions known to be committed, so that a late prewrite is told from a first one. TiKV: `TxnStatusCache`.

use std::collections::BTreeMap;

use tikv_core::timestamp::Timestamp;

/// TiKV keeps some five million for at least 30 s. When there are more than this, the oldest transactions go.
const CAPACITY: usize = 1 << 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommittedTxns(BTreeMap<Timestamp, Timestamp>);

impl CommittedTxns {
    pub(super) fn insert(&mut self, start_ts: Timestamp, commit_ts: Timestamp) {
        self.0.entry(start_ts).or_insert(commit_ts);
        while self.0.len() > CAPACITY {
            self.0.pop_first();
        }
    }

    pub(super) fn contains(&self, start_ts: Timestamp) -> bool {
        self.0.contains_key(&start_ts)
    }
}
