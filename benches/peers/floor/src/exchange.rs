//! Who waits for what.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::channel::oneshot;
use futures::task::AtomicWaker;
use prost::encoding::{self, DecodeContext, decode_key};
use prost::{DecodeError, Message};
use tikv_proto::pdpb::{TsoRequest, TsoResponse};

/// Field numbers of both messages of BatchCommands.
const ENTRIES_FIELD: u32 = 1;
const IDS_FIELD: u32 = 2;

/// What callers have asked and not been told.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    state: Mutex<State>,
    /// The task of the connection.
    pub(crate) task: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    /// Of the calls that were not written.
    entries: BytesMut,
    ids: Vec<u64>,
    last_id: u64,
    calls: HashMap<u64, oneshot::Sender<Bytes>>,
    /// Those who wait for a timestamp that was not asked for yet, and then by request.
    new_timestamps: Vec<oneshot::Sender<u64>>,
    timestamps: VecDeque<Vec<oneshot::Sender<u64>>>,
}

impl Exchange {
    /// The answer to an entry, as it comes.
    pub(crate) fn call(&self, entry: &[u8]) -> oneshot::Receiver<Bytes> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.entries.put_slice(entry);
        state.ids.push(id);
        state.calls.insert(id, answer);
        let is_first = state.ids.len() == 1;
        drop(state);
        if is_first {
            self.task.wake();
        }
        answered
    }

    /// A timestamp.
    pub(crate) fn timestamp(&self) -> oneshot::Receiver<u64> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        state.new_timestamps.push(answer);
        let is_first = state.new_timestamps.len() == 1;
        drop(state);
        if is_first {
            self.task.wake();
        }
        answered
    }

    /// The next `BatchCommandsRequest`.
    pub(crate) fn take_frame(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let State { entries, ids, .. } = &mut *state;
        if ids.is_empty() {
            return None;
        }
        encoding::uint64::encode_packed(IDS_FIELD, ids, entries);
        ids.clear();
        Some(entries.split().freeze())
    }

    /// The next `TsoRequest`.
    pub(crate) fn take_timestamp_request(&self) -> Option<Bytes> {
        let mut state = self.lock();
        let waiting = mem::take(&mut state.new_timestamps);
        let count = u32::try_from(waiting.len()).ok().filter(|count| *count > 0)?;
        state.timestamps.push_back(waiting);
        Some(TsoRequest { count, ..TsoRequest::default() }.encode_to_vec().into())
    }

    /// Hands out the answers of a `BatchCommandsResponse`.
    pub(crate) fn receive_frame(&self, mut frame: Bytes) -> Result<(), DecodeError> {
        let (mut answers, mut ids) = (Vec::new(), Vec::new());
        while frame.has_remaining() {
            let (field, wire_type) = decode_key(&mut frame)?;
            let context = DecodeContext::default();
            match field {
                ENTRIES_FIELD => encoding::bytes::merge_repeated(wire_type, &mut answers, &mut frame, context)?,
                IDS_FIELD => encoding::uint64::merge_repeated(wire_type, &mut ids, &mut frame, context)?,
                _ => encoding::skip_field(wire_type, field, &mut frame, context)?,
            }
        }
        let mut state = self.lock();
        let waiting: Vec<_> = ids.iter().map(|id| state.calls.remove(id)).collect();
        drop(state);
        for (waiting, answer) in waiting.into_iter().zip::<Vec<Bytes>>(answers) {
            // Some do not wait.
            let _ = waiting.map(|waiting| waiting.send(answer));
        }
        Ok(())
    }

    /// Hands out the timestamps of a `TsoResponse`.
    pub(crate) fn receive_timestamps(&self, message: Bytes) -> Result<(), DecodeError> {
        let last = TsoResponse::decode(message)?.timestamp.unwrap_or_default();
        let last = u64::try_from((last.physical << 18) + last.logical).unwrap_or_default();
        let waiting = self.lock().timestamps.pop_front().unwrap_or_default();
        for (timestamp, waiting) in (last.saturating_sub(waiting.len() as u64) + 1..).zip(waiting) {
            let _ = waiting.send(timestamp);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
