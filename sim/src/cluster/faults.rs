//! Misbehaviour to order: what a test wants a store to do to particular requests.

use std::time::Duration;

use bytes::Bytes;
use tikv_core::request::{Request, RequestKind, Response};
use tikv_core::time::Time;
use tikv_proto::{errorpb, kvrpcpb};

use super::request_keys::key_outside;
use crate::status::Status;

/// Something that happens to requests, the next `times` of them that it applies to, or one of so many ([`Fault::each`]).
///
/// ```
/// use tikv_core::request::RequestKind;
/// use tikv_sim::cluster::{Effect, Fault, region_error};
///
/// let busy = Effect::RegionError(Box::new(region_error::server_is_busy("scheduler is busy", 0)));
/// let fault = Fault::new(busy).on_store(1).on(RequestKind::Prewrite).times(2);
/// // The answer to the second prewrite of this key, whichever store gives it.
/// let lost = Fault::new(Effect::LoseReply).on(RequestKind::Prewrite).on_key("k").after(1);
/// # let _ = (fault, lost);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fault {
    store_id: Option<u64>,
    region_id: Option<u64>,
    kind: Option<RequestKind>,
    key: Option<Bytes>,
    after: u32,
    times: u32,
    /// It happens to the last one of so many requests that it applies to.
    period: u32,
    /// How many of these have come.
    met: u32,
    effect: Effect,
}

/// What happens to the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// It is not executed and answered with this error (commands that know no region errors get a status).
    RegionError(Box<errorpb::Error>),
    /// It is executed, and answered with this error all the same: the store does not know what became of it, or says so.
    RegionErrorAfter(Box<errorpb::Error>),
    /// It is not executed and answered with this status.
    Status(Status),
    /// It is not executed and answered with this.
    Reply(Box<Response>),
    /// It is executed so much later.
    Delay(Duration),
    /// It is executed at once, and answered so much later.
    DelayReply(Duration),
    /// It is neither executed nor answered.
    Lose,
    /// It is executed, but never answered.
    LoseReply,
    /// It is executed and answered, and executed once more so much later, as when it was sent twice. The second answer
    /// interests nobody.
    Replay(Duration),
    /// It is executed, and the store crashes before it answers.
    Crash,
}

/// A request as it comes to a store: what decides about an [`Effect`] may look at it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// When.
    pub now: Time,
    /// The store it came to.
    pub store_id: u64,
    /// Its context. The one inside the request is empty.
    pub context: &'a kvrpcpb::Context,
    /// What is asked for.
    pub request: &'a Request,
}

impl Arrival<'_> {
    /// Which command it is.
    #[must_use]
    pub fn kind(&self) -> RequestKind {
        self.request.kind()
    }

    /// Whether the request names `key` as one that it is about. The bounds of a scan or of a range are not named.
    #[must_use]
    pub fn names(&self, key: &[u8]) -> bool {
        key_outside(self.request, |named| named != key).is_some()
    }
}

impl Fault {
    /// What happens to the next request, whichever it is.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Fault { store_id: None, region_id: None, kind: None, key: None, after: 0, times: 1, period: 1, met: 0, effect }
    }

    /// Only requests to this store.
    #[must_use]
    pub fn on_store(mut self, store_id: u64) -> Self {
        self.store_id = Some(store_id);
        self
    }

    /// Only requests for this region.
    #[must_use]
    pub fn on_region(mut self, region_id: u64) -> Self {
        self.region_id = Some(region_id);
        self
    }

    /// Only requests of this kind.
    #[must_use]
    pub fn on(mut self, kind: RequestKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only requests that name this key: see [`Arrival::names`].
    #[must_use]
    pub fn on_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The first so many requests that it applies to are let pass.
    #[must_use]
    pub fn after(mut self, requests: u32) -> Self {
        self.after = requests;
        self
    }

    /// So many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// All requests from now on.
    #[must_use]
    pub fn forever(self) -> Self {
        self.times(u32::MAX)
    }

    /// Each `period`-th request that it applies to, and no other.
    #[must_use]
    pub fn each(mut self, period: u32) -> Self {
        self.period = period.max(1);
        self
    }

    /// Whether it is this request's turn, of those that it applies to.
    fn take_turn(&mut self) -> bool {
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.met += 1;
        let is_its_turn = self.met >= self.period;
        if is_its_turn {
            self.met = 0;
        }
        is_its_turn
    }

    fn applies(&self, arrival: &Arrival<'_>) -> bool {
        self.store_id.is_none_or(|wanted| wanted == arrival.store_id)
            && self.region_id.is_none_or(|wanted| wanted == arrival.context.region_id)
            && self.kind.is_none_or(|wanted| wanted == arrival.kind())
            && self.key.as_ref().is_none_or(|wanted| arrival.names(wanted))
    }
}

/// The faults in force, in the order they were ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        if fault.times > 0 {
            self.0.push(fault);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What happens to a request. Of several faults the first whose turn it is counts.
    pub(super) fn take(&mut self, arrival: &Arrival<'_>) -> Option<Effect> {
        let index = self.0.iter_mut().position(|fault| fault.applies(arrival) && fault.take_turn())?;
        let fault = &mut self.0[index];
        let effect = fault.effect.clone();
        if fault.times != u32::MAX {
            fault.times -= 1;
        }
        if fault.times == 0 {
            self.0.remove(index);
        }
        Some(effect)
    }
}
