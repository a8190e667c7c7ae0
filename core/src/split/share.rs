//! The keys of one region, at which it splits.

use std::sync::Arc;
use std::task::Poll;

use tikv_proto::kvrpcpb::{SplitRegionRequest, SplitRegionResponse};

use crate::backoff::Backoff;
use crate::error::Error;
use crate::key::Key;
use crate::knowledge::regions::Region;
use crate::machine::{Context, Event, Machine, Token};
use crate::route::{CallEnd, CallError, CallOptions, RegionCall, Shard, ShardEnd};
use crate::time::Time;

/// Keys of one request.
const MAX_KEYS: usize = 2_048;

/// What all shares are split by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Splitter {
    options: CallOptions,
}

/// What has become of one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Parts {
    /// Those of its parts that are new.
    pub(super) regions: Vec<u64>,
    pub(super) error: Option<Error>,
}

/// The split of one region.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    region: Arc<Region>,
    keys: Vec<Key>,
    call: Option<RegionCall<SplitRegionRequest>>,
}

impl Splitter {
    pub(super) fn new(options: CallOptions) -> Self {
        Splitter { options }
    }
}

impl Shard for Splitter {
    type Item = Key;
    type Output = Parts;
    type Child = Share;

    fn child(
        &self,
        _: &mut Context<'_>,
        region: Arc<Region>,
        mut keys: Vec<Key>,
        backoff: Backoff,
        is_retry: bool,
    ) -> Share {
        // Where it begins, it need not be split.
        keys.retain(|key| *key != region.range.start);
        let call = (!keys.is_empty()).then(|| {
            let split_keys = keys.iter().map(Key::to_bytes).collect();
            let request = SplitRegionRequest { split_keys, ..SplitRegionRequest::default() };
            let call = RegionCall::to_region(Arc::clone(&region), request, self.options.clone(), backoff);
            call.repeatable().as_retry(is_retry)
        });
        Share { region, keys, call }
    }

    fn weight(&self, _: &Key) -> usize {
        1
    }

    fn batch_limit(&self) -> usize {
        MAX_KEYS
    }

    fn deadline(&self) -> Time {
        self.options.deadline
    }
}

type ShareEnd = ShardEnd<Key, Parts>;

impl Share {
    fn on_end(&mut self, cx: &mut Context<'_>, end: CallEnd<SplitRegionResponse>) -> Poll<ShareEnd> {
        if let Err(CallError::Relocate(_)) = end.result {
            let items = std::mem::take(&mut self.keys);
            return Poll::Ready(ShardEnd::Relocate { items, backoff: end.backoff });
        }
        let parts = match end.into_result("SplitRegion") {
            Ok(response) => {
                cx.knowledge().regions.invalidate(self.region.ver_id);
                let mut regions: Vec<u64> = response.regions.iter().map(|region| region.id).collect();
                // One of them is what is left of the old one.
                regions.pop();
                Parts { regions, error: None }
            }
            Err(error) => Parts { regions: Vec::new(), error: Some(error) },
        };
        Poll::Ready(ShardEnd::Done(parts))
    }
}

impl Machine for Share {
    type Output = ShareEnd;

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<ShareEnd> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(ShardEnd::Done(Parts { regions: Vec::new(), error: None }));
        };
        match call.start(cx) {
            Poll::Ready(end) => self.on_end(cx, end),
            Poll::Pending => Poll::Pending,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<ShareEnd> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        match call.handle(cx, token, event) {
            Poll::Ready(end) => self.on_end(cx, end),
            Poll::Pending => Poll::Pending,
        }
    }
}
