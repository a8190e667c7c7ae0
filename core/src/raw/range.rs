//! A range, region by region.

use std::sync::Arc;

use tikv_proto::kvrpcpb;

use super::point::refusal;
use super::{Pair, RawOptions};
use crate::backoff::budget;
use crate::config::Config;
use crate::error::Error;
use crate::key::{Direction, KeyRange};
use crate::request::StoreRequest;
use crate::route::{self, RangeVisit, RangeWalk};

/// Pairs of a range in order. client-go: `rawkv.Client.Scan`, `ReverseScan`.
pub type Scan = RangeWalk<ScanVisit>;
/// Deletes a range; what was deleted before an error stays deleted. client-go: `rawkv.Client.DeleteRange`.
pub type DeleteRange = RangeWalk<DeleteRangeVisit>;
/// Checksum of a range. client-go: `rawkv.Client.Checksum`.
pub type Checksum = RangeWalk<ChecksumVisit>;

/// Options of a [`Scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScanOptions {
    /// Most pairs to return; at most [`RawConfig::max_scan_limit`](crate::config::RawConfig::max_scan_limit).
    pub limit: u32,
    /// From which end.
    pub direction: Direction,
    /// Whether values are left out.
    pub key_only: bool,
}

/// A [`Scan`] of `range`: at most `limit` pairs, the first ones in the given direction.
///
/// # Errors
///
/// [`Error::InvalidArgument`] if the limit is above the configured maximum.
pub fn scan(config: &Config, range: KeyRange, scan: ScanOptions, options: &RawOptions) -> Result<Scan, Error> {
    let max = config.raw.max_scan_limit;
    if scan.limit > max {
        let message = format!("a scan of {} pairs is over the limit of {max}", scan.limit);
        return Err(Error::InvalidArgument(message.into()));
    }
    let visit = ScanVisit { scan, column_family: options.column_family.clone(), pairs: Vec::new() };
    let call = options.call.clone().with_timeout(config.batch_call_timeout);
    Ok(RangeWalk::new(visit, range, scan.direction, call, route::budget(config, budget::RAW)))
}

/// A [`DeleteRange`] of `range`.
#[must_use]
pub fn delete_range(config: &Config, range: KeyRange, options: &RawOptions) -> DeleteRange {
    let visit = DeleteRangeVisit { column_family: options.column_family.clone() };
    let backoff = route::budget(config, budget::DELETE_RANGE_ONE_REGION);
    RangeWalk::new(visit, range, Direction::Forward, options.call.clone(), backoff)
}

/// A [`Checksum`] of `range`.
#[must_use]
pub fn checksum(config: &Config, range: KeyRange, options: &RawOptions) -> Checksum {
    let call = options.call.clone().with_timeout(config.batch_call_timeout);
    let backoff = route::budget(config, budget::RAW);
    RangeWalk::new(ChecksumVisit(ChecksumTotal::default()), range, Direction::Forward, call, backoff)
}

/// What a [`Scan`] asks of each region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanVisit {
    scan: ScanOptions,
    column_family: String,
    pairs: Vec<Pair>,
}

/// What a [`DeleteRange`] asks of each region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeleteRangeVisit {
    column_family: String,
}

/// What a [`Checksum`] asks of each region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChecksumVisit(ChecksumTotal);

/// Checksum and size of a range. client-go: `rawkv.RawChecksum`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChecksumTotal {
    /// CRC-64 of each pair, combined by exclusive or: the division into regions makes no difference.
    pub crc64_xor: u64,
    /// Number of pairs.
    pub total_pairs: u64,
    /// Bytes of keys and values.
    pub total_bytes: u64,
}

impl RangeVisit for ScanVisit {
    type Request = kvrpcpb::RawScanRequest;
    type Output = Vec<Pair>;

    fn request(&self, part: &KeyRange) -> kvrpcpb::RawScanRequest {
        let (start_key, end_key) = self.scan.direction.scan_bounds(part);
        kvrpcpb::RawScanRequest {
            start_key,
            end_key,
            limit: self.scan.limit - self.pairs.len() as u32,
            key_only: self.scan.key_only,
            reverse: self.scan.direction == Direction::Reverse,
            cf: self.column_family.clone(),
            ..Default::default()
        }
    }

    fn on_response(&mut self, response: kvrpcpb::RawScanResponse, address: &Arc<str>) -> Result<(), Error> {
        let room = self.scan.limit as usize - self.pairs.len();
        if response.kvs.len() > room {
            let message = format!("{} pairs, where {room} were asked for", response.kvs.len());
            return Err(refused::<kvrpcpb::RawScanRequest>(message, address));
        }
        self.pairs.extend(response.kvs.into_iter().map(|pair| Pair { key: pair.key.into(), value: pair.value }));
        Ok(())
    }

    fn is_satisfied(&self) -> bool {
        self.pairs.len() >= self.scan.limit as usize
    }

    fn finish(&mut self) -> Vec<Pair> {
        std::mem::take(&mut self.pairs)
    }
}

impl RangeVisit for DeleteRangeVisit {
    type Request = kvrpcpb::RawDeleteRangeRequest;
    type Output = ();

    fn request(&self, part: &KeyRange) -> kvrpcpb::RawDeleteRangeRequest {
        kvrpcpb::RawDeleteRangeRequest {
            start_key: part.start.to_bytes(),
            end_key: part.end.to_bytes(),
            cf: self.column_family.clone(),
            ..Default::default()
        }
    }

    fn on_response(&mut self, response: kvrpcpb::RawDeleteRangeResponse, address: &Arc<str>) -> Result<(), Error> {
        refusal(response.error).map_err(|message| refused::<kvrpcpb::RawDeleteRangeRequest>(message, address))
    }

    fn finish(&mut self) {}
}

impl RangeVisit for ChecksumVisit {
    type Request = kvrpcpb::RawChecksumRequest;
    type Output = ChecksumTotal;

    fn request(&self, part: &KeyRange) -> kvrpcpb::RawChecksumRequest {
        let range = kvrpcpb::KeyRange { start_key: part.start.to_bytes(), end_key: part.end.to_bytes() };
        kvrpcpb::RawChecksumRequest {
            algorithm: kvrpcpb::ChecksumAlgorithm::Crc64Xor.into(),
            ranges: vec![range],
            ..Default::default()
        }
    }

    fn on_response(&mut self, response: kvrpcpb::RawChecksumResponse, address: &Arc<str>) -> Result<(), Error> {
        refusal(response.error).map_err(|message| refused::<kvrpcpb::RawChecksumRequest>(message, address))?;
        self.0.crc64_xor ^= response.checksum;
        self.0.total_pairs = self.0.total_pairs.saturating_add(response.total_kvs);
        self.0.total_bytes = self.0.total_bytes.saturating_add(response.total_bytes);
        Ok(())
    }

    fn finish(&mut self) -> ChecksumTotal {
        self.0
    }
}

fn refused<R: StoreRequest>(message: String, address: &Arc<str>) -> Error {
    Error::Refused { operation: R::FACTS.name, address: Arc::clone(address), message: message.into() }
}
