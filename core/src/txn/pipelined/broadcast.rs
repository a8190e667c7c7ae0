//! Tells all stores what has become of a pipelined transaction, in the background.
//!
//! ```text
//!   start ──► one request per store, side by side ──► all ended: done
//! ```
//!
//! It only helps: with it a store can judge the locks of the transaction without a question to the primary. Nothing depends
//! on it, so that nothing is repeated, and failures do not count.
//!
//! client-go: `broadcastToAllStores`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tikv_proto::kvrpcpb::{BroadcastTxnStatusRequest, TxnStatus};

use crate::knowledge::stores::Engine;
use crate::machine::{Context, Event, Machine, Token};
use crate::request::{Request, Shared, StoreRequest};
use crate::route::CallOptions;
use crate::timestamp::Timestamp;

/// Stores that are told at once.
const CONCURRENCY: usize = 10;
/// How long a store may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Tells all stores; see the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::txn) struct Broadcast {
    request: Shared<BroadcastTxnStatusRequest>,
    options: CallOptions,
    /// Stores that are to be told: their ids and addresses.
    left: VecDeque<(u64, Arc<str>)>,
    in_flight: BTreeSet<Token>,
}

impl Broadcast {
    /// Transaction `start_ts` is alive, and will not commit below `min_commit_ts`.
    pub(in crate::txn) fn alive(start_ts: Timestamp, min_commit_ts: Timestamp, options: CallOptions) -> Self {
        let min_commit_ts = min_commit_ts.version();
        Broadcast::new(TxnStatus { start_ts: start_ts.version(), min_commit_ts, ..TxnStatus::default() }, options)
    }

    /// Transaction `start_ts` has ended; `commit_ts` is `None` if it was rolled back. `is_completed`: no lock is left.
    pub(super) fn ended(
        start_ts: Timestamp,
        commit_ts: Option<Timestamp>,
        is_completed: bool,
        options: CallOptions,
    ) -> Self {
        let status = TxnStatus {
            start_ts: start_ts.version(),
            commit_ts: commit_ts.map_or(0, Timestamp::version),
            rolled_back: commit_ts.is_none(),
            is_completed,
            ..TxnStatus::default()
        };
        Broadcast::new(status, options)
    }

    fn new(status: TxnStatus, options: CallOptions) -> Self {
        let request = BroadcastTxnStatusRequest { txn_status: vec![status], ..BroadcastTxnStatusRequest::default() };
        Broadcast { request: Shared::new(request), options, left: VecDeque::new(), in_flight: BTreeSet::new() }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.in_flight.len() < CONCURRENCY {
            let Some((store, address)) = self.left.pop_front() else { break };
            let context = self.options.context.clone();
            let request: Request = BroadcastTxnStatusRequest::wrap(self.request.clone());
            self.in_flight.insert(cx.call(store, address, context, request, TIMEOUT));
        }
        if self.in_flight.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Machine for Broadcast {
    type Output = ();

    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stores = cx.knowledge().stores.all();
        let rows = stores.iter().filter(|store| store.engine == Engine::TiKv);
        self.left = rows.map(|store| (store.id, Arc::clone(&store.address))).collect();
        self.send(cx)
    }

    fn advance(&mut self, cx: &mut Context<'_>, token: Token, _: Event) -> Poll<()> {
        self.in_flight.remove(&token);
        self.send(cx)
    }
}
