//! The operations an engine can run, by name.

use std::task::Poll;

use crate::error::Error;
use crate::keyspace::KeyCodec;
use crate::machine::{Abandoned, Context, Event, Machine, Token};
use crate::pd::AskPd;
use crate::request::pd::{GcBarrier, GcState};
use crate::timestamp::Timestamp;
use crate::{admin, lock, oracle, raw, snapshot, split, txn};

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($machine:ty) -> $output:ty, $codec:ident;)+) => {
        /// An operation: a machine that has not been started.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $name($machine),)+
        }

        /// How an operation ended.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $name($output),)+
        }

        impl Operation {
            /// Which kind of keys it works on.
            #[must_use]
            pub const fn codec(&self) -> KeyCodec {
                match self {
                    $(Operation::$name(_) => KeyCodec::$codec,)+
                }
            }
        }

        impl Machine for Operation {
            type Output = Outcome;

            fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
                match self {
                    $(Operation::$name(machine) => machine.start(cx).map(Outcome::$name),)+
                }
            }

            fn advance(&mut self, cx: &mut Context<'_>, token: Token, event: Event) -> Poll<Outcome> {
                match self {
                    $(Operation::$name(machine) => machine.handle(cx, token, event).map(Outcome::$name),)+
                }
            }

            fn abandon(&mut self, cx: &mut Context<'_>) -> Abandoned {
                match self {
                    $(Operation::$name(machine) => machine.abandon(cx),)+
                }
            }
        }
    };
}

operations! {
    /// A new timestamp.
    Timestamp(oracle::FetchTimestamp) -> Result<Timestamp, Error>, Txn;
    /// Splits regions.
    SplitRegions(split::SplitRegions) -> split::Split, Txn;
    /// Value of a key at a timestamp.
    SnapshotGet(snapshot::Get) -> snapshot::Read<Option<snapshot::Value>>, Txn;
    /// Values of keys at a timestamp.
    SnapshotBatchGet(snapshot::BatchGet) -> snapshot::Read<Vec<snapshot::Pair>>, Txn;
    /// Pairs of a range at a timestamp.
    SnapshotScan(snapshot::Scan) -> snapshot::Read<Vec<snapshot::Pair>>, Txn;
    /// Commits a transaction.
    Commit(txn::Commit) -> Result<txn::CommitOutcome, Error>, Txn;
    /// Locks keys of a pessimistic transaction.
    LockKeys(txn::LockKeys) -> Result<txn::Locked, Error>, Txn;
    /// Keeps the locks of a pessimistic transaction alive.
    KeepAlive(txn::Heartbeat) -> txn::HeartbeatEnd, Txn;
    /// Releases locks of a pessimistic transaction.
    PessimisticRollback(txn::PessimisticRollback) -> (), Txn;
    /// Flushes a generation of a pipelined transaction.
    Flush(txn::Flush) -> Result<txn::Flushed, Error>, Txn;
    /// Values of keys as a pipelined transaction sees them.
    OwnRead(txn::OwnRead) -> txn::OwnReadEnd, Txn;
    /// Commits a pipelined transaction.
    PipelinedCommit(txn::PipelinedCommit) -> Result<txn::CommitOutcome, Error>, Txn;
    /// Finishes a pipelined transaction that was given up.
    FinishFlushed(txn::FinishFlushed) -> (), Txn;
    /// What became of a transaction whose outcome was not known.
    OutcomeOf(lock::OutcomeOf) -> Result<lock::TxnOutcome, Error>, Txn;
    /// Gets locks out of the way.
    ResolveLocks(lock::ResolveLocks) -> lock::Resolved, Txn;
    /// Asks for the status of a transaction.
    CheckTxnStatus(lock::CheckTxnStatus) -> lock::Checked, Txn;
    /// Locks of a range.
    ScanLocks(lock::ScanLocks) -> Result<Vec<crate::error::LockInfo>, Error>, Txn;
    /// Resolves all old locks of a range.
    SweepLocks(lock::SweepLocks) -> Result<lock::Swept, Error>, Txn;
    /// Collects garbage.
    CollectGarbage(admin::CollectGarbage) -> Result<admin::Collected, Error>, Txn;
    /// How far garbage collection is.
    GetGcState(AskPd<admin::GetGcState>) -> Result<GcState, Error>, Txn;
    /// Keeps old versions from being collected.
    SetGcBarrier(AskPd<admin::SetGcBarrier>) -> Result<GcBarrier, Error>, Txn;
    /// Lets them be collected.
    DeleteGcBarrier(AskPd<admin::DeleteGcBarrier>) -> Result<Option<GcBarrier>, Error>, Txn;
    /// Drops a range of keys from every store.
    DestroyRange(admin::DestroyRange) -> Result<(), Error>, Txn;
    /// Value of a raw key.
    RawGet(raw::Get) -> Result<Option<bytes::Bytes>, Error>, Raw;
    /// Writes a raw key.
    RawPut(raw::Put) -> Result<(), Error>, Raw;
    /// Deletes a raw key.
    RawDelete(raw::Delete) -> Result<(), Error>, Raw;
    /// Remaining life of a raw key.
    RawGetKeyTtl(raw::GetKeyTtl) -> Result<Option<raw::Ttl>, Error>, Raw;
    /// Writes a raw key if it has an expected value.
    RawCompareAndSwap(raw::CompareAndSwap) -> Result<raw::Swapped, Error>, Raw;
    /// Values of raw keys.
    RawBatchGet(raw::BatchGet) -> Result<Vec<Option<bytes::Bytes>>, Error>, Raw;
    /// Writes raw keys.
    RawBatchPut(raw::BatchPut) -> Result<(), Error>, Raw;
    /// Deletes raw keys.
    RawBatchDelete(raw::BatchDelete) -> Result<(), Error>, Raw;
    /// Pairs of a range of raw keys.
    RawScan(raw::Scan) -> Result<Vec<raw::Pair>, Error>, Raw;
    /// Deletes a range of raw keys.
    RawDeleteRange(raw::DeleteRange) -> Result<(), Error>, Raw;
    /// Checksum of a range of raw keys.
    RawChecksum(raw::Checksum) -> Result<raw::ChecksumTotal, Error>, Raw;
}
