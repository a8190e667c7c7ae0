//! What clients asked for and were told, in the format that checkers of transactional histories read: Elle, and its kin.
//!
//! The checks of the [simulation](super) know the truth. This is for those who do not: nothing is written here that a client
//! could not tell. One JSON object a line, an operation of Jepsen each:
//!
//! ```json
//! {"index":0,"type":"invoke","process":2,"time":1625378,"f":"txn","value":[["r","k0003",null],["append","k0003",7]]}
//! {"index":1,"type":"ok","process":2,"time":6031786,"f":"txn","value":[["r","k0003",[2,5]],["append","k0003",7]]}
//! ```
//!
//! - `type`: a transaction is `invoke`d, and then `ok` (committed, or has read only), `fail` (has certainly not committed), or
//!   `info` (nobody can say: the outcome is undetermined, or the client died or lost interest while it committed).
//! - `process` runs one transaction at a time. After an `info` its session goes on as another process.
//! - `time` is virtual, in nanoseconds. `start_ts`, at ends of transactions that got one, is no part of Jepsen's format: it
//!   finds the transaction in the trace.
//! - `value`: what the transaction does, in order. List-append (the workload `append`): `["r", key, [elements]]` and
//!   `["append", key, element]`. Registers (`register`): `["r", key, value]` and `["w", key, value]`.
//!
//! A deletion of a register is written as a write of a negative number, which nobody ever reads. A read that finds nothing
//! cannot tell which deletion it has seen, if any: it is left out if there was one. What transactions have read that are not
//! `ok` is not told: it is `null`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tikv_core::key::Key;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;

use super::workload::Found;

/// Something that a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MicroOp {
    /// Reads a list.
    ReadList(Key),
    /// Reads a register.
    ReadRegister(Key),
    Append(Key, u64),
    Write(Key, u64),
    /// Deletes a register. The number is unique among writes, too.
    Delete(Key, u64),
}

/// How a transaction ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Ok,
    Fail,
    Info,
}

/// The history of a run, written line by line as it happens.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    lines: Vec<String>,
    /// By client and session.
    open: BTreeMap<(usize, usize), Open>,
    processes: BTreeMap<(usize, usize), u64>,
    next_process: u64,
    /// Registers that somebody has tried to delete.
    deleted: BTreeSet<Key>,
}

#[derive(Clone, Debug)]
struct Open {
    process: u64,
    start_ts: Timestamp,
    micro_ops: Vec<MicroOp>,
    found: Option<Found>,
}

impl Observed {
    pub(super) fn new() -> Self {
        Observed {
            lines: Vec::new(),
            open: BTreeMap::new(),
            processes: BTreeMap::new(),
            next_process: 0,
            deleted: BTreeSet::new(),
        }
    }

    /// A session wants a transaction, which is passed over if it does nothing.
    pub(super) fn invoke(&mut self, now: Time, client: usize, session: usize, micro_ops: Vec<MicroOp>) {
        if micro_ops.is_empty() {
            return;
        }
        for micro_op in &micro_ops {
            if let MicroOp::Delete(key, _) = micro_op {
                self.deleted.insert(key.clone());
            }
        }
        let next = &mut self.next_process;
        let process = *self.processes.entry((client, session)).or_insert_with(|| {
            *next += 1;
            *next - 1
        });
        let open = Open { process, start_ts: Timestamp::ZERO, micro_ops, found: None };
        self.write(now, "invoke", &open);
        self.open.insert((client, session), open);
    }

    /// The transaction has its start_ts.
    pub(super) fn begin(&mut self, client: usize, session: usize, start_ts: Timestamp) {
        if let Some(open) = self.open.get_mut(&(client, session)) {
            open.start_ts = start_ts;
        }
    }

    /// All that the transaction reads has been read.
    pub(super) fn read(&mut self, client: usize, session: usize, found: &Found) {
        if let Some(open) = self.open.get_mut(&(client, session)) {
            open.found = Some(found.clone());
        }
    }

    pub(super) fn end(&mut self, now: Time, client: usize, session: usize, ending: Ending) {
        let Some(mut open) = self.open.remove(&(client, session)) else { return };
        if ending != Ending::Ok {
            // A transaction that may never have been has read nothing that others depend on.
            open.found = None;
        }
        let name = match ending {
            Ending::Ok => "ok",
            Ending::Fail => "fail",
            Ending::Info => "info",
        };
        self.write(now, name, &open);
        if ending == Ending::Info {
            self.processes.remove(&(client, session));
        }
    }

    /// All lines. What has not ended yet never will.
    pub(super) fn finish(mut self, now: Time) -> String {
        let open: Vec<_> = self.open.keys().copied().collect();
        for (client, session) in open {
            self.end(now, client, session, Ending::Info);
        }
        self.lines.concat()
    }

    fn write(&mut self, now: Time, name: &str, open: &Open) {
        let value: Vec<Value> = open.micro_ops.iter().filter_map(|micro_op| self.shown(micro_op, open)).collect();
        let mut line = json!({
            "index": self.lines.len(),
            "type": name,
            "process": open.process,
            "time": now.as_nanos(),
            "f": "txn",
            "value": value,
        });
        if !open.start_ts.is_zero() {
            line["start_ts"] = json!(open.start_ts.version().to_string());
        }
        self.lines.push(format!("{line}\n"));
    }

    fn shown(&self, micro_op: &MicroOp, open: &Open) -> Option<Value> {
        Some(match micro_op {
            MicroOp::Append(key, element) => json!(["append", name(key), element]),
            MicroOp::Write(key, value) => json!(["w", name(key), value]),
            MicroOp::Delete(key, number) => json!(["w", name(key), negative(*number)]),
            MicroOp::ReadList(key) => {
                let list = open.found.as_ref().map(|found| numbers(found.get(key).map_or(&[], |list| &list[..])));
                json!(["r", name(key), list])
            }
            MicroOp::ReadRegister(key) => {
                let value = open.found.as_ref().map(|found| found.get(key));
                let number = value.flatten().and_then(|value| numbers(value).first().copied());
                if value == Some(None) && self.deleted.contains(key) {
                    return None;
                }
                json!(["r", name(key), number])
            }
        })
    }
}

fn negative(number: u64) -> i64 {
    i64::try_from(number).map_or(i64::MIN, i64::wrapping_neg)
}

fn name(key: &Key) -> String {
    String::from_utf8_lossy(key.as_slice()).into_owned()
}

/// Numbers with commas after them.
fn numbers(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    text.split_terminator(',').filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
