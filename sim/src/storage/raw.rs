//! The raw API: keys and values without versions, in one of three column families, with a time to live if the store is
//! configured so.
//!
//! TiKV stores raw data beside transactional data, where each may trip over the other's encoding. Here they are apart.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_proto::kvrpcpb::{
    ChecksumAlgorithm, KeyRange as RangeMessage, KvPair, RawBatchDeleteRequest, RawBatchDeleteResponse,
    RawBatchGetRequest, RawBatchGetResponse, RawBatchPutRequest, RawBatchPutResponse, RawBatchScanRequest,
    RawBatchScanResponse, RawCasRequest, RawCasResponse, RawChecksumRequest, RawChecksumResponse,
    RawDeleteRangeRequest, RawDeleteRangeResponse, RawDeleteRequest, RawDeleteResponse, RawGetKeyTtlRequest,
    RawGetKeyTtlResponse, RawGetRequest, RawGetResponse, RawPutRequest, RawPutResponse, RawScanRequest,
    RawScanResponse,
};

use super::command::{Context, Execute};
use super::crc64::crc64;
use super::delete_range::{check_within, invalid_range};
use super::errors::{Error, MAX_KEY_BYTES};
use super::journal::{Change, Journal};
use super::{RawFormat, Refusal};

#[cfg(test)]
mod tests;

/// A column family that raw requests may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Cf {
    Default,
    Lock,
    Write,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RawValue {
    value: Bytes,
    /// In seconds since 1970; `None` lives forever.
    expires_at: Option<u64>,
}

/// All raw data of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RawData {
    values: BTreeMap<(Cf, Key), RawValue>,
    format: RawFormat,
    /// Seconds since 1970.
    pub(super) now_s: u64,
    pub(super) journal: Journal,
}

impl RawData {
    pub(super) fn new(format: RawFormat) -> Self {
        RawData { format, ..RawData::default() }
    }

    /// The column family of a request. API V2 has only the default one.
    fn cf(&self, name: &str) -> Result<Cf, Error> {
        match (name, self.format) {
            ("", _) => Ok(Cf::Default),
            (_, RawFormat::V2) => Err(Error::CfDeprecated(name.to_owned())),
            ("default", _) => Ok(Cf::Default),
            ("lock", _) => Ok(Cf::Lock),
            ("write", _) => Ok(Cf::Write),
            _ => Err(Error::InvalidCf(name.to_owned())),
        }
    }

    fn has_ttl(&self) -> bool {
        self.format != RawFormat::V1
    }

    fn check_ttl(&self, ttl_s: u64) -> Result<(), Error> {
        if ttl_s != 0 && !self.has_ttl() { Err(Error::TtlNotEnabled) } else { Ok(()) }
    }

    fn is_alive(&self, value: &RawValue) -> bool {
        value.expires_at.is_none_or(|expires_at| expires_at > self.now_s)
    }

    fn entry(&self, cf: Cf, key: &Bytes) -> Option<&RawValue> {
        self.values.get(&(cf, key.clone().into())).filter(|value| self.is_alive(value))
    }

    fn get(&self, cf: Cf, key: &Bytes) -> Option<Bytes> {
        self.entry(cf, key).map(|value| value.value.clone())
    }

    fn put(&mut self, cf: Cf, key: Bytes, value: Bytes, ttl_s: u64) {
        let expires_at = (ttl_s != 0).then(|| ttl_s.saturating_add(self.now_s));
        let key = Key::from(key);
        self.journal.add(|| Change::RawWritten { key: key.clone(), value: Some(value.clone()) });
        self.values.insert((cf, key), RawValue { value, expires_at });
    }

    fn delete(&mut self, cf: Cf, key: Bytes) {
        let key = Key::from(key);
        self.journal.add(|| Change::RawWritten { key: key.clone(), value: None });
        self.values.remove(&(cf, key));
    }

    fn range(&self, cf: Cf, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&Key, &Bytes)> {
        use std::ops::Bound::{Excluded, Included};

        let next_cf = match cf {
            Cf::Default => Some(Cf::Lock),
            Cf::Lock => Some(Cf::Write),
            Cf::Write => None,
        };
        let end = match (range.end.is_empty(), next_cf) {
            (false, _) => Excluded((cf, range.end.clone())),
            (true, Some(next)) => Excluded((next, Key::EMPTY)),
            (true, None) => std::ops::Bound::Unbounded,
        };
        let rows = (!range.is_empty()).then(|| self.values.range((Included((cf, range.start.clone())), end)));
        let rows = rows.into_iter().flatten().filter(|(_, value)| self.is_alive(value));
        rows.map(|((_, key), value)| (key, &value.value))
    }

    fn scan(&self, cf: Cf, range: Option<KeyRange>, options: ScanOptions) -> Vec<KvPair> {
        let Some(range) = range else { return Vec::new() };
        let pair = |(key, value): (&Key, &Bytes)| KvPair {
            key: key.to_bytes(),
            value: if options.key_only { Bytes::new() } else { value.clone() },
            ..KvPair::default()
        };
        let found = self.range(cf, &range);
        if options.is_reverse {
            found.rev().take(options.limit).map(pair).collect()
        } else {
            found.take(options.limit).map(pair).collect()
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct ScanOptions {
    limit: usize,
    key_only: bool,
    is_reverse: bool,
}

/// The range to scan, within the region. Backwards the boundaries are swapped, and from the empty key there is nothing.
fn scan_range(start: &Bytes, end: &Bytes, is_reverse: bool, region: &KeyRange) -> Option<KeyRange> {
    let (start, end) = if is_reverse { (end, start) } else { (start, end) };
    if is_reverse && end.is_empty() {
        return None;
    }
    KeyRange::new(start.clone(), end.clone()).intersection(region)
}

fn check_size<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Result<(), Error> {
    let too_large = keys.into_iter().map(Bytes::len).find(|size| *size > MAX_KEY_BYTES);
    too_large.map_or(Ok(()), |size| Err(Error::KeyTooLarge { size }))
}

impl Execute for RawGetRequest {
    type Response = RawGetResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawGetResponse, Error> {
        let raw = &cx.storage.raw;
        let value = raw.get(raw.cf(&self.cf)?, &self.key);
        Ok(RawGetResponse { not_found: value.is_none(), value: value.unwrap_or_default(), ..RawGetResponse::default() })
    }
}

impl Execute for RawBatchGetRequest {
    type Response = RawBatchGetResponse;

    /// Answers with the keys that exist, in the order asked.
    fn execute(&self, cx: &mut Context<'_>) -> Result<RawBatchGetResponse, Error> {
        let raw = &cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        let found = self.keys.iter().filter_map(|key| Some((key.clone(), raw.get(cf, key)?)));
        let pairs = found.map(|(key, value)| KvPair { key, value, ..KvPair::default() }).collect();
        Ok(RawBatchGetResponse { pairs, ..RawBatchGetResponse::default() })
    }
}

impl Execute for RawGetKeyTtlRequest {
    type Response = RawGetKeyTtlResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawGetKeyTtlResponse, Error> {
        let raw = &cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        if !raw.has_ttl() {
            return Err(Error::Refused(Refusal::TtlNotEnabled));
        }
        let entry = raw.entry(cf, &self.key);
        let expires_at = entry.and_then(|entry| entry.expires_at);
        Ok(RawGetKeyTtlResponse {
            not_found: entry.is_none(),
            // Zero: lives forever.
            ttl: expires_at.map_or(0, |expires_at| expires_at - raw.now_s),
            ..RawGetKeyTtlResponse::default()
        })
    }
}

impl Execute for RawPutRequest {
    type Response = RawPutResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawPutResponse, Error> {
        let raw = &mut cx.storage.raw;
        if !self.for_cas {
            check_size([&self.key])?;
            raw.check_ttl(self.ttl)?;
        }
        let cf = raw.cf(&self.cf)?;
        raw.check_ttl(self.ttl)?;
        raw.put(cf, self.key.clone(), self.value.clone(), self.ttl);
        Ok(RawPutResponse::default())
    }
}

impl Execute for RawBatchPutRequest {
    type Response = RawBatchPutResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawBatchPutResponse, Error> {
        let raw = &mut cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        if !self.for_cas {
            check_size(self.pairs.iter().map(|pair| &pair.key))?;
        }
        let ttls = match self.ttls.as_slice() {
            [] => vec![0; self.pairs.len()],
            [ttl] => vec![*ttl; self.pairs.len()],
            ttls => ttls.to_vec(),
        };
        if raw.has_ttl() && ttls.len() != self.pairs.len() {
            return Err(Error::TtlLenNotEqualsToPairs);
        }
        ttls.iter().try_for_each(|ttl| raw.check_ttl(*ttl))?;
        if self.for_cas && self.pairs.is_empty() {
            return Err(Error::Refused(Refusal::NoKeys));
        }
        for (pair, ttl) in self.pairs.iter().zip(ttls) {
            raw.put(cf, pair.key.clone(), pair.value.clone(), ttl);
        }
        Ok(RawBatchPutResponse::default())
    }
}

impl Execute for RawDeleteRequest {
    type Response = RawDeleteResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawDeleteResponse, Error> {
        let raw = &mut cx.storage.raw;
        if !self.for_cas {
            check_size([&self.key])?;
        }
        let cf = raw.cf(&self.cf)?;
        raw.delete(cf, self.key.clone());
        Ok(RawDeleteResponse::default())
    }
}

impl Execute for RawBatchDeleteRequest {
    type Response = RawBatchDeleteResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawBatchDeleteResponse, Error> {
        let raw = &mut cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        if !self.for_cas {
            check_size(&self.keys)?;
        } else if self.keys.is_empty() {
            return Err(Error::Refused(Refusal::NoKeys));
        }
        for key in &self.keys {
            raw.delete(cf, key.clone());
        }
        Ok(RawBatchDeleteResponse::default())
    }
}

impl Execute for RawDeleteRangeRequest {
    type Response = RawDeleteRangeResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawDeleteRangeResponse, Error> {
        check_size([&self.start_key, &self.end_key])?;
        let raw = &mut cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        if !self.end_key.is_empty() && self.start_key >= self.end_key {
            return Err(invalid_range("invalid delete range command"));
        }
        let range = KeyRange::new(self.start_key.clone(), self.end_key.clone());
        check_within(&range, cx.region)?;
        let deleted: Vec<Key> = raw.range(cf, &range).map(|(key, _)| key.clone()).collect();
        deleted.into_iter().for_each(|key| raw.delete(cf, key.into_bytes()));
        raw.values.retain(|(value_cf, key), _| *value_cf != cf || !range.contains(key.as_slice()));
        Ok(RawDeleteRangeResponse::default())
    }
}

impl Execute for RawScanRequest {
    type Response = RawScanResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawScanResponse, Error> {
        let raw = &cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let range = scan_range(&self.start_key, &self.end_key, self.reverse, cx.region);
        let options = ScanOptions { limit, key_only: self.key_only, is_reverse: self.reverse };
        Ok(RawScanResponse { kvs: raw.scan(cf, range, options), ..RawScanResponse::default() })
    }
}

impl Execute for RawBatchScanRequest {
    type Response = RawBatchScanResponse;

    fn execute(&self, cx: &mut Context<'_>) -> Result<RawBatchScanResponse, Error> {
        let raw = &cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        let ranges = batch_scan_ranges(&self.ranges);
        let is_inverted =
            |start: &Bytes, end: &Bytes| !end.is_empty() && if self.reverse { start <= end } else { start >= end };
        if ranges.iter().any(|(start, end)| is_inverted(start, end)) {
            return Err(Error::Other("Invalid KeyRanges"));
        }
        let limit = usize::try_from(self.each_limit).unwrap_or(usize::MAX);
        let options = ScanOptions { limit, key_only: self.key_only, is_reverse: self.reverse };
        let scan = |(start, end)| raw.scan(cf, scan_range(start, end, self.reverse, cx.region), options);
        Ok(RawBatchScanResponse { kvs: ranges.into_iter().flat_map(scan).collect(), ..Default::default() })
    }
}

/// A range without an end goes on to the start of the next.
fn batch_scan_ranges(ranges: &[RangeMessage]) -> Vec<(&Bytes, &Bytes)> {
    let nexts = ranges.iter().skip(1).map(Some).chain([None]);
    let end = |range: &'_ RangeMessage| !range.end_key.is_empty();
    ranges
        .iter()
        .zip(nexts)
        .map(|(range, next)| match next {
            Some(next) if !end(range) => (&range.start_key, &next.start_key),
            _ => (&range.start_key, &range.end_key),
        })
        .collect()
}

impl Execute for RawCasRequest {
    type Response = RawCasResponse;

    /// The value before is told in any case.
    fn execute(&self, cx: &mut Context<'_>) -> Result<RawCasResponse, Error> {
        let raw = &mut cx.storage.raw;
        let cf = raw.cf(&self.cf)?;
        raw.check_ttl(self.ttl)?;
        let previous = raw.get(cf, &self.key);
        let expected = (!self.previous_not_exist).then_some(&self.previous_value);
        let succeed = previous.as_ref() == expected;
        if succeed && self.delete {
            raw.delete(cf, self.key.clone());
        } else if succeed {
            raw.put(cf, self.key.clone(), self.value.clone(), self.ttl);
        }
        Ok(RawCasResponse {
            succeed,
            previous_not_exist: previous.is_none(),
            previous_value: previous.unwrap_or_default(),
            ..RawCasResponse::default()
        })
    }
}

impl Execute for RawChecksumRequest {
    type Response = RawChecksumResponse;

    /// Always of the default column family.
    fn execute(&self, cx: &mut Context<'_>) -> Result<RawChecksumResponse, Error> {
        if ChecksumAlgorithm::try_from(self.algorithm) != Ok(ChecksumAlgorithm::Crc64Xor) {
            return Err(Error::Other("unknown checksum algorithm"));
        }
        let mut response = RawChecksumResponse::default();
        for range in &self.ranges {
            let Some(range) = scan_range(&range.start_key, &range.end_key, false, cx.region) else { continue };
            for (key, value) in cx.storage.raw.range(Cf::Default, &range) {
                response.checksum ^= crc64([key.as_slice(), value]);
                response.total_kvs += 1;
                response.total_bytes += (key.len() + value.len()) as u64;
            }
        }
        Ok(response)
    }
}
