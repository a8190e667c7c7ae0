//! Drops a range of keys from one store.
//!
//! ```text
//!            done, or refused
//!   Calling ──────────────────► done
//!    ▲  │ no answer               ▲
//!    │  ▼                         │ the budget is spent
//!   BackingOff ───────────────────┘
//! ```

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb::UnsafeDestroyRangeRequest;
use tikv_proto::metapb;

use crate::backoff::{Backoff, BackoffKind, budget};
use crate::error::{CallFailure, Error, Fault, FaultKind};
use crate::key::KeyRange;
use crate::machine::{Context, CurrentPhase, Event, Machine, SleepReason, Token, phases};
use crate::request::{Response, Shared, StoreRequest};
use crate::route::{self, CallOptions};

/// How long a store may take: it deletes files.
const TIMEOUT: Duration = Duration::from_secs(300);

const OPERATION: &str = UnsafeDestroyRangeRequest::FACTS.name;

/// Drops a range from one store; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DestroyOnStore {
    store_id: u64,
    address: Arc<str>,
    request: Shared<UnsafeDestroyRangeRequest>,
    options: CallOptions,
    backoff: Backoff,
    calls: u32,
    last: CallFailure,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Calling { call: Token },
    BackingOff { timer: Token },
}

phases! {
    DestroyOnStore: Phase;
    start => Calling;
    Calling => BackingOff | done;
    BackingOff => Calling;
}

impl DestroyOnStore {
    pub(super) fn new(store: &metapb::Store, range: &KeyRange, options: &CallOptions) -> Self {
        let (start_key, end_key) = (range.start.to_bytes(), range.end.to_bytes());
        let request = UnsafeDestroyRangeRequest { start_key, end_key, ..UnsafeDestroyRangeRequest::default() };
        DestroyOnStore {
            store_id: store.id,
            address: Arc::from(store.address.as_str()),
            request: Shared::new(request),
            options: options.clone(),
            backoff: Backoff::none(),
            calls: 0,
            last: CallFailure::NotAttempted,
            phase: Phase::Idle,
        }
    }

    /// The error if it has to end now.
    pub(super) fn deadline_exceeded(&self) -> Error {
        Error::DeadlineExceeded { operation: OPERATION, attempts: self.calls, last: self.last.clone() }
    }

    fn call(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.calls += 1;
        let request = UnsafeDestroyRangeRequest::wrap(self.request.clone());
        let context = self.options.context.clone();
        let call = cx.call(self.store_id, Arc::clone(&self.address), context, request, TIMEOUT);
        self.phase = Phase::Calling { call };
        Poll::Pending
    }

    fn on_reply(&mut self, cx: &mut Context<'_>, reply: Result<Response, Fault>) -> Poll<Result<(), Error>> {
        let (operation, address) = (OPERATION, Arc::clone(&self.address));
        let response = match reply {
            Ok(response) => UnsafeDestroyRangeRequest::unwrap_response(response),
            Err(fault) => return self.back_off(cx, fault),
        };
        self.phase = Phase::Idle;
        Poll::Ready(match response {
            Ok(response) if response.error.is_empty() => Ok(()),
            Ok(response) => Err(Error::Refused { operation, address, message: response.error.into() }),
            Err(other) => Err(Error::WrongResponse { operation, address, actual: other.kind().facts().name }),
        })
    }

    fn back_off(&mut self, cx: &mut Context<'_>, fault: Fault) -> Poll<Result<(), Error>> {
        let is_final = fault.kind == FaultKind::Closed;
        self.last = CallFailure::Fault(fault);
        if !is_final {
            if let Ok(sleep) = self.backoff.next(BackoffKind::TikvRpc, cx.rng()) {
                let timer = cx.sleep(sleep, SleepReason::Backoff(BackoffKind::TikvRpc));
                self.phase = Phase::BackingOff { timer };
                return Poll::Pending;
            }
        }
        self.phase = Phase::Idle;
        let (operation, attempts, last) = (OPERATION, self.calls, self.last.clone());
        let slept = self.backoff.total_sleep();
        Poll::Ready(Err(match is_final {
            true => Error::Closed,
            false => Error::RetriesExhausted { operation, attempts, slept, last },
        }))
    }
}

impl Machine for DestroyOnStore {
    type Output = Result<(), Error>;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.backoff = route::budget(cx.config(), budget::DESTROY_RANGE);
        self.call(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Self::Output> {
        match (&self.phase, event) {
            (Phase::Calling { call }, Event::Reply(reply)) if *call == token => self.on_reply(cx, reply),
            (Phase::BackingOff { timer }, Event::Woken) if *timer == token => self.call(cx),
            _ => Poll::Pending,
        }
    }

    fn phase(&self) -> Option<CurrentPhase> {
        Some(self.phase.current())
    }
}
