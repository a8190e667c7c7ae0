//! Drops a range of keys from every store at once, past Raft and past all versions.
//!
//! ```text
//!   start ──► ListingStores ──► Destroying (each store by itself) ──► all have, or one has refused: done
//! ```
//!
//! client-go: `KVStore.UnsafeDestroyRange`, which asks each store once.

pub(super) mod store;

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::metapb;

use self::store::DestroyOnStore;
use super::gc_questions::ask;
use crate::error::Error;
use crate::key::KeyRange;
use crate::knowledge::stores::Engine;
use crate::machine::{Context, CurrentPhase, Event, FanOut, Machine, SleepReason, Token, phases};
use crate::pd::{AskPd, Question};
use crate::request::pd::{PdRequest, PdResponse};
use crate::route::CallOptions;
use crate::time::Time;

/// Stores that are asked at once.
const CONCURRENCY: usize = 16;

/// Drops a range; see the [module documentation](self).
///
/// Ends with the first store that does not, whatever the others do. Repeated, it does no harm. Abandoned, it stops where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DestroyRange {
    range: KeyRange,
    options: CallOptions,
    /// Fires at the deadline, once stores are asked.
    alarm: Option<Token>,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    ListingStores(AskPd<ListStores>),
    Destroying(FanOut<DestroyOnStore>),
}

phases! {
    DestroyRange: Phase;
    start => ListingStores | done;
    ListingStores => Destroying | done;
    Destroying => done;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ListStores;

impl Question for ListStores {
    type Answer = Vec<Arc<metapb::Store>>;
    const OPERATION: &'static str = "list stores";
    const IS_REFUSAL_FINAL: bool = false;

    fn request(&self) -> PdRequest {
        PdRequest::AllStores
    }

    fn answer(response: PdResponse) -> Option<Self::Answer> {
        match response {
            PdResponse::Stores(stores) => Some(stores),
            _ => None,
        }
    }
}

type End = Result<(), Error>;

impl DestroyRange {
    /// Of `range`, which needs a first key and an end.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if it has none: TiKV refuses that, too.
    pub fn new(range: KeyRange, options: CallOptions) -> Result<Self, Error> {
        if range.start.is_empty() || range.end.is_empty() {
            return Err(Error::InvalidArgument(Arc::from("a range without bounds is not destroyed")));
        }
        Ok(DestroyRange { range, options, alarm: None, phase: Phase::Idle })
    }

    fn on_stores(&mut self, cx: &mut Context<'_>, result: Result<Vec<Arc<metapb::Store>>, Error>) -> Poll<End> {
        let stores = match result {
            Ok(stores) => stores,
            Err(error) => return self.done(cx, Err(error)),
        };
        let mut running = FanOut::new(CONCURRENCY);
        for store in stores.iter().filter(|store| Engine::of(store) == Engine::TiKv) {
            running.add(DestroyOnStore::new(store, &self.range, &self.options));
        }
        if self.options.deadline != Time::MAX {
            let left = self.options.deadline.saturating_since(cx.now());
            self.alarm = Some(cx.sleep(left, SleepReason::Deadline));
        }
        running.run(cx);
        self.collect(cx, running)
    }

    fn collect(&mut self, cx: &mut Context<'_>, mut running: FanOut<DestroyOnStore>) -> Poll<End> {
        while let Some((_, end)) = running.next_finished(cx) {
            if let Err(error) = end {
                running.cancel_all(cx);
                return self.done(cx, Err(error));
            }
        }
        if running.is_idle() {
            return self.done(cx, Ok(()));
        }
        self.phase = Phase::Destroying(running);
        Poll::Pending
    }

    fn on_alarm(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.alarm = None;
        let Phase::Destroying(mut running) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Poll::Pending;
        };
        let late = running.running().next().map(|(_, store)| store.deadline_exceeded());
        running.cancel_all(cx);
        self.done(cx, late.map_or(Ok(()), Err))
    }

    fn done(&mut self, cx: &mut Context<'_>, result: End) -> Poll<End> {
        if let Some(alarm) = self.alarm.take() {
            cx.cancel(alarm);
        }
        self.phase = Phase::Idle;
        Poll::Ready(result)
    }
}

impl Machine for DestroyRange {
    type Output = End;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.range.is_empty() {
            return self.done(cx, Ok(()));
        }
        let mut question = ask(cx.config(), ListStores).until(self.options.deadline);
        let poll = question.start(cx);
        self.phase = Phase::ListingStores(question);
        match poll {
            Poll::Ready(result) => self.on_stores(cx, result),
            Poll::Pending => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<End> {
        if self.alarm == Some(token) {
            return self.on_alarm(cx);
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => Poll::Pending,
            Phase::ListingStores(mut question) => {
                let poll = question.handle(cx, token, event);
                self.phase = Phase::ListingStores(question);
                match poll {
                    Poll::Ready(result) => self.on_stores(cx, result),
                    Poll::Pending => Poll::Pending,
                }
            }
            Phase::Destroying(mut running) => {
                running.handle(cx, token, event);
                self.collect(cx, running)
            }
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
