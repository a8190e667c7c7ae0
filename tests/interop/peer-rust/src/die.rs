//! Dying in the middle of a commit, by the failpoints of tikv-client.

use serde_json::json;
use tikv_client::{TimestampExt, TransactionOptions};

use crate::request::{Fault, Outcome, Request};
use crate::{Peer, answer};

impl Peer {
    /// Ends the process inside of the commit; answers only when the commit got past the point.
    /// tikv-client takes the first key that was written for the primary.
    pub async fn die(&self, request: &Request) -> Outcome {
        let pairs = request.pairs()?;
        let mut txn = self.begin(TransactionOptions::new_optimistic()).await?;
        let (id, start_ts) = (request.id, txn.start_timestamp().version());
        let failpoint = match request.text("point") {
            "prewritten" => "after-prewrite",
            "primary-committed" => "before-commit-secondary",
            other => return Err(Fault::other(format!("no such point: {other}"))),
        };
        fail::cfg_callback(failpoint, move || {
            // The commit timestamp is not to be had here; who reads the keys will see it committed or not.
            answer(id, Ok(json!({ "start_ts": start_ts })));
            std::process::exit(0);
        })
        .map_err(Fault::other)?;
        for (key, value) in pairs {
            txn.put(key, value).await?;
        }
        let committed = txn.commit().await?;
        // The secondaries are committed in the background: wait for the end there.
        tokio::time::sleep(request.timeout()).await;
        Err(Fault::other(format!("{failpoint} was not reached by the commit at {committed:?}")))
    }
}
