use std::cmp::Reverse;

use tikv_core::key::Key;
use tikv_core::timestamp::Timestamp;

use super::{Data, Record};
use crate::storage::write::{LastChange, Write, WriteKind};

fn ts(version: u64) -> Timestamp {
    Timestamp::from_version(version)
}

fn data(writes: Vec<(u64, Write)>) -> Data {
    let writes = writes.into_iter().map(|(commit_ts, write)| (Reverse(ts(commit_ts)), write)).collect();
    let record = Record { writes, ..Record::default() };
    Data { records: [(Key::from("k"), record)].into(), ..Data::default() }
}

fn write(kind: WriteKind, start_ts: u64) -> Write {
    Write::new(kind, ts(start_ts), None)
}

fn found(data: &Data, at: u64) -> Option<u64> {
    data.data_version(&Key::from("k"), ts(at), ts(at)).found.map(|(commit_ts, _)| commit_ts.version())
}

#[test]
fn a_version_whose_fence_has_been_collected_was_collected_itself() {
    let mut fenced = write(WriteKind::Put, 5);
    fenced.has_overlapped_rollback = true;
    fenced.gc_fence = Some(ts(20));
    let data = data(vec![(10, fenced)]);
    assert_eq!(found(&data, 19), Some(10));
    assert_eq!(found(&data, 20), None);
}

#[test]
fn a_long_chain_is_jumped_over_by_its_pointer() {
    let lock = |versions| Write {
        last_change: LastChange::Exist { commit_ts: ts(4), versions },
        ..write(WriteKind::Lock, 29)
    };
    let versions =
        |versions| data(vec![(30, lock(versions)), (10, write(WriteKind::Put, 9)), (4, write(WriteKind::Put, 3))]);
    assert_eq!(found(&versions(7), 40), Some(10), "short: walk");
    assert_eq!(found(&versions(8), 40), Some(4), "long: jump");
    let collected = data(vec![(30, lock(8)), (10, write(WriteKind::Put, 9))]);
    assert_eq!(found(&collected, 40), None, "what it points to is gone");
}

#[test]
fn a_record_that_knows_of_no_version_below_ends_the_search() {
    let lock = Write { last_change: LastChange::NotExist, ..write(WriteKind::Lock, 29) };
    assert_eq!(found(&data(vec![(30, lock), (10, write(WriteKind::Put, 9))]), 40), None);
}

#[test]
fn steps_over_rollbacks_are_counted_for_the_next_pointer() {
    let data = data(vec![
        (30, Write::rollback(ts(30), false)),
        (20, Write::rollback(ts(20), true)),
        (10, write(WriteKind::Put, 9)),
    ]);
    let key = Key::from("k");
    let newest = write(WriteKind::Rollback, 30);
    let next = data.next_last_change(&key, ts(30), &newest, ts(40));
    assert_eq!(next, LastChange::Exist { commit_ts: ts(10), versions: 3 });
}
