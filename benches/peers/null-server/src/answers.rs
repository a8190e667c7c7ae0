//! What the store answers.
//!
//! Every key exists and holds the same value; scans find the transactional records; every transaction commits. Where
//! nothing of the request matters, it is not even decoded.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{
    self, DecodeContext, WireType, decode_key, encode_key, encode_varint, encoded_len_varint, key_len,
};
use prost::{DecodeError, Message};
use tikv_bench_load::{RECORDS, txn_record, value};
use tikv_core::request::{Request, RequestKind};
use tikv_proto::kvrpcpb::{
    BatchGetResponse, CommitResponse, GetResponse, KvPair, PrewriteRequest, PrewriteResponse, RawBatchGetResponse,
    RawGetResponse, ScanRequest, ScanResponse,
};

/// Field numbers of `tikvpb.BatchCommandsRequest` and `tikvpb.BatchCommandsResponse`, in both the same.
mod field {
    pub(super) const ENTRIES: u32 = 1;
    pub(super) const IDS: u32 = 2;
}

/// The answers, as far as they are known beforehand.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Commands by their field numbers in a batch.
    by_slot: Vec<Option<RequestKind>>,
    /// What scans find, in order.
    records: Vec<KvPair>,
    value: Bytes,
    get: Bytes,
    raw_get: Bytes,
}

impl Answers {
    pub(crate) fn new() -> Self {
        let value = Bytes::from(value());
        let mut by_slot = Vec::new();
        for kind in RequestKind::ALL {
            let Some(slot) = kind.batch_slot().and_then(|slot| usize::try_from(slot).ok()) else { continue };
            by_slot.resize(by_slot.len().max(slot + 1), None);
            by_slot[slot] = Some(*kind);
        }
        Answers {
            by_slot,
            records: (0..RECORDS).map(|number| pair(txn_record(number).into(), &value)).collect(),
            get: GetResponse { value: value.clone(), ..GetResponse::default() }.encode_to_vec().into(),
            raw_get: RawGetResponse { value: value.clone(), ..RawGetResponse::default() }.encode_to_vec().into(),
            value,
        }
    }

    /// Answers a `BatchCommandsRequest`, in its order.
    pub(crate) fn answer_frame(&self, mut frame: Bytes) -> Result<Bytes, DecodeError> {
        let mut reply = BytesMut::with_capacity(2 * frame.len());
        let mut ids = Vec::new();
        while frame.has_remaining() {
            let (field, wire_type) = decode_key(&mut frame)?;
            let context = DecodeContext::default();
            match field {
                field::ENTRIES => self.answer_entry(take_bytes(wire_type, &mut frame)?, &mut reply)?,
                field::IDS => encoding::uint64::merge_repeated(wire_type, &mut ids, &mut frame, context)?,
                _ => encoding::skip_field(wire_type, field, &mut frame, context)?,
            }
        }
        encoding::uint64::encode_packed(field::IDS, &ids, &mut reply);
        Ok(reply.freeze())
    }

    fn answer_entry(&self, mut entry: Bytes, reply: &mut BytesMut) -> Result<(), DecodeError> {
        if entry.is_empty() {
            write_head(field::ENTRIES, 0, reply);
            return Ok(());
        }
        let (slot, wire_type) = decode_key(&mut entry)?;
        let request = take_bytes(wire_type, &mut entry)?;
        let kind = usize::try_from(slot).ok().and_then(|slot| self.by_slot.get(slot).copied().flatten());
        let answer = kind.map_or(Ok(Bytes::new()), |kind| self.answer(kind, request))?;
        let head = key_len(slot) + encoded_len_varint(answer.len() as u64);
        write_head(field::ENTRIES, head + answer.len(), reply);
        write_head(slot, answer.len(), reply);
        reply.put_slice(&answer);
        Ok(())
    }

    /// Answers one request: both are the bodies of unary calls.
    pub(crate) fn answer(&self, kind: RequestKind, request: Bytes) -> Result<Bytes, DecodeError> {
        match kind {
            RequestKind::Get => Ok(self.get.clone()),
            RequestKind::RawGet => Ok(self.raw_get.clone()),
            RequestKind::RawBatchGet
            | RequestKind::BatchGet
            | RequestKind::Scan
            | RequestKind::Prewrite
            | RequestKind::Commit => kind.decode_request(request).map(|(_, request)| self.answer_decoded(&request)),
            // A message all of whose fields have their defaults: done, and no error.
            _ => Ok(Bytes::new()),
        }
    }

    fn answer_decoded(&self, request: &Request) -> Bytes {
        let message = match request {
            Request::RawBatchGet(request) => {
                let pairs = self.pairs(&request.keys);
                RawBatchGetResponse { pairs, ..RawBatchGetResponse::default() }.encode_to_vec()
            }
            Request::BatchGet(request) => {
                let pairs = self.pairs(&request.keys);
                BatchGetResponse { pairs, ..BatchGetResponse::default() }.encode_to_vec()
            }
            Request::Scan(request) => {
                let pairs = self.scan(request).to_vec();
                ScanResponse { pairs, ..ScanResponse::default() }.encode_to_vec()
            }
            Request::Prewrite(request) => prewrite(request).encode_to_vec(),
            Request::Commit(request) => {
                CommitResponse { commit_version: request.commit_version, ..CommitResponse::default() }.encode_to_vec()
            }
            _ => Vec::new(),
        };
        message.into()
    }

    fn pairs(&self, keys: &[Bytes]) -> Vec<KvPair> {
        keys.iter().map(|key| pair(key.clone(), &self.value)).collect()
    }

    fn scan(&self, request: &ScanRequest) -> &[KvPair] {
        let first = self.records.partition_point(|record| record.key < request.start_key);
        let found = &self.records[first..];
        let within = match request.end_key.is_empty() {
            true => found.len(),
            false => found.partition_point(|record| record.key < request.end_key),
        };
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        &found[..within.min(limit)]
    }
}

/// Whatever way of committing is asked for is granted, at the earliest timestamp that is allowed.
fn prewrite(request: &PrewriteRequest) -> PrewriteResponse {
    let commit_ts = request.min_commit_ts.max(request.start_version + 1);
    let mut response = PrewriteResponse::default();
    if request.try_one_pc {
        response.one_pc_commit_ts = commit_ts;
    } else if request.use_async_commit {
        response.min_commit_ts = commit_ts;
    }
    response
}

fn pair(key: Bytes, value: &Bytes) -> KvPair {
    KvPair { key, value: value.clone(), ..KvPair::default() }
}

fn take_bytes(wire_type: WireType, buffer: &mut Bytes) -> Result<Bytes, DecodeError> {
    let mut taken = Bytes::new();
    encoding::bytes::merge(wire_type, &mut taken, buffer, DecodeContext::default())?;
    Ok(taken)
}

fn write_head(field: u32, len: usize, buffer: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(len as u64, buffer);
}

#[cfg(test)]
mod tests;
