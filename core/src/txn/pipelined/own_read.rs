//! Reads of a pipelined transaction: its buffers, then what it has flushed, then its snapshot.
//!
//! ```text
//!             some keys may be flushed                    some are not
//!   start ──────────────────────────► ReadingFlushed ──────────────────► ReadingSnapshot ──► done
//!     │                                      └─ all are, or a failure ───────────────────────► done
//!     └─ nothing has been flushed that could be asked for: ReadingSnapshot, or done
//! ```
//!
//! A key that the transaction has flushed, and that is in none of its buffers any more, carries its lock: TiKV reads the value
//! from there. What is not locked is read from the snapshot, which passes the transaction's own locks.
//!
//! Only keys that are not in the request's buffers are asked for. If the transaction was rolled back by somebody else in the
//! meantime, its locks are gone and the snapshot shows what was there before; the transaction cannot commit then.
//!
//! client-go: `PipelinedMemDB.BatchGet`, `BatchGetWithTier`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tikv_proto::kvrpcpb::{BufferBatchGetRequest, BufferBatchGetResponse};

use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::error::{Error, KeyError};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::route::{self, CallOptions, RegionCall, Shard, ShardCall, ShardReply, Sharded};
use crate::snapshot::{BatchGet, Pair, Read, ReadThrough, SnapshotOptions, Value};
use crate::time::Time;
use crate::timestamp::Timestamp;
use crate::txn::Buffered;

/// Which keys a pipelined transaction reads, and what it knows of them itself. Made by
/// [`PipelinedTransaction::begin_read`](super::PipelinedTransaction::begin_read).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnReadRequest {
    pub(super) start_ts: Timestamp,
    /// The latest generation: what is learnt of the flushed ones is true until there is another one.
    pub(super) generation: u64,
    /// The values that are known.
    pub(super) found: Vec<Pair>,
    /// Keys that may have been flushed.
    pub(super) flushed: Vec<Key>,
    /// Keys that have not been flushed.
    pub(super) stored: Vec<Key>,
}

/// The end of an [`OwnRead`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnReadEnd {
    /// The pairs that exist, in the order of their keys, each once.
    pub result: Result<Vec<Pair>, Error>,
    /// What is known now of transactions whose locks were met; for the snapshot's next read.
    pub read_through: ReadThrough,
    /// What the transaction has flushed of these keys; unknown is what it has not.
    pub(super) flushed: Vec<(Key, Buffered)>,
    pub(super) generation: u64,
}

/// Reads keys as a pipelined transaction sees them; see the [module documentation](self). Changes nothing: it can be dropped at
/// any step. Its end goes to [`PipelinedTransaction::end_read`](super::PipelinedTransaction::end_read).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnRead {
    request: OwnReadRequest,
    options: SnapshotOptions,
    read_through: ReadThrough,
    flushed: Vec<(Key, Buffered)>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    ReadingFlushed(Sharded<BufferShard>),
    ReadingSnapshot(Box<BatchGet>),
}

phases! {
    OwnRead: Phase;
    start => ReadingFlushed | ReadingSnapshot | done;
    ReadingFlushed => ReadingSnapshot | done;
    ReadingSnapshot => done;
}

impl OwnRead {
    /// Reads what `request` says. `options` must be those of a snapshot at the transaction's start_ts, `read_through` is what
    /// that snapshot knows already.
    #[must_use]
    pub fn new(request: OwnReadRequest, options: SnapshotOptions, read_through: ReadThrough) -> Self {
        let read_through = read_through.of_transaction(request.start_ts);
        OwnRead { request, options, read_through, flushed: Vec::new(), phase: Phase::Idle }
    }

    fn read_flushed(&mut self, cx: &mut Context<'_>, mut shares: Sharded<BufferShard>) -> Poll<OwnReadEnd> {
        while let Some(end) = shares.next_finished(cx) {
            match end.map_err(|unlocated| unlocated.error).and_then(answered) {
                Ok(flushed) => self.flushed.extend(flushed),
                Err(error) => {
                    shares.cancel_all(cx);
                    return self.done(Err(error));
                }
            }
        }
        if !shares.is_idle() {
            self.phase = Phase::ReadingFlushed(shares);
            return Poll::Pending;
        }
        for (key, flushed) in &self.flushed {
            match flushed {
                Buffered::Value(value) => self.request.found.push(pair(key, value)),
                Buffered::Deleted => {}
                Buffered::Unknown => self.request.stored.push(key.clone()),
            }
        }
        self.read_stored(cx)
    }

    fn read_stored(&mut self, cx: &mut Context<'_>) -> Poll<OwnReadEnd> {
        let keys = std::mem::take(&mut self.request.stored);
        if keys.is_empty() {
            return self.done(Ok(Vec::new()));
        }
        let get = BatchGet::new(cx.config(), keys, self.options.clone(), self.read_through.clone());
        self.read_snapshot(cx, Box::new(get), BatchGet::start)
    }

    fn read_snapshot(
        &mut self,
        cx: &mut Context<'_>,
        mut get: Box<BatchGet>,
        step: impl FnOnce(&mut BatchGet, &mut Context<'_>) -> Poll<Read<Vec<Pair>>>,
    ) -> Poll<OwnReadEnd> {
        match step(&mut get, cx) {
            Poll::Ready(read) => {
                self.read_through.learn(&read.read_through);
                self.done(read.result)
            }
            Poll::Pending => {
                self.phase = Phase::ReadingSnapshot(get);
                Poll::Pending
            }
        }
    }

    /// Lays the transaction's own values beside the stored ones.
    fn done(&mut self, stored: Result<Vec<Pair>, Error>) -> Poll<OwnReadEnd> {
        self.phase = Phase::Idle;
        let mut pairs = std::mem::take(&mut self.request.found);
        let result = stored.map(|stored| {
            pairs.extend(stored);
            pairs.sort_by(|a, b| a.key.cmp(&b.key));
            pairs
        });
        let nothing = ReadThrough::new(self.options.read_ts);
        let read_through = std::mem::replace(&mut self.read_through, nothing);
        let flushed = std::mem::take(&mut self.flushed);
        Poll::Ready(OwnReadEnd { result, read_through, flushed, generation: self.request.generation })
    }
}

impl Machine for OwnRead {
    type Output = OwnReadEnd;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<OwnReadEnd> {
        let mut keys = std::mem::take(&mut self.request.flushed);
        if cx.config().has_canary(Canary::FlushedReadsMissed) {
            self.request.stored.append(&mut keys);
        }
        if keys.is_empty() {
            return self.read_stored(cx);
        }
        let options = self.options.call.clone().with_timeout(self.options.batch_timeout);
        let shard = BufferShard::new(self.request.start_ts, options, self.options.batch_get_size);
        let mut shares = Sharded::new(shard, cx.config().operation_concurrency);
        shares.add_known(cx, keys, route::budget(cx.config(), budget::BATCH_GET), false);
        shares.run(cx);
        self.read_flushed(cx, shares)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<OwnReadEnd> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => Poll::Pending,
            Phase::ReadingFlushed(mut shares) => {
                shares.handle(cx, token, event);
                self.read_flushed(cx, shares)
            }
            Phase::ReadingSnapshot(get) => self.read_snapshot(cx, get, |get, cx| get.handle(cx, token, event)),
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

/// How keys are asked of the flushed generations: as many as a batch get asks for in one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BufferShard {
    start_ts: Timestamp,
    options: CallOptions,
    batch_keys: usize,
}

impl BufferShard {
    pub(super) fn new(start_ts: Timestamp, options: CallOptions, batch_keys: usize) -> Self {
        BufferShard { start_ts, options, batch_keys }
    }
}

impl Shard for BufferShard {
    type Item = Key;
    type Output = ShardReply<Key, BufferBatchGetResponse>;
    type Child = ShardCall<BufferBatchGetRequest, Key>;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        keys: Vec<Key>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Self::Child {
        let request = BufferBatchGetRequest {
            keys: keys.iter().map(Key::to_bytes).collect(),
            version: self.start_ts.version(),
            ..BufferBatchGetRequest::default()
        };
        let call = RegionCall::to_region(region, request, self.options.clone(), backoff);
        ShardCall::new(keys, call.as_retry(is_retry))
    }

    fn weight(&self, _: &Key) -> usize {
        1
    }

    fn batch_limit(&self) -> usize {
        self.batch_keys
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}

/// What has been flushed of each key that was asked for. An empty value is a deletion.
pub(super) fn answered(reply: ShardReply<Key, BufferBatchGetResponse>) -> Result<Vec<(Key, Buffered)>, Error> {
    let response = reply.result?;
    if let Some(error) = response.error {
        return Err(Error::Key(KeyError::from_proto(*error)));
    }
    let asked: BTreeSet<Key> = reply.items.into_iter().collect();
    let mut flushed = Vec::with_capacity(asked.len());
    let mut left = asked.clone();
    for pair in response.pairs {
        if let Some(error) = pair.error {
            return Err(Error::Key(KeyError::from_proto(*error)));
        }
        let key = Key::from(pair.key);
        if !left.remove(&key) {
            let actual = "a key that was not asked for, or twice";
            return Err(Error::WrongResponse { operation: "BufferBatchGet", address: reply.address, actual });
        }
        flushed.push((key, if pair.value.is_empty() { Buffered::Deleted } else { Buffered::Value(pair.value) }));
    }
    flushed.extend(left.into_iter().map(|key| (key, Buffered::Unknown)));
    Ok(flushed)
}

pub(super) fn pair(key: &Key, value: &Bytes) -> Pair {
    Pair { key: key.clone(), value: Value { bytes: value.clone(), commit_ts: None } }
}
