//! The heartbeat of a transaction, as a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{AbortHandle, abortable};
use tikv_core::keyspace::KeyCodec;
use tikv_core::txn::Heartbeat;

use crate::{Client, Key};

/// Keeps a lock alive until it is dropped. If the process dies, the lock expires.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    primary: Key,
    task: AbortHandle,
    has_ended: Arc<AtomicBool>,
}

impl KeepAlive {
    pub(crate) fn start(client: &Client, heartbeat: Heartbeat) -> Self {
        let primary = heartbeat.primary().clone();
        let (beats, task) = abortable(client.drive(KeyCodec::Txn, heartbeat));
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&has_ended);
        client.shared().runtime.spawn(Box::pin(async move {
            if let Ok(end) = beats.await {
                ended.store(true, Ordering::Release);
                // The commit finds out whether anything was lost.
                tracing::warn!(?end, "a transaction is no longer kept alive");
            }
        }));
        KeepAlive { primary, task, has_ended }
    }

    /// Whether it has given up.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Whether it keeps the lock of this primary.
    pub(crate) fn keeps(&self, primary: &Key) -> bool {
        self.primary == *primary
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.task.abort();
    }
}
