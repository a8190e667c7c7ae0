//! Dying in the middle of a commit.
//!
//! The client that ships has no failpoints. But it opens a `tikv.rpc` span before it sends anything, and who receives the
//! spans may end the process there.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;

use serde_json::json;
use tikv::Timestamp;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::answer;
use crate::peer::Peer;
use crate::request::{Fault, Outcome, Request};

thread_local! {
    /// Whether this thread polls the commit. What it leaves to the background is polled elsewhere.
    static IN_COMMIT: Cell<bool> = const { Cell::new(false) };
}

impl Peer {
    /// Answers and ends the process inside of the commit. The first key in order is the client's choice for the primary.
    pub(crate) async fn die(&self, request: &Request) -> Outcome {
        let point = match request.text("point") {
            "prewritten" => Point::Prewritten,
            "primary-committed" => Point::PrimaryCommitted,
            other => return Err(Fault::other(format!("no such point: {other}"))),
        };
        let txn = self.client.begin().await?;
        for (key, value) in request.pairs()? {
            txn.put(key, value)?;
        }
        let start_ts = txn.start_ts().version();
        let end = End { point, id: request.id, start_ts };
        tracing::subscriber::set_global_default(end).map_err(|error| Fault::other(error.to_string()))?;
        let outcome = marked(txn.commit()).await?;
        if point == Point::Prewritten {
            return Err(Fault::other("the commit sent no commit request"));
        }
        let commit_ts = outcome.commit_ts.map_or(0, Timestamp::version);
        answer(request.id, Ok(json!({ "start_ts": start_ts, "commit_ts": commit_ts })));
        std::process::exit(0);
    }
}

async fn marked<T>(commit: impl Future<Output = T>) -> T {
    let mut commit = pin!(commit);
    poll_fn(|cx| {
        IN_COMMIT.set(true);
        let poll = commit.as_mut().poll(cx);
        IN_COMMIT.set(false);
        poll
    })
    .await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    Prewritten,
    PrimaryCommitted,
}

/// Stops commit requests before they are sent: by ending the process, or by holding the thread until it ends.
struct End {
    point: Point,
    id: u64,
    start_ts: u64,
}

impl Subscriber for End {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "tikv.rpc"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut commits = IsCommit(false);
        span.record(&mut commits);
        match (commits.0, IN_COMMIT.get(), self.point) {
            (true, true, Point::Prewritten) => {
                answer(self.id, Ok(json!({ "start_ts": self.start_ts })));
                std::process::exit(0);
            }
            // A secondary, in the background. The task of the commit is about to end the process.
            (true, false, Point::PrimaryCommitted) => loop {
                std::thread::park();
            },
            _ => Id::from_u64(1),
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Whether the span's request is a commit.
struct IsCommit(bool);

impl Visit for IsCommit {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0 |= field.name() == "request" && value == "Commit";
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
