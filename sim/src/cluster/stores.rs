//! Stores, as far as clients notice what they are.

use tikv_proto::{kvrpcpb, metapb};

use super::options::StoreOptions;

/// A store as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// What PD says of it.
    pub meta: metapb::Store,
    /// Whether it runs. A store that does not answers nothing, and leads nothing.
    pub running: bool,
    /// How long a read would wait for its turn, in milliseconds: requests with a lower busy threshold are turned away.
    pub estimated_wait_ms: u32,
    /// What it feels about its own health: 1 is fine, 100 is the worst.
    pub slow_score: i32,
    feedback_seq_no: u64,
}

impl Store {
    pub(super) fn new(id: u64, options: &StoreOptions) -> Self {
        let address = if options.address.is_empty() { format!("store-{id}:20160") } else { options.address.clone() };
        let label = |(key, value): &(String, String)| metapb::StoreLabel { key: key.clone(), value: value.clone() };
        let meta = metapb::Store {
            id,
            peer_address: address.clone(),
            address,
            labels: options.labels.iter().map(label).collect(),
            version: VERSION.to_owned(),
            node_state: metapb::NodeState::Serving.into(),
            ..metapb::Store::default()
        };
        Store { meta, running: true, estimated_wait_ms: 0, slow_score: 1, feedback_seq_no: 0 }
    }

    /// Whether the store has left the cluster for good.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.meta.state() == metapb::StoreState::Tombstone
    }

    /// What the store tells of its health, each time under a new number.
    pub fn health_feedback(&mut self) -> kvrpcpb::HealthFeedback {
        self.feedback_seq_no += 1;
        kvrpcpb::HealthFeedback {
            store_id: self.meta.id,
            feedback_seq_no: self.feedback_seq_no,
            slow_score: self.slow_score,
        }
    }
}

/// The version of TiKV and PD that the simulation follows. Clients enable features by it.
pub(crate) const VERSION: &str = "9.0.0";
