//! The checks must see what is wrong: histories in which one thing is.

use std::collections::BTreeMap;

use bytes::Bytes;
use tikv_core::key::{Key, KeyRange};
use tikv_core::snapshot::Value;
use tikv_core::time::Time;
use tikv_core::timestamp::Timestamp;
use tikv_core::txn::Mutation;
use tikv_proto::kvrpcpb::Op;

use super::{Check, Deciding, End, History, RawHistory, Rule};
use crate::storage::Change;

fn ts(version: u64) -> Timestamp {
    Timestamp::from_version(version)
}

fn key(name: &str) -> Key {
    Key::from(name)
}

fn pairs<const N: usize>(pairs: [(&str, &'static str); N]) -> BTreeMap<Key, Bytes> {
    pairs.into_iter().map(|(name, value)| (key(name), Bytes::from_static(value.as_bytes()))).collect()
}

fn ended(name: &str, start: u64, commit: u64, op: Op) -> Change {
    Change::Ended { key: key(name), start_ts: ts(start), commit_ts: ts(commit), op }
}

#[track_caller]
fn assert_broken(check: Check, rule: Rule) {
    assert_eq!(check.expect_err("a broken rule").rule, rule);
}

/// A transaction that was begun before all others asks to be committed.
fn commits(history: &mut History, start: u64, mutations: &[Mutation]) {
    assert_eq!(history.begin(ts(start), Timestamp::ZERO), Ok(()));
    history.begin_commit(ts(start), mutations[0].key.clone(), mutations, true);
    assert_eq!(history.prewrite_sent(ts(start), Deciding::Primary), Ok(()));
    history.commit_sent(ts(start));
}

/// `a` and `b` are 1, written by transaction 10 at 20.
fn history() -> History {
    let mut history = History::default();
    commits(&mut history, 10, &[Mutation::put("a", "1"), Mutation::put("b", "1")]);
    assert_eq!(history.observe(&ended("a", 10, 20, Op::Put)), Ok(()));
    assert_eq!(history.end_commit(ts(10), End::Committed(Some(ts(20)))), Ok(()));
    history
}

#[test]
fn a_commit_counts_on_all_keys_as_soon_as_its_primary_is_committed() {
    let mut history = history();
    let keys = [key("a"), key("b")];
    assert_eq!(history.read(ts(20), &keys, &pairs([("a", "1"), ("b", "1")])), Ok(()));
    assert_broken(history.read(ts(20), &keys, &pairs([("a", "1")])), Rule::SnapshotRead);
    let mut history = self::history();
    assert_eq!(history.read(ts(19), &keys, &pairs([])), Ok(()));
    assert_broken(history.read(ts(19), &keys, &pairs([("b", "1")])), Rule::SnapshotRead);
}

#[test]
fn a_scan_shows_all_pairs_of_its_range_and_no_others() {
    let all = pairs([("a", "1"), ("b", "1")]);
    assert_eq!(history().scan(ts(25), &KeyRange::ALL, &all), Ok(()));
    assert_broken(history().scan(ts(25), &KeyRange::ALL, &pairs([("a", "1")])), Rule::SnapshotRead);
    assert_broken(history().scan(ts(25), &KeyRange::new("a", "b"), &all), Rule::SnapshotRead);
    assert_broken(history().scan(ts(25), &KeyRange::ALL, &pairs([("c", "1")])), Rule::SnapshotRead);
}

#[test]
fn nothing_is_committed_below_a_read() {
    for scans in [false, true] {
        let mut history = history();
        commits(&mut history, 21, &[Mutation::put("c", "2")]);
        let read = match scans {
            true => history.scan(ts(30), &KeyRange::ALL, &pairs([("a", "1"), ("b", "1")])),
            false => history.read(ts(30), &[key("c")], &pairs([])),
        };
        assert_eq!(read, Ok(()));
        assert_broken(history.observe(&ended("c", 21, 29, Op::Put)), Rule::SnapshotRead);
    }
}

#[test]
fn a_read_of_what_is_newest_shows_what_was_so_since_it_began() {
    let value = |text: &'static str, commit: Option<u64>| Value { bytes: text.into(), commit_ts: commit.map(ts) };
    let mut history = history();
    let (early, absent) = (history.begin_newest(&key("a")), history.begin_newest(&key("c")));
    commits(&mut history, 21, &[Mutation::put("a", "2"), Mutation::put("c", "2")]);
    assert_eq!(history.observe(&ended("a", 21, 22, Op::Put)), Ok(()));
    let late = history.begin_newest(&key("a"));
    let new = value("2", Some(22));
    for found in [value("1", None), value("1", Some(20)), value("2", None), new.clone()] {
        assert_eq!(history.read_newest(&key("a"), early, Some(&found)), Ok(()));
    }
    for (newest, found) in [(late, value("1", None)), (early, value("1", Some(22))), (early, value("3", None))] {
        assert_broken(history.read_newest(&key("a"), newest, Some(&found)), Rule::RealTimeOrder);
    }
    assert_eq!(history.read_newest(&key("a"), late, Some(&new)), Ok(()));
    assert_broken(history.read_newest(&key("a"), late, None), Rule::RealTimeOrder);
    assert_eq!(history.read_newest(&key("c"), absent, None), Ok(()));
    assert_eq!(history.read_newest(&key("c"), absent, Some(&value("2", Some(22)))), Ok(()));
}

#[test]
fn a_value_that_was_read_was_committed_when_it_is_said_to_be() {
    assert_eq!(history().read_commit_ts(ts(25), &key("a"), Some(ts(20))), Ok(()));
    assert_eq!(history().read_commit_ts(ts(25), &key("a"), None), Ok(()));
    assert_broken(history().read_commit_ts(ts(25), &key("a"), Some(ts(21))), Rule::SnapshotRead);
    assert_broken(history().read_commit_ts(ts(19), &key("a"), Some(ts(20))), Rule::SnapshotRead);
}

#[test]
fn writers_of_a_key_do_not_overlap() {
    let mut history = history();
    commits(&mut history, 19, &[Mutation::put("c", "2"), Mutation::lock("b")]);
    assert_broken(history.observe(&ended("c", 19, 30, Op::Put)), Rule::NoOverlap);
}

#[test]
fn a_transaction_commits_at_one_timestamp_on_its_own_keys() {
    assert_broken(history().observe(&ended("b", 10, 21, Op::Put)), Rule::OneCommitTs);
    assert_broken(history().observe(&ended("c", 10, 20, Op::Put)), Rule::OneCommitTs);
    assert_broken(history().observe(&ended("b", 10, 20, Op::Del)), Rule::OneCommitTs);
    assert_broken(history().observe(&ended("b", 10, 10, Op::Rollback)), Rule::OneCommitTs);
    assert_eq!(history().observe(&ended("b", 10, 20, Op::Put)), Ok(()));
}

#[test]
fn secondaries_come_after_their_primary() {
    let mut history = History::default();
    commits(&mut history, 10, &[Mutation::put("a", "1"), Mutation::put("b", "1")]);
    assert_broken(history.observe(&ended("b", 10, 20, Op::Put)), Rule::PrimaryFirst);
}

#[test]
fn who_begins_after_an_acknowledgement_begins_above_it() {
    let mut history = history();
    let floor = history.ask();
    assert_broken(history.begin(ts(20), floor), Rule::RealTimeOrder);
    assert_eq!(history.begin(ts(21), floor), Ok(()));
}

#[test]
fn what_an_open_transaction_can_see_is_remembered_and_nothing_else() {
    let write_thrice = |history: &mut History| {
        for (start, commit) in [(30, 31), (40, 41), (50, 51)] {
            commits(history, start, &[Mutation::put("a", "2")]);
            assert_eq!(history.observe(&ended("a", start, commit, Op::Put)), Ok(()));
            assert_eq!(history.end_commit(ts(start), End::Committed(Some(ts(commit)))), Ok(()));
        }
    };
    let mut history = history();
    let floor = history.ask();
    write_thrice(&mut history);
    assert_eq!(history.begin(ts(25), floor), Ok(()));
    assert_eq!(history.read(ts(25), &[key("a")], &pairs([("a", "1")])), Ok(()));

    history.close(ts(25));
    commits(&mut history, 60, &[Mutation::put("a", "3")]);
    assert_eq!(history.observe(&ended("a", 60, 61, Op::Put)), Ok(()));
    assert_broken(history.read(ts(25), &[key("a")], &pairs([("a", "1")])), Rule::SnapshotRead);
}

#[test]
fn what_is_reported_is_what_happened() {
    let committed = || {
        let mut history = History::default();
        commits(&mut history, 10, &[Mutation::put("a", "1")]);
        assert_eq!(history.observe(&ended("a", 10, 20, Op::Put)), Ok(()));
        history
    };
    assert_eq!(committed().end_commit(ts(10), End::Committed(Some(ts(20)))), Ok(()));
    assert_eq!(committed().end_commit(ts(10), End::Undetermined), Ok(()));
    for end in [End::RolledBack, End::Committed(Some(ts(21))), End::Committed(None)] {
        assert_broken(committed().end_commit(ts(10), end), Rule::ReportedOutcome);
    }

    let mut open = History::default();
    commits(&mut open, 10, &[Mutation::put("a", "1")]);
    assert_broken(open.end_commit(ts(10), End::Committed(Some(ts(20)))), Rule::ReportedOutcome);
}

#[test]
fn what_was_rolled_back_is_never_committed_later() {
    let mut history = History::default();
    commits(&mut history, 10, &[Mutation::put("a", "1")]);
    assert_eq!(history.end_commit(ts(10), End::RolledBack), Ok(()));
    assert_broken(history.observe(&ended("a", 10, 20, Op::Put)), Rule::ReportedOutcome);
}

#[test]
fn only_who_has_sent_a_commit_may_not_know() {
    let mut history = History::default();
    assert_eq!(history.begin(ts(10), Timestamp::ZERO), Ok(()));
    history.begin_commit(ts(10), key("a"), &[Mutation::put("a", "1")], true);
    assert_broken(history.end_commit(ts(10), End::Undetermined), Rule::ReportedOutcome);
}

#[test]
fn who_was_cancelled_locks_nothing_more() {
    let mut history = History::default();
    commits(&mut history, 10, &[Mutation::put("a", "1")]);
    assert_eq!(history.end_commit(ts(10), End::Cancelled), Ok(()));
    assert_broken(history.prewrite_sent(ts(10), Deciding::Primary), Rule::SilentAfterCancel);
}

#[test]
fn nobody_keeps_a_transaction_alive_that_has_ended() {
    let mut history = History::default();
    commits(&mut history, 10, &[Mutation::put("a", "1")]);
    assert_eq!(history.heartbeat_sent(ts(10)), Ok(()));
    assert_eq!(history.end_commit(ts(10), End::Undetermined), Ok(()));
    assert_broken(history.heartbeat_sent(ts(10)), Rule::SilentAfterCancel);
}

fn locked_to_commit(name: &str, start: u64, min_commit: u64) -> Change {
    Change::Locked {
        key: key(name),
        start_ts: ts(start),
        for_update_ts: Timestamp::ZERO,
        async_commit: Some(ts(min_commit)),
    }
}

/// A transaction that writes `a` and `b` and sends prewrites of this kind.
fn decided_by_prewrites(deciding: Deciding) -> History {
    let mut history = History::default();
    assert_eq!(history.begin(ts(10), Timestamp::ZERO), Ok(()));
    history.begin_commit(ts(10), key("a"), &[Mutation::put("a", "1"), Mutation::put("b", "1")], true);
    assert_eq!(history.prewrite_sent(ts(10), deciding), Ok(()));
    history
}

#[test]
fn an_async_commit_counts_as_soon_as_all_keys_are_locked_at_the_largest_min_commit_ts() {
    let mut history = decided_by_prewrites(Deciding::AllLocks);
    assert_eq!(history.observe(&locked_to_commit("b", 10, 25)), Ok(()));
    assert_eq!(history.read(ts(20), &[key("a")], &pairs([])), Ok(()));
    assert_eq!(history.observe(&locked_to_commit("a", 10, 21)), Ok(()));
    assert_broken(history.clone().read(ts(25), &[key("a")], &pairs([])), Rule::SnapshotRead);
    assert_broken(history.clone().end_commit(ts(10), End::RolledBack), Rule::ReportedOutcome);
    assert_broken(history.observe(&ended("a", 10, 10, Op::Rollback)), Rule::OneCommitTs);
    assert_broken(history.observe(&ended("b", 10, 26, Op::Put)), Rule::OneCommitTs);
    assert_eq!(history.observe(&ended("b", 10, 25, Op::Put)), Ok(()));
    assert_eq!(history.end_commit(ts(10), End::Committed(Some(ts(25)))), Ok(()));
    // What begins later may have that very timestamp, but none below.
    let floor = history.ask();
    assert_eq!(history.clone().begin(ts(25), floor), Ok(()));
    assert_broken(history.begin(ts(24), floor), Rule::RealTimeOrder);
}

#[test]
fn an_async_commit_with_an_ordinary_lock_is_decided_by_its_primary() {
    let mut history = decided_by_prewrites(Deciding::AllLocks);
    assert_eq!(history.observe(&locked_to_commit("b", 10, 25)), Ok(()));
    assert_eq!(
        history.observe(&Change::Locked {
            key: key("a"),
            start_ts: ts(10),
            for_update_ts: Timestamp::ZERO,
            async_commit: None
        }),
        Ok(())
    );
    assert_eq!(history.read(ts(30), &[key("a"), key("b")], &pairs([])), Ok(()));
    assert_broken(history.observe(&ended("b", 10, 31, Op::Put)), Rule::PrimaryFirst);
}

#[test]
fn in_one_phase_no_key_is_the_first() {
    let mut history = decided_by_prewrites(Deciding::Request);
    assert_eq!(history.observe(&ended("b", 10, 25, Op::Put)), Ok(()));
    assert_eq!(history.observe(&ended("a", 10, 25, Op::Put)), Ok(()));
    assert_eq!(history.end_commit(ts(10), End::Committed(Some(ts(25)))), Ok(()));
    assert_eq!(history.check_settled(), Ok(()));
}

#[test]
fn what_is_inserted_was_absent() {
    let mut history = history();
    commits(&mut history, 21, &[Mutation::insert("a", "2")]);
    assert_broken(history.observe(&ended("a", 21, 30, Op::Put)), Rule::InsertedAbsent);
}

#[test]
fn no_lock_is_left_over() {
    let mut history = history();
    assert_eq!(
        history.observe(&Change::Locked {
            key: key("b"),
            start_ts: ts(10),
            for_update_ts: Timestamp::ZERO,
            async_commit: None
        }),
        Ok(())
    );
    assert_broken(history.check_settled(), Rule::LocksResolved);
    assert_eq!(history.observe(&Change::Unlocked { key: key("b") }), Ok(()));
    assert_broken(history.check_settled(), Rule::OneCommitTs);
    assert_eq!(history.observe(&ended("b", 10, 20, Op::Put)), Ok(()));
    assert_eq!(history.check_settled(), Ok(()));
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// `a` is 1 from 10 ms on, and 2 from 20 ms on; a call has been open since 5 ms.
fn raw() -> RawHistory {
    let mut raw = RawHistory::default();
    raw.begin(at(5));
    assert_eq!(raw.observe(at(10), &key("a"), Some(&"1".into())), Ok(()));
    assert_eq!(raw.observe(at(20), &key("a"), Some(&"2".into())), Ok(()));
    raw
}

#[test]
fn a_raw_read_shows_what_was_there_while_it_was_made() {
    let read = |since, value: Option<&'static str>| raw().read(at(since), &key("a"), value.map(Bytes::from).as_ref());
    assert_eq!(read(5, None), Ok(()));
    assert_eq!(read(5, Some("1")), Ok(()));
    assert_eq!(read(15, Some("1")), Ok(()));
    assert_eq!(read(15, Some("2")), Ok(()));
    assert_broken(read(15, None), Rule::RawLinearizable);
    assert_broken(read(21, Some("1")), Rule::RawLinearizable);
    assert_broken(read(5, Some("3")), Rule::RawLinearizable);
}

#[test]
fn an_acknowledged_raw_write_was_made_while_it_was_asked_for() {
    assert_eq!(raw().written(at(15), &key("a"), Some(&"2".into())), Ok(()));
    assert_broken(raw().written(at(15), &key("a"), Some(&"1".into())), Rule::RawLinearizable);
    assert_broken(raw().written(at(5), &key("a"), None), Rule::RawLinearizable);
}

#[test]
fn a_swap_is_made_once_and_only_if_it_is_said_to_be() {
    let three = Bytes::from_static(b"3");
    let swapping = || {
        let mut raw = raw();
        raw.begin_swap(three.clone());
        raw
    };
    let mut once = swapping();
    assert_eq!(once.observe(at(30), &key("a"), Some(&three)), Ok(()));
    assert_eq!(once.clone().end_swap(&key("a"), &three, Some(true)), Ok(()));
    assert_broken(once.clone().end_swap(&key("a"), &three, Some(false)), Rule::ReportedOutcome);
    assert_broken(once.observe(at(31), &key("a"), Some(&three)), Rule::AtMostOnce);
    assert_broken(swapping().end_swap(&key("a"), &three, Some(true)), Rule::ReportedOutcome);

    let mut failed = swapping();
    assert_eq!(failed.end_swap(&key("a"), &three, Some(false)), Ok(()));
    assert_broken(failed.observe(at(30), &key("a"), Some(&three)), Rule::AtMostOnce);
}

#[test]
fn what_no_open_call_can_see_is_forgotten() {
    let mut raw = raw();
    raw.end(at(5));
    raw.begin(at(25));
    for ms in 26..100 {
        assert_eq!(raw.observe(at(ms), &key("a"), Some(&ms.to_string().into())), Ok(()));
    }
    assert_eq!(raw.read(at(25), &key("a"), Some(&"2".into())), Ok(()));
    assert_broken(raw.read(at(25), &key("a"), Some(&"1".into())), Rule::RawLinearizable);
}

/// Transaction 10 is open, and holds `a` since 12.
fn holding() -> History {
    let mut history = History::default();
    assert_eq!(history.begin(ts(10), Timestamp::ZERO), Ok(()));
    assert_eq!(history.observe(&locked("a", 12)), Ok(()));
    assert_eq!(history.lock_taken(ts(10), key("a"), ts(12)), Ok(()));
    history
}

/// Transaction 10 locks a key pessimistically.
fn locked(name: &str, for_update_ts: u64) -> Change {
    Change::Locked { key: key(name), start_ts: ts(10), for_update_ts: ts(for_update_ts), async_commit: None }
}

#[test]
fn a_lock_that_goes_is_lost_whether_its_client_has_heard_of_it_or_not() {
    let unlocked = Change::Unlocked { key: key("a") };
    let mut history = holding();
    assert!(!history.has_lost_locks(ts(10)));
    assert_eq!(history.observe(&unlocked), Ok(()));
    assert!(history.has_lost_locks(ts(10)));
    let mut history = History::default();
    assert_eq!(history.begin(ts(10), Timestamp::ZERO), Ok(()));
    assert_eq!(history.observe(&locked("a", 12)), Ok(()));
    assert_eq!(history.observe(&unlocked), Ok(()));
    assert!(!history.has_lost_locks(ts(10)), "it may be locked anew before the client is told");
    let mut anew = history.clone();
    assert_eq!(history.lock_taken(ts(10), key("a"), ts(12)), Ok(()));
    assert!(history.has_lost_locks(ts(10)));
    assert_eq!(anew.observe(&locked("a", 13)), Ok(()));
    assert_eq!(anew.lock_taken(ts(10), key("a"), ts(13)), Ok(()));
    assert!(!anew.has_lost_locks(ts(10)));
}

#[test]
fn a_lock_that_is_held_is_not_released() {
    let a = || [key("a").to_bytes()];
    assert_eq!(holding().release_sent(ts(10), &a(), ts(11)), Ok(()));
    assert_eq!(holding().release_sent(ts(10), &[key("b").to_bytes()], ts(12)), Ok(()));
    assert_broken(holding().release_sent(ts(10), &a(), ts(12)), Rule::LocksKept);
    let mut history = holding();
    history.locks_dropped(ts(10), &[key("a")]);
    assert_eq!(history.release_sent(ts(10), &a(), ts(12)), Ok(()));
    let mut history = holding();
    history.begin_commit(ts(10), key("a"), &[Mutation::put("a", "1")], true);
    assert_eq!(history.release_sent(ts(10), &a(), Timestamp::MAX), Ok(()), "it is prewritten");
}

#[test]
fn what_was_released_before_is_locked_at_newer_timestamps() {
    let mut history = holding();
    assert_eq!(history.release_sent(ts(10), &[key("b").to_bytes()], ts(13)), Ok(()));
    assert_eq!(history.lock_taken(ts(10), key("b"), ts(14)), Ok(()));
    let mut history = holding();
    assert_eq!(history.release_sent(ts(10), &[key("b").to_bytes()], Timestamp::MAX), Ok(()));
    assert_broken(history.lock_taken(ts(10), key("b"), ts(14)), Rule::LocksKept);
}

#[test]
fn a_commit_that_was_given_up_keeps_its_locks_alive_until_it_hears_that_it_is_done() {
    let mut history = History::default();
    commits(&mut history, 10, &[Mutation::put("a", "1")]);
    assert_eq!(history.end_commit(ts(10), End::Cancelled), Ok(()));
    assert_eq!(history.observe(&ended("a", 10, 20, Op::Put)), Ok(()));
    assert_eq!(history.heartbeat_sent(ts(10)), Ok(()));
}
