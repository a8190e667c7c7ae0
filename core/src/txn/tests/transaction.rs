use super::*;
use crate::membuffer::{FlagOp, KeyFlags, Limits};
use crate::txn::{Buffered, Transaction, TxnState};
use tikv_proto::kvrpcpb::Op;

fn open() -> Transaction {
    Transaction::new(&Config::default(), start_ts(), Time::ZERO, options())
}

fn ops(txn: &mut Transaction) -> Vec<(String, Op)> {
    let request = txn.begin_commit().expect("mutations");
    let name = |mutation: &Mutation| String::from_utf8_lossy(mutation.key.as_slice()).into_owned();
    request.mutations.as_slice().iter().map(|mutation| (name(mutation), mutation.op)).collect()
}

#[test]
fn a_transaction_reads_its_own_writes_and_asks_tikv_for_the_rest() {
    let mut txn = open();
    txn.set("a", "a1").expect("open");
    txn.delete("b").expect("open");
    txn.lock_keys(["e".into()]).expect("open");
    let reads = txn.read_many(["a", "b", "c", "d", "e"].map(Into::into)).expect("open");
    assert_eq!(reads.found, [("a".into(), "a1".into())]);
    assert_eq!(reads.unknown, ["c".into(), "d".into(), "e".into()], "what is only locked has to be read");
}

#[test]
fn the_request_of_a_commit_tells_all() {
    let mut txn = open();
    txn.set("a", "1").expect("open");
    txn.options_mut().expect("open").txn_source = 7;
    let request = txn.begin_commit().expect("mutations");
    assert_eq!((request.start_ts, request.started_at), (start_ts(), Time::ZERO));
    assert_eq!((request.mutations, request.options.txn_source), (mutations([Mutation::put("a", "1")]), 7));
}

#[test]
fn what_a_transaction_has_written_belongs_to_its_commit_as_soon_as_that_begins() {
    let mut txn = open();
    txn.set("a", "1").expect("open");
    txn.delete("bc").expect("open");
    assert_eq!(txn.size(), (2, 4));
    let request = txn.begin_commit().expect("mutations");
    assert_eq!(request.mutations.len(), 2);
    assert_eq!((txn.size(), txn.buffer().len(), txn.buffer().footprint()), ((2, 4), 0, 0));
}

#[test]
fn a_transaction_keeps_the_writes_that_cannot_be_committed() {
    let mut txn = open();
    txn.set("a", "12345").expect("open");
    txn.buffer_mut().expect("open").set_limits(Limits { total_bytes: 3, ..Limits::NONE });
    assert!(matches!(txn.begin_commit(), Err(Error::TxnTooLarge { .. })));
    assert_eq!((txn.state(), txn.size(), txn.buffer().len()), (TxnState::RolledBack, (1, 6), 1));
}

#[test]
fn an_inserted_key_is_checked_even_if_it_is_deleted_again() {
    let mut txn = open();
    txn.insert("a", "1").expect("absent");
    txn.insert("b", "1").expect("absent");
    txn.delete("b").expect("open");
    txn.insert("c", "1").expect("absent");
    txn.delete("c").expect("open");
    txn.insert("c", "2").expect("deleted");
    txn.delete("d").expect("open");
    txn.insert("d", "1").expect("deleted");
    txn.set("e", "1").expect("open");
    assert_eq!(txn.insert("e", "2"), Err(Error::KeyExists { key: "e".into() }));
    let expected = [("a", Op::Insert), ("b", Op::CheckNotExists), ("c", Op::Insert), ("d", Op::Put), ("e", Op::Put)];
    assert_eq!(ops(&mut txn), expected.map(|(key, op)| (key.to_owned(), op)));
}

#[test]
fn keys_are_locked_by_the_commit_and_exclusively() {
    let mut txn = open();
    txn.lock_keys(["k".into()]).expect("open");
    let flags = txn.buffer().flags(b"k").unwrap_or(KeyFlags::NONE);
    assert!(flags.has_locked() && !flags.has_locked_in_share_mode());
    assert_eq!(ops(&mut txn), [("k".to_owned(), Op::Lock)]);
}

fn committing() -> Transaction {
    let mut txn = open();
    txn.begin_commit().expect("mutations");
    txn
}

fn rolled_back() -> Transaction {
    let mut txn = open();
    txn.rollback().expect("open");
    txn
}

/// A transaction without a key that could be its primary.
fn impossible() -> Transaction {
    let mut txn = open();
    let shared = [FlagOp::SetKeyLocked, FlagOp::SetKeyLockedInShareMode];
    txn.buffer_mut().expect("open").update_flags("s", &shared).expect("room");
    assert!(matches!(txn.begin_commit(), Err(Error::InvalidArgument(_))));
    txn
}

#[test]
fn only_an_open_transaction_can_be_used() {
    let finished = Error::TxnFinished;
    let closed = [
        (committing(), TxnState::Committing),
        (rolled_back(), TxnState::RolledBack),
        (impossible(), TxnState::RolledBack),
    ];
    for (mut txn, state) in closed {
        assert_eq!(txn.state(), state);
        assert_eq!(txn.read(b"a"), Err(finished.clone()));
        assert_eq!(txn.set("a", "1"), Err(finished.clone()));
        assert_eq!(txn.insert("a", "1"), Err(finished.clone()));
        assert_eq!(txn.delete("a"), Err(finished.clone()));
        assert_eq!(txn.lock_keys(["a".into()]), Err(finished.clone()));
        assert_eq!(txn.rollback(), Err(finished.clone()));
        assert_eq!(txn.begin_commit(), Err(finished.clone()));
        assert!(txn.buffer_mut().is_err() && txn.options_mut().is_err());
    }
}

#[test]
fn the_end_of_a_commit_is_final() {
    let undetermined =
        Error::Undetermined { start_ts: start_ts(), primary: "a".into(), cause: Box::new(Error::Closed) };
    let outcome = CommitOutcome { commit_ts: Some(ts(2_000)), ..CommitOutcome::default() };
    let ends = [
        (Ok(outcome), TxnState::Committed(outcome)),
        (Err(Error::Closed), TxnState::RolledBack),
        (Err(undetermined), TxnState::Undetermined),
    ];
    let mut txn = open();
    txn.end_commit(&Ok(outcome));
    assert_eq!(txn.state(), TxnState::Open, "it is not being committed");
    for (end, state) in ends {
        let mut txn = committing();
        txn.end_commit(&end);
        assert_eq!(txn.state(), state);
        txn.end_commit(&Err(Error::Closed));
        assert_eq!(txn.state(), state);
    }
}

#[test]
fn a_transaction_does_not_commit_in_the_middle_of_a_stage() {
    let mut txn = open();
    let stage = txn.buffer_mut().expect("open").stage();
    txn.set("a", "1").expect("open");
    assert!(matches!(txn.begin_commit(), Err(Error::InvalidArgument(_))));
    txn.buffer_mut().expect("open").cleanup(stage).expect("innermost");
    assert_eq!(ops(&mut txn), []);
}

#[test]
fn writes_that_tikv_would_not_take_are_refused_and_change_nothing() {
    let config = Config { txn_entry_limit_bytes: 10, txn_total_limit_bytes: 15, ..Config::default() };
    let mut txn = Transaction::new(&config, start_ts(), Time::ZERO, options());
    assert_eq!(txn.set("", "1"), Err(Error::EmptyKey));
    assert_eq!(txn.delete(""), Err(Error::EmptyKey));
    assert_eq!(txn.lock_keys(["".into()]), Err(Error::EmptyKey));
    assert_eq!(txn.set("a", ""), Err(Error::EmptyValue { key: "a".into() }));
    assert_eq!(txn.set("a", "0123456789"), Err(Error::EntryTooLarge { actual_bytes: 11, limit_bytes: 10 }));
    let too_large = Error::KeyTooLarge { actual_bytes: 65_536, limit_bytes: 65_535 };
    assert_eq!(txn.delete(vec![0; 65_536]), Err(too_large));
    txn.set("a", "012345678").expect("room");
    assert_eq!(txn.set("b", "01234"), Err(Error::TxnTooLarge { actual_bytes: 16, limit_bytes: 15 }));
    assert_eq!(txn.read(b"b"), Ok(Buffered::Unknown));
}

#[test]
fn a_filter_leaves_writes_out() {
    let mut txn = open();
    txn.set("a", "1").expect("open");
    txn.set("b", "1").expect("open");
    let request = txn.begin_filtered_commit(|entry| entry.key.as_slice() == b"a").expect("mutations");
    assert_eq!(request.mutations, mutations([Mutation::put("b", "1")]));
}
