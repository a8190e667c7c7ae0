//! Counters rise one at a time. Who reads all of them sees a state of the whole; two readers must agree which was first.

use std::cell::RefCell;
use std::rc::Rc;

use tikv_core::key::Key;
use tikv_core::rng::Rng;
use tikv_core::txn::Transaction;

use super::{Checked, Found, Script, Step, Task, Workload, hot_index, number, numbered_keys, value_of, written};

/// Counters that readers look at: few, so that many readings can be compared.
const MOST_COUNTERS: u32 = 16;
/// Readings that a new one is compared with.
const MOST_READINGS: usize = 64;

type Reading = Vec<i64>;

#[derive(Debug)]
pub(super) struct LongFork {
    counters: Rc<[Key]>,
    readings: Rc<RefCell<Vec<Reading>>>,
}

#[derive(Debug)]
struct Increment(Key, bool);

#[derive(Debug)]
struct ReadAll {
    counters: Rc<[Key]>,
    readings: Rc<RefCell<Vec<Reading>>>,
    has_read: bool,
}

impl LongFork {
    pub(super) fn new(keys: u32) -> Self {
        LongFork { counters: numbered_keys(keys.min(MOST_COUNTERS)).into(), readings: Rc::default() }
    }
}

impl Workload for LongFork {
    fn keys(&self) -> &[Key] {
        &self.counters
    }

    fn next(&mut self, rng: &mut Rng) -> Task {
        Task::Transaction(if rng.below(3) == 0 {
            let (counters, readings) = (Rc::clone(&self.counters), Rc::clone(&self.readings));
            Box::new(ReadAll { counters, readings, has_read: false })
        } else {
            Box::new(Increment(self.counters[hot_index(rng, self.counters.len())].clone(), false))
        })
    }
}

impl Script for Increment {
    fn step(&mut self, txn: &mut Transaction, found: Found) -> Checked<Step> {
        let Increment(key, has_read) = self;
        if !std::mem::replace(has_read, true) {
            return Ok(Step::Read(vec![key.clone()]));
        }
        written(txn.set(key.clone(), value_of(count(&found, key)? + 1)))?;
        Ok(Step::Commit)
    }
}

impl Script for ReadAll {
    fn step(&mut self, _: &mut Transaction, found: Found) -> Checked<Step> {
        if !self.has_read {
            self.has_read = true;
            return Ok(Step::Read(self.counters.to_vec()));
        }
        let reading = self.counters.iter().map(|key| count(&found, key)).collect::<Checked<Reading>>()?;
        let mut readings = self.readings.borrow_mut();
        if let Some(other) = readings.iter().find(|other| is_fork(other, &reading)) {
            return Err(format!("neither of the readings {other:?} and {reading:?} was before the other"));
        }
        readings.push(reading);
        let surplus = readings.len().saturating_sub(MOST_READINGS);
        readings.drain(..surplus);
        Ok(Step::Commit)
    }
}

fn count(found: &Found, key: &Key) -> Checked<i64> {
    found.get(key).map_or(Ok(0), |value| number(Some(value)))
}

fn is_fork(a: &Reading, b: &Reading) -> bool {
    a.iter().zip(b).any(|(a, b)| a < b) && a.iter().zip(b).any(|(a, b)| a > b)
}
