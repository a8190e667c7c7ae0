//! Requests to stores: accepted, checked, executed.

use tikv_core::key::{Key, KeyRange};
use tikv_core::request::{Access, Request, RequestKind, Response, Shared};
use tikv_core::time::Time;
use tikv_proto::kvrpcpb::{self, ApiVersion, PessimisticLockRequest, PessimisticLockResponse};
use tikv_proto::{coprocessor, errorpb};

use super::check::check;
use super::lock_wait::{Waiter, Woken};
use super::request_keys::{entry, is_raw, key_outside, scan_start};
use super::{Arrival, CallId, Cluster, Effect, Postponed, Region, StoreReply, encoded, region_error, txn_range};
use crate::status::{CallError, Code, Status};
use crate::storage::{Handled, LockWait, Outcome, Refusal};

/// What the storage made of a request.
enum Executed {
    Reply(StoreReply),
    Wait(Box<LockWait>),
}

impl Cluster {
    /// Lets a fault have its way with the request, or executes it. `None` if the answer comes later.
    pub(super) fn accept(
        &mut self,
        now: Time,
        call: CallId,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: Request,
        ordered: Option<Effect>,
    ) -> Option<StoreReply> {
        if !self.topology.is_running(store_id) {
            return Some(Err(CallError::Unreachable));
        }
        let kind = request.kind();
        let arrival = Arrival { now, store_id, context, request: &request };
        match ordered.or_else(|| self.faults.take(&arrival)) {
            None => self.execute(now, call, store_id, context, request),
            Some(Effect::RegionError(error)) => Some(region_error_reply(kind, *error)),
            Some(Effect::RegionErrorAfter(error)) => {
                self.execute_unheard(now, call, store_id, context, request);
                Some(region_error_reply(kind, *error))
            }
            Some(Effect::Status(status)) => Some(Err(status.into())),
            Some(Effect::Reply(response)) => Some(Ok(*response)),
            Some(Effect::Delay(delay)) => {
                let context = context.clone();
                self.later.insert((now + delay, call), Postponed::Request { store_id, context, request });
                None
            }
            Some(Effect::DelayReply(delay)) => {
                // A request that waits for a lock is late enough.
                let reply = self.execute(now, call, store_id, context, request)?;
                self.later.insert((now + delay, call), Postponed::Reply { store_id, reply });
                None
            }
            Some(Effect::Lose) => None,
            Some(Effect::LoseReply) => {
                self.execute_unheard(now, call, store_id, context, request);
                None
            }
            Some(Effect::Replay(delay)) => {
                let again = Postponed::Replay { store_id, context: context.clone(), request: request.clone() };
                let second = self.new_call();
                self.later.insert((now + delay, second), again);
                self.execute(now, call, store_id, context, request)
            }
            Some(Effect::Crash) => {
                self.execute_unheard(now, call, store_id, context, request);
                // It is known: it has just received a request.
                let _ = self.stop_store(now, store_id);
                Some(Err(CallError::Disconnected))
            }
        }
    }

    /// Executes a request whose answer interests nobody; nor does it wait for anything.
    pub(super) fn execute_unheard(
        &mut self,
        now: Time,
        call: CallId,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: Request,
    ) {
        self.execute(now, call, store_id, context, request);
        self.waits.remove(call);
    }

    /// Checks a request and executes it. `None` if the answer comes later.
    pub(super) fn execute(
        &mut self,
        now: Time,
        call: CallId,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: Request,
    ) -> Option<StoreReply> {
        let kind = request.kind();
        if let Err(status) = self.check_context(context, kind) {
            return Some(Err(status.into()));
        }
        if entry(&request).is_none() {
            return self.execute_for_store(now, call, store_id, context, request);
        }
        let range = match self.check_region(now, store_id, context, &request) {
            Ok(range) => range,
            Err(error) => return Some(region_error_reply(kind, *error)),
        };
        match self.execute_on(now, store_id, context, &range, &request) {
            Executed::Reply(reply) => {
                self.plan_split_check(now, context.region_id, kind);
                Some(reply)
            }
            Executed::Wait(wait) => {
                let Request::PessimisticLock(request) = request.with_context(context.clone()) else {
                    return Some(Err(Status::new(Code::Internal, "only lock requests can wait").into()));
                };
                self.wait_for_lock(now, call, store_id, request, *wait).map(|reply| Ok(reply.into()))
            }
        }
    }

    /// What TiKV checks of every request, whatever it is for.
    fn check_context(&self, context: &kvrpcpb::Context, kind: RequestKind) -> Result<(), Status> {
        if context.cluster_id > 0 && context.cluster_id != self.topology.cluster_id() {
            return Err(Status::new(
                Code::InvalidArgument,
                "the cluster id of the request does not match this cluster's",
            ));
        }
        let (ours, theirs) = (self.topology.api_version(), context.api_version());
        let fits = match (ours, theirs) {
            (ApiVersion::V1ttl, ApiVersion::V1) => is_raw(kind) || kind.facts().access == Access::Control,
            (ApiVersion::V2, ApiVersion::V1) => !is_raw(kind),
            _ => ours == theirs,
        };
        if fits || !kind.facts().regional {
            return Ok(());
        }
        // TiKV says it in the response, in the field that the command has for errors.
        let message = format!("API version {theirs:?} of the request does not fit {ours:?} of the store");
        Err(Status::new(Code::InvalidArgument, message))
    }

    /// The keys of the request's region, if the store may serve the request for it.
    fn check_region(
        &self,
        now: Time,
        store_id: u64,
        context: &kvrpcpb::Context,
        request: &Request,
    ) -> Result<KeyRange, Box<errorpb::Error>> {
        let kind = request.kind();
        self.check_load(store_id, context, kind)?;
        let Some(entry) = entry(request) else { return Ok(KeyRange::ALL) };
        let safe_ts = |region: &Region| self.safe_ts(now, &txn_range(&region.bounds())).version();
        let region = check(&self.topology, store_id, context, entry, safe_ts)?;
        let is_encoded = !is_raw(kind) || self.topology.api_version() == ApiVersion::V2;
        let range = if is_encoded { txn_range(&region.bounds()) } else { region.bounds() };

        let outside = key_outside(request, |key| range.contains(key));
        // A scan may start right where the region ends: it finds nothing.
        let start = scan_start(request).filter(|start| !range.contains(start) && range.end.as_slice() != &start[..]);
        match outside.or(start) {
            Some(key) if is_encoded => Err(Box::new(region_error::key_not_in_region(&encoded(key), region))),
            Some(key) => Err(Box::new(region_error::key_not_in_region(&Key::from(key.clone()), region))),
            None => Ok(range),
        }
    }

    /// A store turns reads away that would wait longer than they like.
    fn check_load(
        &self,
        store_id: u64,
        context: &kvrpcpb::Context,
        kind: RequestKind,
    ) -> Result<(), Box<errorpb::Error>> {
        let estimated_wait = self.topology.store(store_id).map_or(0, |store| store.estimated_wait_ms);
        let is_read = kind.facts().access == Access::Read;
        if !is_read || context.busy_threshold_ms == 0 || estimated_wait <= context.busy_threshold_ms {
            return Ok(());
        }
        Err(Box::new(region_error::server_is_busy("estimated wait time exceeds threshold", estimated_wait)))
    }

    /// Executes a request of the storage on the keys of a region, and wakes whom that concerns.
    fn execute_on(
        &mut self,
        now: Time,
        store_id: u64,
        context: &kvrpcpb::Context,
        range: &KeyRange,
        request: &Request,
    ) -> Executed {
        macro_rules! run {
            ($($kind:ident)+) => {
                match request {
                    $(Request::$kind(message) => {
                        let handled = self.storage.handle_with_context(range, context, &**message);
                        self.finish(now, store_id, handled, Response::from)
                    })+
                    Request::Coprocessor(_) => Executed::Reply(coprocessor()),
                    other => Executed::Reply(Err(unknown(other.kind()).into())),
                }
            };
        }
        let executed = run!(
            Get Scan BatchGet BufferBatchGet ScanLock MvccGetByKey MvccGetByStartTs
            Prewrite Commit Cleanup BatchRollback ResolveLock PessimisticLock PessimisticRollback TxnHeartBeat
            CheckTxnStatus CheckSecondaryLocks Flush DeleteRange UnsafeDestroyRange Gc
            RawGet RawBatchGet RawPut RawBatchPut RawDelete RawBatchDelete RawDeleteRange RawScan RawGetKeyTtl
            RawCompareAndSwap RawChecksum
        );
        match executed {
            Executed::Reply(Ok(mut response)) => {
                self.name_region(context, request.kind(), &mut response);
                Executed::Reply(Ok(response))
            }
            other => other,
        }
    }

    /// The storage knows no regions: what it says of them is completed.
    fn name_region(&self, context: &kvrpcpb::Context, kind: RequestKind, response: &mut Response) {
        let outside = response.region_error().and_then(|error| error.key_not_in_region.as_ref());
        let (Some(outside), Some(region)) = (outside, self.topology.regions().get(context.region_id)) else { return };
        let is_encoded = !is_raw(kind) || self.topology.api_version() == ApiVersion::V2;
        let key = if is_encoded { encoded(&outside.key) } else { Key::from(outside.key.clone()) };
        if let Some(named) = Response::of_region_error(kind, region_error::key_not_in_region(&key, region)) {
            *response = named;
        }
    }

    fn finish<R>(
        &mut self,
        now: Time,
        store_id: u64,
        handled: Handled<R>,
        wrap: impl FnOnce(R) -> Response,
    ) -> Executed {
        let Handled { outcome, released, acquired } = handled;
        for lock in &acquired {
            let victims = self.waits.on_acquired(store_id, lock);
            self.replies.extend(victims.into_iter().map(|(call, deadlock)| (call, Ok(deadlock.into()))));
        }
        for released in &released {
            let woken = self.waits.on_released(now, store_id, released);
            self.answer_woken(now, woken);
        }
        match outcome {
            Outcome::Answer(response) => Executed::Reply(Ok(wrap(response))),
            Outcome::Wait(wait) => Executed::Wait(wait),
            Outcome::Refused(refusal) => Executed::Reply(Err(refused(refusal).into())),
        }
    }

    // ---- Waiting for locks ----

    fn wait_for_lock(
        &mut self,
        now: Time,
        call: CallId,
        store_id: u64,
        request: Shared<PessimisticLockRequest>,
        wait: LockWait,
    ) -> Option<PessimisticLockResponse> {
        let asked = wait.timeout_ms.map_or(self.lock_wait_timeout, std::time::Duration::from_millis);
        let deadline = now + asked.min(self.lock_wait_timeout);
        self.waits.join(call, Waiter { store_id, request, wait, since: now, deadline })
    }

    pub(super) fn answer_woken(&mut self, now: Time, woken: Vec<Woken>) {
        for woken in woken {
            let (call, reply) = match woken {
                Woken::Retry(call, waiter, released) => (call, Some(Ok(waiter.wait.woken(&released).into()))),
                Woken::TimedOut(call, waiter) => (call, Some(Ok(waiter.wait.locked().into()))),
                Woken::Resume(call, waiter) => (call, self.resume(now, call, waiter)),
            };
            self.replies.extend(reply.map(|reply| (call, reply)));
        }
    }

    /// Tries a lock request of force mode again. `None` if it goes on waiting, for as long as it may.
    fn resume(&mut self, now: Time, call: CallId, mut waiter: Waiter) -> Option<StoreReply> {
        let store_id = waiter.store_id;
        let request = Request::PessimisticLock(waiter.request.clone());
        let context = waiter.request.context.as_deref().cloned().unwrap_or_default();
        let range = match self.check_region(now, store_id, &context, &request) {
            Ok(range) => range,
            Err(error) => return Some(region_error_reply(request.kind(), *error)),
        };
        let handled = self.storage.resume(&range, &waiter.request);
        match self.finish(now, store_id, handled, Response::from) {
            Executed::Reply(reply) => Some(reply),
            Executed::Wait(wait) => {
                waiter.wait = *wait;
                self.waits.join(call, waiter).map(|reply| Ok(reply.into()))
            }
        }
    }
}

/// An error of the region as the answer to a command; commands that cannot say it have to fail.
pub(super) fn region_error_reply(kind: RequestKind, error: errorpb::Error) -> StoreReply {
    let message = error.message.clone();
    Response::of_region_error(kind, error).ok_or_else(|| Status::new(Code::Unavailable, message).into())
}

/// Coprocessor requests are checked as others, and then found to be beyond what is simulated.
fn coprocessor() -> StoreReply {
    let other_error = "the coprocessor is not simulated".to_owned();
    Ok(coprocessor::Response { other_error, ..coprocessor::Response::default() }.into())
}

pub(super) fn unknown(kind: RequestKind) -> Status {
    Status::unimplemented(kind.facts().name)
}

/// Where TiKV dies, or has forgotten the method.
pub(super) fn refused(refusal: Refusal) -> Status {
    let code = if refusal == Refusal::Unimplemented { Code::Unimplemented } else { Code::Internal };
    Status::new(code, refusal.to_string())
}
