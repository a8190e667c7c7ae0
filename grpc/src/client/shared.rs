//! What a connection's driver, its channels and its calls share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::task::AtomicWaker;

use super::admission::Admission;
use crate::ConnectionError;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) admission: Admission,
    closed: AtomicBool,
    reason: Mutex<Option<ConnectionError>>,
    close_requested: AtomicBool,
    pub(super) driver: AtomicWaker,
}

impl Shared {
    pub(super) fn new(max_queued_calls: usize) -> Self {
        Self {
            admission: Admission::new(max_queued_calls),
            closed: AtomicBool::new(false),
            reason: Mutex::new(None),
            close_requested: AtomicBool::new(false),
            driver: AtomicWaker::new(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close_reason(&self) -> Option<ConnectionError> {
        self.reason().clone()
    }

    /// Records why the connection is closed. The first reason counts.
    pub(super) fn set_closed(&self, reason: ConnectionError) {
        self.reason().get_or_insert(reason);
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn request_close(&self) {
        self.close_requested.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(super) fn is_close_requested(&self) -> bool {
        self.close_requested.load(Ordering::Acquire)
    }

    fn reason(&self) -> MutexGuard<'_, Option<ConnectionError>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of an open stream, given back when the last part of the call is dropped.
#[derive(Debug)]
pub(super) struct Permit(pub(super) Arc<Shared>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.admission.release();
    }
}
