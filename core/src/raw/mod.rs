//! Raw calls: single keys, batches and ranges, without transactions.
//!
//! | machine | call |
//! |---|---|
//! | [`Get`], [`Put`], [`Delete`], [`GetKeyTtl`], [`CompareAndSwap`] | one key, one RPC |
//! | [`BatchGet`], [`BatchPut`], [`BatchDelete`] | many keys, grouped by region, all batches at once |
//! | [`Scan`], [`DeleteRange`], [`Checksum`] | a range, region by region |
//!
//! client-go: package `rawkv`.

mod batch;
mod point;
mod range;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use batch::{
    Batch, BatchDelete, BatchGet, BatchPut, BatchRequest, BatchShard, RawPair, WantedKey, batch_delete, batch_get,
    batch_put,
};
pub use point::{
    CompareAndSwap, Delete, Get, GetKeyTtl, Point, PointRequest, Put, Swapped, Ttl, compare_and_swap, delete, get,
    get_key_ttl, put,
};
pub use range::{
    Checksum, ChecksumTotal, ChecksumVisit, DeleteRange, DeleteRangeVisit, Scan, ScanOptions, ScanVisit, checksum,
    delete_range, scan,
};

use crate::config::Config;
use crate::key::Key;
use crate::route::CallOptions;

/// Options of raw calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawOptions {
    /// How RPCs are sent.
    pub call: CallOptions,
    /// Column family: empty (TiKV's default), `default`, `lock` or `write`. client-go: `SetColumnFamily`.
    pub column_family: String,
    /// Makes puts and deletes atomic with respect to [`CompareAndSwap`], which requires it. client-go: `SetAtomicForCAS`.
    pub atomic: bool,
}

impl RawOptions {
    /// The defaults: TiKV's default column family, not atomic.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        RawOptions { call: CallOptions::new(config), column_family: String::new(), atomic: false }
    }
}

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The key.
    pub key: Key,
    /// The value; empty if only keys were asked for.
    pub value: Bytes,
}
