use super::*;
use crate::lock::Resolution;

fn knowing(read_ms: u64) -> ReadThrough {
    let mut known = ReadThrough::new(ts(read_ms));
    known.add(&Resolution { ms_before_expired: 0, ignored: vec![ts(1)], accessible: vec![ts(2)] });
    known
}

#[test]
fn another_timestamp_forgets_what_to_ignore_and_what_to_read_through() {
    let mut known = knowing(10).of_transaction(ts(9));
    known.set_read_ts(ts(10));
    assert!(known.passes(ts(1)) && known.passes(ts(2)), "the same timestamp changes nothing");
    known.set_read_ts(ts(5));
    assert_eq!(known.ignored().count() + known.accessible().count(), 0);
    assert!(known.passes(ts(9)), "its own transaction stays its own");
    assert_eq!(known.read_ts(), ts(5));
}

#[test]
fn a_snapshot_learns_what_its_reads_learnt() {
    let mut snapshot = ReadThrough::new(ts(10));
    snapshot.learn(&knowing(10));
    assert_eq!(snapshot, knowing(10));
}

#[test]
fn a_read_that_began_at_another_timestamp_teaches_nothing() {
    let mut snapshot = ReadThrough::new(ts(11));
    snapshot.learn(&knowing(10));
    assert!(snapshot.is_empty());
}

#[test]
fn reads_of_the_newest_version_teach_each_other_nothing() {
    let mut read = ReadThrough::new(Timestamp::MAX);
    read.ignore(ts(1));
    let mut snapshot = ReadThrough::new(Timestamp::MAX);
    snapshot.learn(&read);
    assert!(snapshot.is_empty());
}

#[test]
fn the_oldest_transactions_are_forgotten_first() {
    let mut known = ReadThrough::new(ts(10));
    for n in 0..2_000 {
        known.ignore(Timestamp::from_version(n));
    }
    assert_eq!(known.ignored().count(), 1_024);
    assert_eq!(known.ignored().next(), Some(Timestamp::from_version(976)));
}
