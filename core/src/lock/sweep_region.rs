//! Resolves all old locks of a region, page by page.
//!
//! ```text
//!               locks                 all gone, and there may be more
//!   start ──► Scanning ──► Resolving ───────────────────────────────► Scanning …
//!                │             │ all gone, and that was the last page
//!                └── none      └──────────► done
//! ```

use std::task::Poll;

use super::batch_resolve::{BatchResolve, BatchResolved};
use super::scan_locks::{ScanLocks, scan_locks};
use crate::backoff::budget;
use crate::canary::Canary;
use crate::error::{Error, LockInfo};
use crate::key::{Key, KeyRange};
use crate::machine::{Context, CurrentPhase, Event, Machine, Token, phases};
use crate::route::{self, CallOptions};
use crate::timestamp::Timestamp;

/// Locks that are resolved at a time: as many transactions are remembered besides, so that what others need stays remembered.
/// client-go: `GCScanLockLimit`.
pub(super) const PAGE_LOCKS: u32 = 1024;

/// Pages in a row that may begin at the same key: shared locks. More are a sign that locks do not go away.
const MAX_PAGES_AT_ONE_KEY: u32 = 64;

/// Resolves the locks of a range that is, or was, in one region. Ends with how many there were.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SweepRegion {
    /// What is left of it.
    rest: KeyRange,
    max_ts: Timestamp,
    options: CallOptions,
    locks: u64,
    /// Pages so far that began where `rest` does.
    pages_here: u32,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Scanning(ScanLocks),
    Resolving { batch: BatchResolve, next: Option<Key> },
}

phases! {
    SweepRegion: Phase;
    start => Scanning | done;
    Scanning => Resolving | done;
    Resolving => Scanning | done;
}

type End = Result<u64, Error>;

impl SweepRegion {
    pub(super) fn new(range: KeyRange, max_ts: Timestamp, options: CallOptions) -> Self {
        SweepRegion { rest: range, max_ts, options, locks: 0, pages_here: 0, phase: Phase::Idle }
    }

    fn scan(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.pages_here += 1;
        let mut scan = scan_locks(cx.config(), self.rest.clone(), self.max_ts, PAGE_LOCKS, &self.options);
        match scan.start(cx) {
            Poll::Ready(page) => self.on_page(cx, page),
            Poll::Pending => {
                self.phase = Phase::Scanning(scan);
                Poll::Pending
            }
        }
    }

    fn on_page(&mut self, cx: &mut Context<'_>, page: Result<Vec<LockInfo>, Error>) -> Poll<End> {
        let mut page = match page {
            Ok(page) => page,
            Err(error) => return self.done(Err(error)),
        };
        let Some(last) = page.last() else { return self.done(Ok(self.locks)) };
        let is_full = page.len() >= PAGE_LOCKS as usize;
        if is_full && last.key <= self.rest.start && self.pages_here >= MAX_PAGES_AT_ONE_KEY {
            return self.done(Err(Error::Locked(Box::new(last.clone()))));
        }
        let next = is_full.then(|| last.key.clone());
        self.locks += page.len() as u64;
        if cx.config().has_canary(Canary::LastSweptLockForgotten) {
            page.pop();
        }
        let mut batch =
            BatchResolve::new(page, self.options.clone(), route::budget(cx.config(), budget::GC_RESOLVE_LOCK));
        match batch.start(cx) {
            Poll::Ready(end) => self.on_resolved(cx, end, next),
            Poll::Pending => {
                self.phase = Phase::Resolving { batch, next };
                Poll::Pending
            }
        }
    }

    fn on_resolved(&mut self, cx: &mut Context<'_>, end: BatchResolved, next: Option<Key>) -> Poll<End> {
        match (end.result, next) {
            (Err(error), _) => self.done(Err(error)),
            (Ok(()), None) => self.done(Ok(self.locks)),
            (Ok(()), Some(key)) => {
                if key > self.rest.start {
                    self.rest.start = key;
                    self.pages_here = 0;
                }
                self.scan(cx)
            }
        }
    }

    fn done(&mut self, result: End) -> Poll<End> {
        self.phase = Phase::Idle;
        Poll::Ready(result)
    }
}

impl Machine for SweepRegion {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.scan(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Scanning(mut scan) => match scan.handle(cx, token, event) {
                Poll::Ready(page) => self.on_page(cx, page),
                Poll::Pending => {
                    self.phase = Phase::Scanning(scan);
                    Poll::Pending
                }
            },
            Phase::Resolving { mut batch, next } => match batch.handle(cx, token, event) {
                Poll::Ready(end) => self.on_resolved(cx, end, next),
                Poll::Pending => {
                    self.phase = Phase::Resolving { batch, next };
                    Poll::Pending
                }
            },
            Phase::Idle => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
