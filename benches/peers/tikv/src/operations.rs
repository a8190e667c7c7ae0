//! The workloads in the words of this client.

use bytes::Bytes;
use tikv::{Client, LockOptions, RawClient, Timestamp, TransactionOptions};
use tikv_bench_load::{
    BATCH_KEYS, Caller, Commit, Failure, Keys, RECORDS, TXN_RECORDS, Workload, Ycsb, record, txn_record, value,
};

/// One workload on one client.
#[derive(Clone)]
pub(crate) struct Operations {
    client: Client,
    raw: RawClient,
    workload: Workload,
    /// Where snapshots read.
    read_ts: Timestamp,
    value: Bytes,
}

/// The operations of one caller.
pub(crate) struct Calling {
    operations: Operations,
    keys: Keys,
}

impl Operations {
    pub(crate) fn new(client: Client, workload: Workload, read_ts: Timestamp) -> Self {
        Operations { raw: client.raw(), client, workload, read_ts, value: value().into() }
    }

    /// With a value of its own: callers that share one would wait for each other to count its references.
    pub(crate) fn of_caller(&self, keys: Keys) -> Calling {
        Calling { operations: Operations { value: Bytes::copy_from_slice(&self.value), ..self.clone() }, keys }
    }

    async fn raw_get(&self, number: u64) -> Result<(), Failure> {
        exists(self.raw.get(record(number)).await?.is_some())
    }

    async fn raw_put(&self, number: u64) -> Result<(), Failure> {
        Ok(self.raw.put(record(number), self.value.clone()).await?)
    }

    async fn raw_batch_get(&self, keys: &mut Keys) -> Result<(), Failure> {
        let batch: Vec<Vec<u8>> = (0..BATCH_KEYS).map(|_| record(keys.any())).collect();
        exists(self.raw.batch_get(batch).await?.iter().all(Option::is_some))
    }

    async fn snapshot_get(&self, number: u64) -> Result<(), Failure> {
        exists(self.client.snapshot_at(self.read_ts).get(txn_record(number)).await?.is_some())
    }

    async fn begin_get(&self, number: u64) -> Result<(), Failure> {
        exists(self.client.begin().await?.get(txn_record(number)).await?.is_some())
    }

    async fn commit(&self, keys: impl Iterator<Item = Vec<u8>>, kind: Commit) -> Result<(), Failure> {
        let options = TransactionOptions::default();
        let options = match kind {
            Commit::TwoPhase => options,
            Commit::Async => options.async_commit(),
            Commit::OnePhase => options.one_phase_commit(),
            Commit::Pessimistic => return self.lock_and_commit(keys.collect(), options.pessimistic()).await,
        };
        let txn = self.client.begin_with(options).await?;
        for key in keys {
            txn.put(key, &self.value)?;
        }
        txn.commit().await?;
        Ok(())
    }

    async fn lock_and_commit(&self, keys: Vec<Vec<u8>>, options: TransactionOptions) -> Result<(), Failure> {
        let txn = self.client.begin_with(options).await?;
        txn.lock_keys(keys.clone(), LockOptions::default()).await?;
        for key in keys {
            txn.put(key, &self.value)?;
        }
        txn.commit().await?;
        Ok(())
    }

    async fn scan(&self) -> Result<(), Failure> {
        let found = self.client.snapshot_at(self.read_ts).scan(TXN_RECORDS, RECORDS as usize).await?;
        exists(found.len() as u64 == RECORDS)
    }

    async fn ycsb(&self, mix: Ycsb, keys: &mut Keys) -> Result<(), Failure> {
        let number = keys.any();
        let only_reads = keys.chance(mix.reads_of_100());
        if only_reads || mix == Ycsb::F {
            self.raw_get(number).await?;
        }
        if !only_reads {
            self.raw_put(number).await?;
        }
        Ok(())
    }
}

impl Caller for Calling {
    async fn operate(&mut self) -> Result<(), Failure> {
        let Calling { operations, keys } = self;
        match operations.workload {
            Workload::RawGet => operations.raw_get(keys.any()).await,
            Workload::RawPut => operations.raw_put(keys.any()).await,
            Workload::RawBatchGet => operations.raw_batch_get(keys).await,
            Workload::SnapshotGet => operations.snapshot_get(keys.any()).await,
            Workload::BeginGet => operations.begin_get(keys.any()).await,
            Workload::Commit(count, kind) => operations.commit(keys.to_write(count), kind).await,
            Workload::Scan => operations.scan().await,
            Workload::Ycsb(mix) => operations.ycsb(mix, keys).await,
            Workload::Tso => operations.client.current_timestamp().await.map(drop).map_err(Failure::from),
            Workload::Load => Err("the records are not loaded again and again".into()),
        }
    }
}

fn exists(all: bool) -> Result<(), Failure> {
    if all { Ok(()) } else { Err("a record is missing".into()) }
}
