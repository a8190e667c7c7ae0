//! Many keys.
//!
//! ```text
//!   start ──► grouping ──► one request per region and batch ──► all answered: done
//!                ▲                 │              │ locked
//!                │ region changed  │              ▼
//!                ├─────────────────┘         PassingLocks
//!                └────────────────────────────────┘ the locked keys only
//! ```
//!
//! All requests run side by side. One that meets locks delivers what it could read, and asks for the rest again. When TiKV
//! refuses the whole request for a lock, nothing in the answer counts, and all its keys are asked for again.
//!
//! client-go: `KVSnapshot.BatchGet`.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb;

use super::get::at;
use super::pass_locks::{Blocked, PassLocks, Passed};
use super::{Pair, Read, ReadThrough, SnapshotOptions, nonsense, refusal, value};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{Error, KeyError, LockInfo, check_key};
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, Event, FanOut, Machine, Token};
use crate::route::{self, CallEnd, CallError, InOrder, Keyed, RegionCall, Shard, ShardEnd, Sharded};
use crate::time::Time;

/// Reads many keys; see the [module documentation](self). Ends with the pairs that exist, in the order of their keys, each
/// once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchGet {
    keys: Vec<Key>,
    shares: Sharded<Shares>,
    /// Shares that met locks.
    passing: FanOut<PassLocks>,
    pairs: Vec<Pair>,
    backoff: Backoff,
}

type Output = Read<Vec<Pair>>;

impl BatchGet {
    /// Reads `keys`, in any order; some may be there twice. `read_through` is what the snapshot knows already.
    #[must_use]
    pub fn new(config: &Config, keys: Vec<Key>, options: SnapshotOptions, read_through: ReadThrough) -> Self {
        BatchGet::with_budget(config, keys, options, read_through, route::budget(config, budget::BATCH_GET))
    }

    /// As a part of another read, from its budget.
    pub(super) fn with_budget(
        config: &Config,
        mut keys: Vec<Key>,
        options: SnapshotOptions,
        read_through: ReadThrough,
        backoff: Backoff,
    ) -> Self {
        keys.sort_unstable();
        keys.dedup();
        let read_through = at(read_through, options.read_ts);
        let shares = Sharded::new(Shares { options, read_through }, config.operation_concurrency);
        let passing = FanOut::new(config.operation_concurrency);
        BatchGet { keys, shares, passing, pairs: Vec::new(), backoff }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        loop {
            while let Some(end) = self.shares.next_finished(cx) {
                let end = end.map(|share| match cx.config().has_canary(Canary::BatchGetSkipsLocks) {
                    true => share.without_locks(),
                    false => share,
                });
                if let Err(error) = end.map_err(Error::from).and_then(|share| self.on_share(share)) {
                    return self.fail(cx, error);
                }
            }
            let Some((_, passed)) = self.passing.next_finished(cx) else { break };
            if let Err(error) = self.on_passed(passed) {
                return self.fail(cx, error);
            }
        }
        if self.shares.is_idle() && self.passing.is_idle() { self.done(Ok(())) } else { Poll::Pending }
    }

    fn on_share(&mut self, share: ShareResult) -> Result<(), Error> {
        let Answer { pairs, blocked } = share.result?;
        self.pairs.extend(pairs);
        if let Some(blocked) = blocked {
            let Shares { options, .. } = self.shares.shard();
            let pass = PassLocks::new(options.read_ts, blocked, false, options.call.clone(), share.backoff);
            self.passing.add(pass);
        }
        Ok(())
    }

    fn on_passed(&mut self, passed: Passed) -> Result<(), Error> {
        self.shares.shard_mut().read_through.add(&passed.result?);
        let rounds = passed.rounds;
        let keys = passed.keys.into_iter().map(|key| Wanted { key, rounds, is_retry: false }).collect();
        self.shares.add(keys, passed.backoff, true);
        Ok(())
    }

    fn fail(&mut self, cx: &mut Context<'_>, error: Error) -> Poll<Output> {
        self.shares.cancel_all(cx);
        self.passing.cancel_all(cx);
        self.done(Err(error))
    }

    fn done(&mut self, result: Result<(), Error>) -> Poll<Output> {
        let mut pairs = std::mem::take(&mut self.pairs);
        if !pairs.is_sorted_by(|a, b| a.key <= b.key) {
            pairs.sort_by(|a, b| a.key.cmp(&b.key));
        }
        pairs.dedup_by(|a, b| a.key == b.key);
        let Shares { options, read_through } = self.shares.shard_mut();
        let nothing = ReadThrough::new(options.read_ts);
        let read_through = std::mem::replace(read_through, nothing);
        Poll::Ready(Read { result: result.map(|()| pairs), read_through })
    }
}

impl Machine for BatchGet {
    type Output = Output;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        let options = self.shares.shard().options.check();
        if let Err(error) = options.and_then(|()| self.keys.iter().try_for_each(|key| check_key(key.as_slice()))) {
            return self.fail(cx, error);
        }
        let keys = std::mem::take(&mut self.keys).into_iter().map(|key| Wanted { key, rounds: 0, is_retry: false });
        self.shares.add_known(cx, keys.collect(), self.backoff.take(), false);
        self.shares.run(cx);
        self.collect(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Output> {
        if self.passing.waits_for(token) {
            self.passing.handle(cx, token, event);
        } else {
            self.shares.handle(cx, token, event);
        }
        self.collect(cx)
    }
}

/// A key, how often it was found locked, and whether it was asked of a region that has changed since.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    key: Key,
    rounds: u32,
    is_retry: bool,
}

impl Keyed for Wanted {
    fn key(&self) -> &Key {
        &self.key
    }
}

/// How keys are put into requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shares {
    options: SnapshotOptions,
    read_through: ReadThrough,
}

impl Shard for Shares {
    type Item = Wanted;
    type Output = ShareResult;
    type Child = Share;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        wanted: Vec<Wanted>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Share {
        let request = kvrpcpb::BatchGetRequest {
            context: None,
            keys: wanted.iter().map(|wanted| wanted.key.to_bytes()).collect(),
            version: self.options.read_ts.version(),
            need_commit_ts: self.options.need_commit_ts,
        };
        let met_lock = wanted.iter().any(|wanted| wanted.rounds > 0);
        let timeout = self.options.batch_timeout;
        let options = self.options.call_options(timeout, !is_retry && !met_lock, met_lock, &self.read_through);
        let call = RegionCall::to_region(region, request, options, backoff);
        let call = call.as_retry(wanted.iter().any(|wanted| wanted.is_retry));
        Share { wanted, call, policy: self.clone() }
    }

    fn weight(&self, _: &Wanted) -> usize {
        1
    }

    fn batch_limit(&self) -> usize {
        self.options.batch_get_size
    }

    fn deadline(&self) -> Time {
        self.options.call.deadline
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Share {
    wanted: Vec<Wanted>,
    call: RegionCall<kvrpcpb::BatchGetRequest>,
    /// As it was when the request was made.
    policy: Shares,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ShareResult {
    result: Result<Answer, Error>,
    backoff: Backoff,
}

impl ShareResult {
    /// As if locked keys were absent.
    fn without_locks(mut self) -> Self {
        if let Ok(answer) = &mut self.result {
            answer.blocked = None;
        }
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Answer {
    pairs: Vec<Pair>,
    blocked: Option<Blocked>,
}

impl Share {
    fn on_answer(&mut self, mut end: CallEnd<kvrpcpb::BatchGetResponse>) -> ShardEnd<Wanted, ShareResult> {
        if let Err(CallError::Relocate(_)) = end.result {
            let items = std::mem::take(&mut self.wanted).into_iter();
            let items = items.map(|wanted| Wanted { is_retry: true, ..wanted }).collect();
            return ShardEnd::Relocate { items, backoff: end.backoff };
        }
        let (store, backoff) = (end.store.take(), end.backoff.clone());
        let address = store.as_ref().map(|store| &store.address);
        let result = end.into_result("BatchGet").and_then(|response| self.read(response, address));
        ShardEnd::Done(ShareResult { result, backoff })
    }

    fn read(&self, response: kvrpcpb::BatchGetResponse, address: Option<&Arc<str>>) -> Result<Answer, Error> {
        if let Some(error) = response.error {
            let lock = locked(*error)?;
            let keys = self.wanted.iter().map(|wanted| wanted.key.clone()).collect();
            return Ok(Answer { pairs: Vec::new(), blocked: Some(self.blocked(keys, vec![lock])) });
        }
        let (mut pairs, mut locks) = (Vec::with_capacity(response.pairs.len()), Vec::new());
        let mut wanted = InOrder::new(&self.wanted);
        for pair in response.pairs {
            match pair.error {
                Some(error) => locks.push(locked(*error)?),
                None => {
                    let key = Key::from(pair.key);
                    if wanted.find(key.as_slice()).is_none() {
                        return Err(nonsense("BatchGet", address, "a key that was not asked for"));
                    }
                    let value = value(pair.value, pair.commit_ts, self.policy.options.need_commit_ts);
                    if let Some(value) = value.map_err(|missing| missing.error("BatchGet", address))? {
                        pairs.push(Pair { key, value });
                    }
                }
            }
        }
        if locks.is_empty() {
            return Ok(Answer { pairs, blocked: None });
        }
        let mut keys: Vec<_> = locks.iter().map(|lock| lock.key.clone()).collect();
        if keys.iter().any(|key| self.rounds_of(key).is_none()) {
            // A lock without its key: which keys it hides is not known.
            keys = self.wanted.iter().map(|wanted| wanted.key.clone()).collect();
            pairs.clear();
        }
        Ok(Answer { pairs, blocked: Some(self.blocked(keys, locks)) })
    }

    /// How often a key of this request was found locked before.
    fn rounds_of(&self, key: &Key) -> Option<u32> {
        InOrder::new(&self.wanted).find(key.as_slice()).map(|wanted| wanted.rounds)
    }

    fn blocked(&self, keys: Vec<Key>, locks: Vec<LockInfo>) -> Blocked {
        let in_vain = locks.iter().any(|lock| self.policy.read_through.passes(lock.start_ts));
        let rounds = keys.iter().filter_map(|key| self.rounds_of(key)).max().unwrap_or(0);
        Blocked { keys, locks, in_vain, rounds }
    }
}

/// The lock that an error is about; other errors end the read.
pub(super) fn locked(error: kvrpcpb::KeyError) -> Result<LockInfo, Error> {
    match KeyError::from_proto(error) {
        KeyError::Locked(lock) => Ok(*lock),
        error => Err(refusal(error)),
    }
}

impl Machine for Share {
    type Output = ShardEnd<Wanted, ShareResult>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.start(cx).map(|end| self.on_answer(end))
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        self.call.handle(cx, token, event).map(|end| self.on_answer(end))
    }
}
