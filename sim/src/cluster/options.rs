//! What a simulated cluster is made of.

use std::time::Duration;

use tikv_core::key::Key;
use tikv_proto::kvrpcpb::ApiVersion;

use super::bounds::encoded;

/// What a [`Cluster`](super::Cluster) starts with. Take [`ClusterOptions::default`] and change what should differ.
///
/// ```
/// use tikv_sim::cluster::{Cluster, ClusterOptions, StoreOptions};
///
/// let zones = ["east", "west", "west"].map(|zone| StoreOptions::default().with_label("zone", zone));
/// let cluster = Cluster::new(ClusterOptions { stores: zones.into(), regions: 4, ..ClusterOptions::default() });
/// assert_eq!(cluster.topology().regions().len(), 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The cluster's id, which every header of PD names.
    pub cluster_id: u64,
    /// The stores; their ids are 1, 2, …
    pub stores: Vec<StoreOptions>,
    /// On how many stores each region has a peer; at most as many as there are stores. Default 3.
    pub replicas: usize,
    /// Into how many regions the key space is split, evenly over what keys begin with: see [`ClusterOptions::split_keys`].
    pub regions: usize,
    /// The bounds between the first regions, as PD knows them (memcomparable encodings, unless only raw clients will come);
    /// `None` lets `regions` decide.
    pub split_keys: Option<Vec<Key>>,
    /// When regions split by themselves. Default: never.
    pub split_check: Option<SplitCheck>,
    /// How many members PD has; their ids are 1, 2, …, and the first one leads. Default 1.
    pub pd_members: usize,
    /// How stores understand keys. Default: V1.
    pub api_version: ApiVersion,
    /// Names of keyspaces beside `DEFAULT`; their ids are 1, 2, …
    pub keyspaces: Vec<String>,
    /// Everything that the cluster decides by chance follows from this.
    pub seed: u64,
    /// The wall clock at [`Time::ZERO`](tikv_core::time::Time::ZERO), in milliseconds since 1970: the origin of timestamps.
    pub wall_clock_ms: u64,
    /// How long a region stays without a leader when its leader's store stops. Default 1 s (TiKV: 10 s).
    pub election_timeout: Duration,
    /// How long a request waits for a lock at most. Default 1 s. TiKV: `wait-for-lock-timeout`.
    pub lock_wait_timeout: Duration,
    /// How far the timestamp up to which followers serve stale reads lies behind. Default 1 s.
    pub safe_ts_lag: Duration,
}

/// When and how regions split by themselves. TiKV: the split checker by keys (`coprocessor.region-max-keys` and others).
///
/// As there, what counts are the versions that transactions have left of keys. Raw keys do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SplitCheck {
    /// A region that holds so many is split.
    pub max_keys: usize,
    /// So many are in each of its parts, but for the last one.
    pub split_keys: usize,
    /// So many parts are split off at once; what is left of the region is looked at again the next time.
    pub batch_limit: usize,
    /// How long after a write its region is looked at.
    pub interval: Duration,
}

impl SplitCheck {
    /// Splits regions of so many keys into parts of two thirds of it, up to 100 at once, after a second.
    #[must_use]
    pub fn at(max_keys: usize) -> Self {
        let split_keys = max_keys.div_ceil(3).saturating_mul(2);
        SplitCheck { max_keys, split_keys, batch_limit: 100, interval: Duration::from_secs(1) }
    }
}

/// One store of a new cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where it listens, as PD tells clients; empty for `store-ID:20160`.
    pub address: String,
    /// Its labels, as key and value.
    pub labels: Vec<(String, String)>,
}

impl StoreOptions {
    /// Adds a label.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            cluster_id: 7_000_000_000_000_000_001,
            stores: vec![StoreOptions::default(); 3],
            replicas: 3,
            regions: 8,
            split_keys: None,
            split_check: None,
            pd_members: 1,
            api_version: ApiVersion::V1,
            keyspaces: Vec::new(),
            seed: 0,
            wall_clock_ms: 1_700_000_000_000,
            election_timeout: Duration::from_secs(1),
            lock_wait_timeout: Duration::from_secs(1),
            safe_ts_lag: Duration::from_secs(1),
        }
    }
}

impl ClusterOptions {
    /// The bounds between the first regions, in order and without duplicates.
    ///
    /// Where not given, each is the encoding of a single byte: a bound that transactional clients can decode, and that
    /// keeps raw keys apart just as well. The bytes lie evenly between `0` and `z`, since most keys begin with a letter or a
    /// digit. On API v2 there are bounds around each keyspace, and those bytes are the first ones within `DEFAULT`.
    #[must_use]
    pub fn split_keys(&self) -> Vec<Key> {
        let mut keys = match (&self.split_keys, self.api_version) {
            (Some(keys), _) => keys.clone(),
            (None, ApiVersion::V2 | ApiVersion::V3) => self.keyspace_bounds(),
            (None, ApiVersion::V1 | ApiVersion::V1ttl) => {
                first_bytes(self.regions).map(|byte| encoded(&[byte])).collect()
            }
        };
        keys.retain(|key| !key.is_empty());
        keys.sort();
        keys.dedup();
        keys
    }

    /// For raw (`r`) and for transactional (`x`) keys.
    fn keyspace_bounds(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for mode in *b"rx" {
            for id in 0..=self.keyspaces.len() as u32 {
                keys.extend([id, id + 1].map(|id| encoded(&keyspace_prefix(mode, id))));
            }
            let within = |byte| encoded(&[&keyspace_prefix(mode, 0)[..], &[byte]].concat());
            keys.extend(first_bytes(self.regions).map(within));
        }
        keys
    }
}

/// What the keys of a keyspace begin with on API v2: how they are used, and the keyspace's id in three bytes.
pub(crate) fn keyspace_prefix(mode: u8, id: u32) -> [u8; 4] {
    let [_, high, middle, low] = id.to_be_bytes();
    [mode, high, middle, low]
}

fn first_bytes(regions: usize) -> impl Iterator<Item = u8> {
    let (first, last) = (usize::from(b'0'), usize::from(b'z'));
    let regions = regions.clamp(1, last - first + 1);
    (1..regions).map(move |index| (first + index * (last - first) / regions) as u8)
}
