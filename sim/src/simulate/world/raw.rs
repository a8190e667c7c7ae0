//! Raw calls.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::engine::{Operation, Outcome};
use tikv_core::error::Error;
use tikv_core::key::Direction;
use tikv_core::key::Key;
use tikv_core::raw::{self, RawOptions, RawPair, ScanOptions, Swapped};
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

use super::World;
use crate::simulate::check::{Check, Rule, broken, ensure};
use crate::simulate::session::{RawCall, State};
use crate::simulate::workload::RawTask;

/// More than any scan finds.
const ALL_PAIRS: u32 = 10_000;

impl World {
    pub(super) fn begin_raw(&mut self, index: usize, session: usize, task: RawTask) -> Check {
        let deadline = self.deadline_of_next(index, session);
        let mut options = RawOptions::new(self.config_of(index));
        options.call.deadline = deadline;
        options.atomic = true;
        let backwards = self.clients[index].sessions[session].rng.below(3) == 0;
        // What the key has now is likely to be what it has when the call arrives.
        let expected = match &task {
            RawTask::Swap(key, value) => {
                self.raw.begin_swap(value.clone());
                self.raw.current(key)
            }
            _ => None,
        };
        let operation = match self.raw_operation(index, &task, expected.clone(), &options, backwards) {
            Ok(operation) => operation,
            Err(error) => return broken(Rule::PlausibleError, format!("{task:?}: {error}")),
        };
        self.raw.begin(self.now);
        let call = RawCall { task, since: self.now, expected };
        self.clients[index].sessions[session].state = State::Raw(call);
        self.note_begin(index, session, Timestamp::ZERO);
        self.start(index, session, operation, deadline);
        Ok(())
    }

    fn raw_operation(
        &self,
        index: usize,
        task: &RawTask,
        expected: Option<Bytes>,
        options: &RawOptions,
        backwards: bool,
    ) -> Result<Operation, Error> {
        let config = self.config_of(index);
        Ok(match task.clone() {
            RawTask::Get(key) => Operation::RawGet(raw::get(config, key, options)?),
            RawTask::Put(key, value) => Operation::RawPut(raw::put(config, key, value, None, options)?),
            RawTask::Delete(key) => Operation::RawDelete(raw::delete(config, key, options)?),
            RawTask::Swap(key, value) => {
                Operation::RawCompareAndSwap(raw::compare_and_swap(config, key, expected, value, options)?)
            }
            RawTask::BatchGet(keys) => Operation::RawBatchGet(raw::batch_get(config, keys, options)?),
            RawTask::BatchPut(pairs) => {
                let pair = |(key, value)| RawPair { key, value, ttl: None };
                Operation::RawBatchPut(raw::batch_put(config, pairs.into_iter().map(pair).collect(), options)?)
            }
            RawTask::BatchDelete(keys) => Operation::RawBatchDelete(raw::batch_delete(config, keys, options)?),
            RawTask::Scan(range) => {
                let direction = if backwards { Direction::Reverse } else { Direction::Forward };
                let scan = ScanOptions { limit: ALL_PAIRS, direction, key_only: false };
                Operation::RawScan(raw::scan(config, range, scan, options)?)
            }
            RawTask::DeleteRange(range) => Operation::RawDeleteRange(raw::delete_range(config, range, options)),
        })
    }

    pub(super) fn on_raw(&mut self, index: usize, session: usize, call: &RawCall, outcome: Outcome) -> Check {
        let error = self.check_raw(call, outcome)?;
        if let Some(error) = &error {
            self.check_error(Timestamp::ZERO, error)?;
        }
        let (count, how) = match &error {
            None => (&mut self.totals.committed, "committed"),
            Some(error) if error.is_undetermined() => (&mut self.totals.undetermined, "undetermined"),
            Some(_) => (&mut self.totals.rolled_back, "rolled back"),
        };
        *count += 1;
        self.note_end(index, session, Timestamp::ZERO, how);
        self.raw.end(call.since);
        self.end_session(index, session, error.is_none())
    }

    /// Compares what a client was told with the truth. The error that it was told, if it was one.
    fn check_raw(&mut self, call: &RawCall, outcome: Outcome) -> Result<Option<Error>, super::Broken> {
        let since = call.since;
        let error = match (&call.task, outcome) {
            (RawTask::Get(key), Outcome::RawGet(Ok(value))) => {
                self.raw.read(since, key, value.as_ref())?;
                None
            }
            (RawTask::Put(key, value), Outcome::RawPut(Ok(()))) => {
                self.raw.written(since, key, Some(value))?;
                None
            }
            (RawTask::Delete(key), Outcome::RawDelete(Ok(()))) => {
                self.raw.written(since, key, None)?;
                None
            }
            (RawTask::Swap(key, value), Outcome::RawCompareAndSwap(result)) => {
                return self.check_swap(since, key, value, call.expected.as_ref(), result);
            }
            (RawTask::BatchGet(keys), Outcome::RawBatchGet(Ok(values))) => {
                ensure(keys.len() == values.len(), Rule::RawLinearizable, || format!("{values:?} for {keys:?}"))?;
                keys.iter().zip(&values).try_for_each(|(key, value)| self.raw.read(since, key, value.as_ref()))?;
                None
            }
            (RawTask::BatchPut(pairs), Outcome::RawBatchPut(Ok(()))) => {
                pairs.iter().try_for_each(|(key, value)| self.raw.written(since, key, Some(value)))?;
                None
            }
            (RawTask::BatchDelete(keys), Outcome::RawBatchDelete(Ok(()))) => {
                keys.iter().try_for_each(|key| self.raw.written(since, key, None))?;
                None
            }
            (RawTask::Scan(range), Outcome::RawScan(Ok(pairs))) => {
                let found: BTreeMap<Key, Bytes> = pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
                self.raw.scan(since, range, &found)?;
                None
            }
            (RawTask::DeleteRange(_), Outcome::RawDeleteRange(Ok(()))) => None,
            (_, Outcome::RawGet(Err(error)))
            | (_, Outcome::RawPut(Err(error)))
            | (_, Outcome::RawDelete(Err(error)))
            | (_, Outcome::RawBatchGet(Err(error)))
            | (_, Outcome::RawBatchPut(Err(error)))
            | (_, Outcome::RawBatchDelete(Err(error)))
            | (_, Outcome::RawScan(Err(error)))
            | (_, Outcome::RawDeleteRange(Err(error))) => Some(error),
            (task, outcome) => {
                broken(Rule::PlausibleError, format!("{outcome:?} answers {task:?}"))?;
                None
            }
        };
        Ok(error)
    }

    fn check_swap(
        &mut self,
        since: Time,
        key: &Key,
        value: &Bytes,
        expected: Option<&Bytes>,
        result: Result<Swapped, Error>,
    ) -> Result<Option<Error>, super::Broken> {
        match result {
            Ok(Swapped { swapped, previous }) => {
                self.raw.read(since, key, previous.as_ref())?;
                ensure(swapped == (previous.as_ref() == expected), Rule::RawLinearizable, || {
                    format!("a swap of {key:?} from {expected:?} met {previous:?}, and was made: {swapped}")
                })?;
                self.raw.end_swap(key, value, Some(swapped))?;
                Ok(None)
            }
            Err(error) => {
                let known = (!error.is_undetermined()).then_some(false);
                self.raw.end_swap(key, value, known)?;
                Ok(Some(error))
            }
        }
    }
}
