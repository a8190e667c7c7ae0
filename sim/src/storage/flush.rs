//! Flush and BufferBatchGet: pipelined transactions write their buffer early, generation by generation, and read it back.

use bytes::Bytes;
use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;
use tikv_proto::kvrpcpb::{BufferBatchGetRequest, BufferBatchGetResponse, FlushRequest, FlushResponse, KvPair};

use super::Refusal;
use super::command::{Context, Execute, check_key_sizes};
use super::data::Data;
use super::errors::Error;
use super::lock::{LockKind, LockRef};
use super::prewrite::committed_before;
use super::prewrite_key::{CommitKind, KeyMutation, TxnProps, prewrite_key};

#[cfg(test)]
mod tests;

impl Execute for FlushRequest {
    type Response = FlushResponse;

    /// A flush is an optimistic prewrite which may be repeated with a higher generation.
    fn execute(&self, cx: &mut Context<'_>) -> Result<FlushResponse, Error> {
        let mutations = self.mutations.iter().map(KeyMutation::new).collect::<Result<Vec<_>, _>>()?;
        if mutations.is_empty() {
            return Err(Error::Refused(Refusal::NoKeys));
        }
        check_key_sizes(self.mutations.iter().map(|mutation| &mutation.key))?;
        if self.generation == 0 {
            return Err(Error::InTxn("generation should be greater than 0 for Flush requests"));
        }
        let props = props_of(self, cx);
        let mut response = FlushResponse::default();
        // Any other error matters more than an assertion that does not hold.
        let mut failed_assertion = None;
        let mut txn = cx.begin(props.start_ts);
        for mutation in &mutations {
            match prewrite_key(&mut txn, &props, mutation, None) {
                // A newer flush has overtaken this one.
                Ok(_) | Err(Error::GenerationOutOfOrder) => {}
                Err(error @ Error::AssertionFailed(_)) => failed_assertion = failed_assertion.or(Some(error)),
                Err(error) if committed_before(&txn, mutation, &error).is_some() => return Ok(FlushResponse::default()),
                Err(error @ Error::KeyIsLocked(_)) => response.errors.push(error.key_error()),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = failed_assertion {
            return Err(error);
        }
        // Unlike a prewrite, a flush writes the other keys although some are locked.
        let batch = txn.batch;
        cx.apply(batch);
        Ok(response)
    }
}

fn props_of(request: &FlushRequest, cx: &Context<'_>) -> TxnProps {
    let start_ts = Timestamp::from_version(request.start_ts);
    TxnProps {
        start_ts,
        for_update_ts: None,
        commit: CommitKind::TwoPc,
        primary: request.primary_key.clone(),
        // The size is not known yet; as large as can be keeps resolvers from doing it key by key.
        txn_size: u64::MAX,
        lock_ttl_ms: request.lock_ttl,
        // Not zero, so that readers can push it.
        min_commit_ts: start_ts.next(),
        skip_constraint_check: false,
        is_retry: cx.has_option(|context| context.is_retry_request),
        assertion_level: request.assertion_level(),
        generation: request.generation,
    }
}

impl Execute for BufferBatchGetRequest {
    type Response = BufferBatchGetResponse;

    /// Answers in the order of keys, each key once. An empty value means that the transaction has deleted the key.
    fn execute(&self, cx: &mut Context<'_>) -> Result<BufferBatchGetResponse, Error> {
        let start_ts = Timestamp::from_version(self.version);
        if !cx.has_option(|context| context.stale_read) {
            cx.storage.max_ts.observe(start_ts);
        }
        let mut keys: Vec<Key> = self.keys.iter().cloned().map(Key::from).collect();
        keys.sort();
        keys.dedup();
        let mut pairs = Vec::new();
        for key in keys {
            if let Some(value) = buffered(&cx.storage.data, &key, start_ts)? {
                pairs.push(KvPair { key: key.into_bytes(), value, ..KvPair::default() });
            }
        }
        Ok(BufferBatchGetResponse { pairs, ..BufferBatchGetResponse::default() })
    }
}

fn buffered(data: &Data, key: &Key, start_ts: Timestamp) -> Result<Option<Bytes>, Error> {
    let lock = match data.lock(key) {
        Some(LockRef::Exclusive(lock)) if lock.start_ts == start_ts => lock,
        _ => return Ok(None),
    };
    match lock.kind {
        // A value that is gone counts as not buffered.
        LockKind::Put => Ok(data.locked_value(key, lock).ok()),
        LockKind::Delete => Ok(Some(Bytes::new())),
        LockKind::Lock | LockKind::Pessimistic => Err(Error::Refused(Refusal::NotBuffered)),
    }
}
