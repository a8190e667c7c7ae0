//! The next pairs of a range, from one region.
//!
//! ```text
//!   start ──► Locating ──► Scanning ──► no locks among the pairs: done
//!               ▲  ▲          │  │ some pairs are locked       passed
//!               │  │ region   │  └──────────► PassingLocks ──────────► ReadingLocked ──► done
//!               │  │ changed  │                                       (the locked keys)
//!               │  └──────────┤
//!               └── PassingLocks ◄── the whole request was refused for a lock
//! ```
//!
//! A page ends where its region ends, or when it is full. Fewer pairs than asked for mean that the region has no more; a page
//! may therefore be empty although the range goes on.
//!
//! client-go: `txnsnapshot.Scanner`.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tikv_proto::kvrpcpb;

use super::batch_get::{BatchGet, locked};
use super::get::at;
use super::pass_locks::{Blocked, PassLocks, Passed};
use super::{Pair, Read, ReadThrough, SnapshotOptions, Value, nonsense};
use crate::backoff::{Backoff, budget};
use crate::canary::Canary;
use crate::config::Config;
use crate::error::{Error, LockInfo};
use crate::key::{Direction, Key, KeyRange};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::route::{self, CallEnd, CallError, Locate, Located, Place, RegionCall};

/// What is left of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanCursor {
    /// The keys not yet scanned.
    pub rest: KeyRange,
    /// From which end.
    pub direction: Direction,
}

/// Some pairs of a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    /// The pairs, in the direction of the scan. May be empty although the range goes on.
    pub pairs: Vec<Pair>,
    /// Where to go on; `None` at the end of the range.
    pub next: Option<ScanCursor>,
}

/// Reads the next pairs of a range; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScanPage {
    cursor: ScanCursor,
    limit: u32,
    options: SnapshotOptions,
    read_through: ReadThrough,
    met_lock: bool,
    rounds: u32,
    /// Whether the same was asked of a region that has changed since.
    is_retry: bool,
    calls: u32,
    backoff: Backoff,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Locating(Locate),
    Scanning { call: Box<RegionCall<kvrpcpb::ScanRequest>>, part: KeyRange },
    PassingLocks { pass: Box<PassLocks>, then: AfterLocks },
    ReadingLocked { read: Box<BatchGet>, page: Page },
}

phases! {
    ScanPage: Phase;
    start => Locating | Scanning | done;
    Locating => Scanning | done;
    Scanning => Locating | PassingLocks | ReadingLocked | done;
    PassingLocks => Locating | Scanning | ReadingLocked | done;
    ReadingLocked => done;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AfterLocks {
    ScanAgain,
    /// The pairs of the locked keys are missing from the page.
    ReadLocked(Page),
}

type Output = Read<Page>;

impl ScanCursor {
    /// A scan of `range`, beginning at its start, or in reverse at its end.
    #[must_use]
    pub fn new(range: KeyRange, direction: Direction) -> Self {
        ScanCursor { rest: range, direction }
    }

    /// What is left behind `part`, of which everything has been seen; `None` if nothing is.
    fn behind(&self, part: &KeyRange) -> Option<ScanCursor> {
        let mut rest = self.rest.clone();
        let is_last = match self.direction {
            Direction::Forward => {
                rest.start = part.end.clone();
                part.end.is_empty() || part.end == rest.end
            }
            Direction::Reverse => {
                rest.end = part.start.clone();
                part.start == rest.start
            }
        };
        (!is_last).then(|| ScanCursor::new(rest, self.direction))
    }

    /// What is left behind `last`, the last key that was seen; `None` if nothing is.
    fn after(&self, last: &Key) -> Option<ScanCursor> {
        let mut rest = self.rest.clone();
        match self.direction {
            Direction::Forward => rest.start = last.next(),
            // An empty end would be the end of all keys.
            Direction::Reverse if last.is_empty() => return None,
            Direction::Reverse => rest.end = last.clone(),
        }
        (!rest.is_empty()).then(|| ScanCursor::new(rest, self.direction))
    }
}

impl ScanPage {
    /// Reads at most `limit` pairs where `cursor` is. `read_through` is what the snapshot knows already.
    #[must_use]
    pub fn new(
        config: &Config,
        cursor: ScanCursor,
        limit: u32,
        options: SnapshotOptions,
        read_through: ReadThrough,
    ) -> Self {
        ScanPage {
            cursor,
            limit,
            read_through: at(read_through, options.read_ts),
            options,
            met_lock: false,
            rounds: 0,
            is_retry: false,
            calls: 0,
            backoff: route::budget(config, budget::SCANNER_NEXT),
            phase: Phase::Idle,
        }
    }

    fn locate(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        let place = match self.cursor.direction {
            Direction::Forward => Place::Of(self.cursor.rest.start.clone()),
            Direction::Reverse => Place::Before(self.cursor.rest.end.clone()),
        };
        let locate = Locate::new(place, self.backoff.take());
        let mut locate = locate.with_deadline(self.options.call.deadline);
        match locate.start(cx) {
            Poll::Ready(located) => self.on_located(cx, located),
            Poll::Pending => {
                self.phase = Phase::Locating(locate);
                Poll::Pending
            }
        }
    }

    fn on_located(&mut self, cx: &mut Context<'_>, located: Located) -> Poll<Output> {
        self.backoff = located.backoff;
        let region = match located.result {
            Ok(region) => region,
            Err(error) => return self.done(Err(error)),
        };
        let Some(part) = self.cursor.rest.intersection(&region.range) else {
            let message = "PD located a key in a region that does not hold it";
            return self.done(Err(Error::InvalidArgument(Arc::from(message))));
        };
        let first = self.calls == 0;
        let options = self.options.call_options(self.options.batch_timeout, first, self.met_lock, &self.read_through);
        self.calls += 1;
        let call = RegionCall::to_region(region, self.request(&part), options, self.backoff.take());
        let mut call = call.as_retry(self.is_retry);
        match call.start(cx) {
            Poll::Ready(end) => self.on_answer(cx, end, &part),
            Poll::Pending => {
                self.phase = Phase::Scanning { call: Box::new(call), part };
                Poll::Pending
            }
        }
    }

    fn request(&self, part: &KeyRange) -> kvrpcpb::ScanRequest {
        let (start_key, end_key) = self.cursor.direction.scan_bounds(part);
        kvrpcpb::ScanRequest {
            context: None,
            start_key,
            end_key,
            limit: self.limit,
            version: self.options.read_ts.version(),
            key_only: self.options.key_only,
            reverse: self.cursor.direction == Direction::Reverse,
            sample_step: self.options.sample_step,
        }
    }

    fn on_answer(
        &mut self,
        cx: &mut Context<'_>,
        mut end: CallEnd<kvrpcpb::ScanResponse>,
        part: &KeyRange,
    ) -> Poll<Output> {
        self.backoff = end.backoff.clone();
        if let Err(CallError::Relocate(_)) = end.result {
            self.is_retry |= end.attempts > 0;
            return self.locate(cx);
        }
        self.is_retry = false;
        let store = end.store.take();
        let address = store.as_ref().map(|store| &store.address);
        let response = match end.into_result("Scan") {
            Ok(response) => response,
            Err(error) => return self.done(Err(error)),
        };
        // What comes with an error is not all there is.
        if let Some(error) = response.error {
            return match locked(*error) {
                Ok(lock) => self.pass_locks(cx, Vec::new(), vec![lock], AfterLocks::ScanAgain),
                Err(error) => self.done(Err(error)),
            };
        }
        match self.read(response.pairs, part, address) {
            Ok((mut page, locks)) if locks.is_empty() || cx.config().has_canary(Canary::ScanSkipsLocks) => {
                let next = page.next.as_mut().filter(|_| cx.config().has_canary(Canary::ScanSkipsRegionStart));
                if let Some(next) = next.filter(|next| next.rest.start == part.end) {
                    next.rest.start = next.rest.start.next();
                }
                if cx.config().has_canary(Canary::ScanEndsWithRegion) {
                    page.next = None;
                }
                self.done(Ok(page))
            }
            Ok((page, locks)) => {
                let keys = locks.iter().map(|lock| lock.key.clone()).collect();
                self.pass_locks(cx, keys, locks, AfterLocks::ReadLocked(page))
            }
            Err(error) => self.done(Err(error)),
        }
    }

    /// Sorts the pairs of a response into those that are there and those that are locked.
    fn read(
        &self,
        response: Vec<kvrpcpb::KvPair>,
        part: &KeyRange,
        address: Option<&Arc<str>>,
    ) -> Result<(Page, Vec<LockInfo>), Error> {
        let is_full = response.len() >= self.limit as usize;
        let (mut pairs, mut locks, mut last) = (Vec::with_capacity(response.len()), Vec::new(), None::<Key>);
        for pair in response {
            let lock = pair.error.map(|error| locked(*error)).transpose()?;
            let key = lock.as_ref().map_or_else(|| Key::from(pair.key), |lock| lock.key.clone());
            let in_order = last.as_ref().is_none_or(|last| match self.cursor.direction {
                Direction::Forward => *last < key,
                Direction::Reverse => key < *last,
            });
            if !in_order || !part.contains(key.as_slice()) {
                return Err(nonsense("Scan", address, "pairs out of range or order"));
            }
            last = Some(key.clone());
            match lock {
                Some(lock) => locks.push(lock),
                None => pairs.push(Pair { key, value: Value { bytes: pair.value, commit_ts: None } }),
            }
        }
        let next = match last {
            Some(last) if is_full => self.cursor.after(&last),
            _ => self.cursor.behind(part),
        };
        Ok((Page { pairs, next }, locks))
    }

    fn pass_locks(
        &mut self,
        cx: &mut Context<'_>,
        keys: Vec<Key>,
        locks: Vec<LockInfo>,
        then: AfterLocks,
    ) -> Poll<Output> {
        self.met_lock = true;
        let in_vain = locks.iter().any(|lock| self.read_through.passes(lock.start_ts));
        let blocked = Blocked { keys, locks, in_vain, rounds: self.rounds };
        let (read_ts, options) = (self.options.read_ts, self.options.call.clone());
        let mut pass = PassLocks::new(read_ts, blocked, false, options, self.backoff.take());
        match pass.start(cx) {
            Poll::Ready(passed) => self.on_passed(cx, passed, then),
            Poll::Pending => {
                self.phase = Phase::PassingLocks { pass: Box::new(pass), then };
                Poll::Pending
            }
        }
    }

    fn on_passed(&mut self, cx: &mut Context<'_>, passed: Passed, then: AfterLocks) -> Poll<Output> {
        self.backoff = passed.backoff;
        self.rounds = passed.rounds;
        match passed.result {
            Ok(resolution) => self.read_through.add(&resolution),
            Err(error) => return self.done(Err(error)),
        }
        match then {
            AfterLocks::ScanAgain => self.locate(cx),
            AfterLocks::ReadLocked(page) => self.read_locked(cx, passed.keys, page),
        }
    }

    /// The locked keys are read on their own, however long others may need for them: the rest of the page stands.
    fn read_locked(&mut self, cx: &mut Context<'_>, keys: Vec<Key>, page: Page) -> Poll<Output> {
        let options = SnapshotOptions { need_commit_ts: false, ..self.options.clone() };
        let (read_through, backoff) = (self.read_through.clone(), self.backoff.take());
        let mut read = BatchGet::with_budget(cx.config(), keys, options, read_through, backoff);
        match read.start(cx) {
            Poll::Ready(read) => self.on_locked_read(read, page),
            Poll::Pending => {
                self.phase = Phase::ReadingLocked { read: Box::new(read), page };
                Poll::Pending
            }
        }
    }

    fn on_locked_read(&mut self, read: Read<Vec<Pair>>, mut page: Page) -> Poll<Output> {
        self.read_through = read.read_through;
        let pairs = match read.result {
            Ok(pairs) => pairs,
            Err(error) => return self.done(Err(error)),
        };
        page.pairs.extend(pairs.into_iter().map(|mut pair| {
            if self.options.key_only {
                pair.value.bytes = Bytes::new();
            }
            pair
        }));
        page.pairs.sort_by(|a, b| match self.cursor.direction {
            Direction::Forward => a.key.cmp(&b.key),
            Direction::Reverse => b.key.cmp(&a.key),
        });
        self.done(Ok(page))
    }

    fn done(&mut self, result: Result<Page, Error>) -> Poll<Output> {
        self.phase = Phase::Idle;
        let nothing = ReadThrough::new(self.options.read_ts);
        Poll::Ready(Read { result, read_through: std::mem::replace(&mut self.read_through, nothing) })
    }
}

impl Machine for ScanPage {
    type Output = Output;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Output> {
        if let Err(error) = self.options.check() {
            return self.done(Err(error));
        }
        if self.limit == 0 || self.cursor.rest.is_empty() {
            let next = (!self.cursor.rest.is_empty()).then(|| self.cursor.clone());
            return self.done(Ok(Page { pairs: Vec::new(), next }));
        }
        self.locate(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Output> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => Poll::Pending,
            Phase::Locating(mut locate) => match locate.handle(cx, token, event) {
                Poll::Ready(located) => self.on_located(cx, located),
                Poll::Pending => self.stay(Phase::Locating(locate)),
            },
            Phase::Scanning { mut call, part } => match call.handle(cx, token, event) {
                Poll::Ready(end) => self.on_answer(cx, end, &part),
                Poll::Pending => self.stay(Phase::Scanning { call, part }),
            },
            Phase::PassingLocks { mut pass, then } => match pass.handle(cx, token, event) {
                Poll::Ready(passed) => self.on_passed(cx, passed, then),
                Poll::Pending => self.stay(Phase::PassingLocks { pass, then }),
            },
            Phase::ReadingLocked { mut read, page } => match read.handle(cx, token, event) {
                Poll::Ready(read) => self.on_locked_read(read, page),
                Poll::Pending => self.stay(Phase::ReadingLocked { read, page }),
            },
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}

impl ScanPage {
    fn stay(&mut self, phase: Phase) -> Poll<Output> {
        self.phase = phase;
        Poll::Pending
    }
}
