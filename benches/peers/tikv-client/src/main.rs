//! The `tikv-client` crate as a peer: `bench-peer-tikv-client PD WORKLOAD CALLERS SECONDS WARM_UP`.

use std::process::ExitCode;
use std::sync::Arc;

use tikv_bench_load::{
    Arguments, BATCH_KEYS, Caller, Commit, Failure, Keys, RECORDS, TXN_RECORDS, Workload, Ycsb, measure, record,
    txn_record, value,
};
use tikv_client::transaction::Mutation;
use tikv_client::{CheckLevel, RawClient, Timestamp, TransactionClient, TransactionOptions};

fn main() -> ExitCode {
    match run() {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("bench-peer-tikv-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let arguments = Arguments::of_process()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = Arc::new(runtime.block_on(Client::connect(&arguments))?);
    measure(&arguments, |task| drop(runtime.spawn(task)), |keys| Calling { client: Arc::clone(&client), keys });
    Ok(())
}

struct Client {
    raw: RawClient,
    txn: TransactionClient,
    workload: Workload,
    read_ts: Timestamp,
    value: Vec<u8>,
}

struct Calling {
    client: Arc<Client>,
    keys: Keys,
}

impl Client {
    async fn connect(arguments: &Arguments) -> Result<Self, Failure> {
        let txn = TransactionClient::new(vec![arguments.pd.clone()]).await?;
        let read_ts = txn.current_timestamp().await?;
        let raw = RawClient::new(vec![arguments.pd.clone()]).await?;
        Ok(Client { raw, txn, workload: arguments.workload, read_ts, value: value() })
    }

    async fn raw_get(&self, number: u64) -> Result<(), Failure> {
        exists(self.raw.get(record(number)).await?.is_some())
    }

    async fn raw_put(&self, number: u64) -> Result<(), Failure> {
        Ok(self.raw.put(record(number), self.value.clone()).await?)
    }

    async fn raw_batch_get(&self, keys: &mut Keys) -> Result<(), Failure> {
        let batch: Vec<Vec<u8>> = (0..BATCH_KEYS).map(|_| record(keys.any())).collect();
        // A key that was chosen twice is answered once.
        exists(!self.raw.batch_get(batch).await?.is_empty())
    }

    async fn snapshot_get(&self, number: u64) -> Result<(), Failure> {
        let mut snapshot = self.txn.snapshot(self.read_ts.clone(), options());
        exists(snapshot.get(txn_record(number)).await?.is_some())
    }

    async fn begin_get(&self, number: u64) -> Result<(), Failure> {
        let mut txn = self.txn.begin_with_options(options()).await?;
        exists(txn.get(txn_record(number)).await?.is_some())
    }

    async fn commit(&self, keys: impl Iterator<Item = Vec<u8>>, kind: Commit) -> Result<(), Failure> {
        let options = match kind {
            Commit::TwoPhase => options(),
            Commit::Async => options().use_async_commit(),
            Commit::OnePhase => options().try_one_pc(),
            Commit::Pessimistic => return self.lock_and_commit(keys).await,
        };
        let mut txn = self.txn.begin_with_options(options).await?;
        for key in keys {
            txn.put(key, self.value.clone()).await?;
        }
        txn.commit().await?;
        Ok(())
    }

    async fn lock_and_commit(&self, keys: impl Iterator<Item = Vec<u8>>) -> Result<(), Failure> {
        let options = TransactionOptions::new_pessimistic().drop_check(CheckLevel::None);
        let mut txn = self.txn.begin_with_options(options).await?;
        // Locks all of them with one request; put would lock each with its own.
        txn.batch_mutate(keys.map(|key| Mutation::Put(key.into(), self.value.clone()))).await?;
        txn.commit().await?;
        Ok(())
    }

    async fn scan(&self) -> Result<(), Failure> {
        let mut snapshot = self.txn.snapshot(self.read_ts.clone(), options());
        let bounds = TXN_RECORDS.start.to_owned()..TXN_RECORDS.end.to_owned();
        exists(snapshot.scan(bounds, RECORDS as u32).await?.count() as u64 == RECORDS)
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
        let Calling { client, keys } = self;
        match client.workload {
            Workload::RawGet => client.raw_get(keys.any()).await,
            Workload::RawPut => client.raw_put(keys.any()).await,
            Workload::RawBatchGet => client.raw_batch_get(keys).await,
            Workload::SnapshotGet => client.snapshot_get(keys.any()).await,
            Workload::BeginGet => client.begin_get(keys.any()).await,
            Workload::Commit(count, kind) => client.commit(keys.to_write(count), kind).await,
            Workload::Scan => client.scan().await,
            Workload::Ycsb(mix) => client.ycsb(mix, keys).await,
            Workload::Tso => client.txn.current_timestamp().await.map(drop).map_err(Failure::from),
            Workload::Load => Err("this peer loads nothing".into()),
        }
    }
}

/// A transaction that is dropped unfinished is no affair of this benchmark.
fn options() -> TransactionOptions {
    TransactionOptions::new_optimistic().drop_check(CheckLevel::None)
}

fn exists(all: bool) -> Result<(), Failure> {
    if all { Ok(()) } else { Err("a record is missing".into()) }
}
