//! One key.
//!
//! ```text
//!             locked                 passed
//!   Calling ──────────► PassingLock ─────────► Calling …
//!      │ a value, or none
//!      └─────────► done
//! ```
//!
//! A read of the newest version is held up by the first transaction only whose lock it meets: whoever locked the key after
//! that commits after the read began.
//!
//! client-go: `KVSnapshot.get`.

use std::task::Poll;

use tikv_proto::kvrpcpb;

use super::pass_locks::{Blocked, PassLocks, Passed};
use super::{Read, ReadThrough, SnapshotOptions, Value, refusal, value};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{Error, KeyError, LockInfo, check_key};
use crate::key::Key;
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::request::Shared;
use crate::route::{self, CallEnd, RegionCall};
use crate::timestamp::{LOGICAL_BITS, Timestamp};

/// How many transactions a read of the newest version ignores before it asks what became of the next one.
const MAX_SKIPPED: u32 = 64;

/// Reads one key; see the [module documentation](self). Ends with `None` if there is no value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Get {
    request: Shared<kvrpcpb::GetRequest>,
    options: SnapshotOptions,
    read_through: ReadThrough,
    /// The transaction whose lock was met first.
    first_lock: Option<Timestamp>,
    /// Transactions after the first that were simply ignored.
    skipped: u32,
    rounds: u32,
    calls: u32,
    backoff: Backoff,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Calling(Box<RegionCall<kvrpcpb::GetRequest>>),
    PassingLock(Box<PassLocks>),
}

phases! {
    Get: Phase;
    start => Calling | done;
    Calling => PassingLock | done;
    PassingLock => Calling | done;
}

type Output = Read<Option<Value>>;

impl Get {
    /// Reads `key`. `read_through` is what the snapshot knows already.
    #[must_use]
    pub fn new(config: &Config, key: Key, options: SnapshotOptions, read_through: ReadThrough) -> Self {
        let request = kvrpcpb::GetRequest {
            context: None,
            key: key.into_bytes(),
            version: version(config, options.read_ts),
            need_commit_ts: options.need_commit_ts,
        };
        Get {
            request: Shared::new(request),
            read_through: at(read_through, options.read_ts),
            options,
            first_lock: None,
            skipped: 0,
            rounds: 0,
            calls: 0,
            backoff: route::budget(config, budget::GET),
            phase: Phase::Idle,
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        let (first, met_lock) = (self.calls == 0, self.first_lock.is_some());
        let options = self.options.call_options(self.options.call.timeout, first, met_lock, &self.read_through);
        self.calls += 1;
        let call = RegionCall::to_key(self.request.clone(), options, self.backoff.take());
        let mut call = Box::new(call);
        match call.start(cx) {
            Poll::Ready(end) => self.on_answer(cx, end),
            Poll::Pending => {
                self.phase = Phase::Calling(call);
                Poll::Pending
            }
        }
    }

    fn on_answer(&mut self, cx: &mut Context<'_>, mut end: CallEnd<kvrpcpb::GetResponse>) -> Poll<Output> {
        let store = end.store.take();
        self.backoff = end.backoff.clone();
        let response = match end.into_result("Get") {
            Ok(response) => response,
            Err(error) => return self.done(Err(error)),
        };
        match response.error.map(|error| KeyError::from_proto(*error)) {
            Some(KeyError::Locked(lock)) => self.on_locked(cx, *lock),
            Some(error) => self.done(Err(refusal(error))),
            None if response.not_found => self.done(Ok(None)),
            None => {
                let value = value(response.value, response.commit_ts, self.options.need_commit_ts);
                self.done(value.map_err(|missing| missing.error("Get", store.as_ref().map(|store| &store.address))))
            }
        }
    }

    fn on_locked(&mut self, cx: &mut Context<'_>, lock: LockInfo) -> Poll<Output> {
        let in_vain = self.read_through.passes(lock.start_ts);
        let is_first = *self.first_lock.get_or_insert(lock.start_ts) == lock.start_ts;
        if !is_first && !in_vain && self.options.read_ts == Timestamp::MAX && self.skipped < MAX_SKIPPED {
            self.skipped += 1;
            self.read_through.ignore(lock.start_ts);
            return self.send(cx);
        }
        let blocked = Blocked { keys: Vec::new(), locks: vec![lock], in_vain, rounds: self.rounds };
        let (read_ts, options) = (self.options.read_ts, self.options.call.clone());
        let mut pass = PassLocks::new(read_ts, blocked, true, options, self.backoff.take());
        match pass.start(cx) {
            Poll::Ready(passed) => self.on_passed(cx, passed),
            Poll::Pending => {
                self.phase = Phase::PassingLock(Box::new(pass));
                Poll::Pending
            }
        }
    }

    fn on_passed(&mut self, cx: &mut Context<'_>, passed: Passed) -> Poll<Output> {
        self.backoff = passed.backoff;
        self.rounds = passed.rounds;
        match passed.result {
            Ok(resolution) => {
                self.read_through.add(&resolution);
                self.send(cx)
            }
            Err(error) => self.done(Err(error)),
        }
    }

    fn done(&mut self, result: Result<Option<Value>, Error>) -> Poll<Output> {
        self.phase = Phase::Idle;
        let nothing = ReadThrough::new(self.options.read_ts);
        Poll::Ready(Read { result, read_through: std::mem::replace(&mut self.read_through, nothing) })
    }
}

/// The version to read; another one, where that mistake is to be made.
fn version(config: &Config, read_ts: Timestamp) -> u64 {
    if config.has_canary(Canary::ReadsOfTheNewest) {
        return u64::MAX;
    }
    let too_old = if config.has_canary(Canary::ReadsOfThePast) { 5 << LOGICAL_BITS } else { 0 };
    read_ts.version().saturating_sub(too_old)
}

/// What the snapshot knows is of use only at its timestamp.
pub(super) fn at(mut read_through: ReadThrough, read_ts: Timestamp) -> ReadThrough {
    read_through.set_read_ts(read_ts);
    read_through
}

impl Machine for Get {
    type Output = Output;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        match self.options.check().and_then(|()| check_key(&self.request.key)) {
            Ok(()) => self.send(cx),
            Err(error) => self.done(Err(error)),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Output> {
        match &mut self.phase {
            Phase::Idle => Poll::Pending,
            Phase::Calling(call) => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_answer(cx, end),
                Poll::Pending => Poll::Pending,
            },
            Phase::PassingLock(pass) => match pass.handle(cx, token, event) {
                Poll::Ready(passed) => self.on_passed(cx, passed),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
