//! Keys of one region and what is done with all of them: commit or roll back.
//!
//! ```text
//!              answered, or budget spent
//!   start ──► Calling ────────────────────► done
//!                  │ the region has changed
//!                  └──────────────────────► relocate
//! ```
//!
//! Both can be repeated as often as one likes. The commit of a primary is another matter: see `commit_primary`.
//!
//! client-go: `actionCommit.handleSingleBatch`, `actionCleanup.handleSingleBatch`.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use super::refusal;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::error::{Error, KeyError};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, Event, Machine, Token};
use crate::request::{Shared, StoreRequest};
use crate::route::{CallEnd, CallError, CallOptions, RegionCall, Shard, ShardEnd};

/// A request that does one thing with several keys.
pub(super) trait KeysRequest: StoreRequest {
    /// The same for other keys.
    fn with_keys(&self, keys: Vec<Bytes>) -> Self;

    /// The keys that it names.
    fn keys(&self) -> &[Bytes];

    /// TiKV's refusal.
    fn refusal(response: Self::Response) -> Option<KeyError>;
}

/// How keys are distributed: batches of a region's keys, each about [`Config::txn_batch_bytes`] long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeysShard<R> {
    request: Shared<R>,
    options: CallOptions,
    batch_bytes: usize,
}

impl<R: KeysRequest> KeysShard<R> {
    /// Sends `request`, which names no keys yet.
    pub(super) fn new(config: &Config, request: R, options: CallOptions) -> Self {
        KeysShard { request: Shared::new(request), options, batch_bytes: config.txn_batch_bytes }
    }
}

impl<R: KeysRequest> Shard for KeysShard<R> {
    type Item = Key;
    type Output = Result<(), Error>;
    type Child = KeysCall<R>;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        keys: Vec<Key>,
        backoff: Backoff,
        is_retry: bool,
    ) -> KeysCall<R> {
        let request = self.request.with_keys(keys.into_iter().map(Key::into_bytes).collect());
        let call = RegionCall::to_region(region, request, self.options.clone(), backoff);
        KeysCall { call: call.repeatable().as_retry(is_retry) }
    }

    fn weight(&self, key: &Key) -> usize {
        key.len()
    }

    fn batch_limit(&self) -> usize {
        self.batch_bytes
    }
}

/// One batch; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeysCall<R> {
    call: RegionCall<R>,
}

type End = ShardEnd<Key, Result<(), Error>>;

impl<R: KeysRequest> KeysCall<R> {
    fn end(&mut self, end: CallEnd<R::Response>) -> End {
        if let Err(CallError::Relocate(_)) = end.result {
            let items = self.call.request().keys().iter().cloned().map(Key::from).collect();
            return ShardEnd::Relocate { items, backoff: end.backoff };
        }
        let response = end.into_result(R::FACTS.name);
        ShardEnd::Done(response.and_then(|response| match R::refusal(response) {
            None => Ok(()),
            Some(error) => Err(Error::Key(error)),
        }))
    }
}

impl<R: KeysRequest> Machine for KeysCall<R> {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.call.start(cx).map(|end| self.end(end))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        self.call.handle(cx, token, event).map(|end| self.end(end))
    }
}

impl KeysRequest for kvrpcpb::CommitRequest {
    fn with_keys(&self, keys: Vec<Bytes>) -> Self {
        let has_primary = keys.contains(&self.primary_key);
        let role = if has_primary { kvrpcpb::CommitRole::Primary } else { kvrpcpb::CommitRole::Secondary };
        kvrpcpb::CommitRequest { keys, commit_role: role.into(), ..self.clone() }
    }

    fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    fn refusal(response: kvrpcpb::CommitResponse) -> Option<KeyError> {
        refusal::key_error(response.error)
    }
}

impl KeysRequest for kvrpcpb::BatchRollbackRequest {
    fn with_keys(&self, keys: Vec<Bytes>) -> Self {
        kvrpcpb::BatchRollbackRequest { keys, ..self.clone() }
    }

    fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    fn refusal(response: kvrpcpb::BatchRollbackResponse) -> Option<KeyError> {
        refusal::key_error(response.error)
    }
}
