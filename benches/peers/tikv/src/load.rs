//! The records.

use tikv::{Client, Key};
use tikv_bench_load::{Failure, RECORDS, record, txn_record, value};

/// Keys that are written at once.
const AT_ONCE: u64 = 1000;

/// Writes the raw and the transactional records.
pub(crate) async fn write_records(client: &Client) -> Result<(), Failure> {
    let raw = client.raw();
    for first in (0..RECORDS).step_by(AT_ONCE as usize) {
        let numbers = first..first + AT_ONCE;
        raw.batch_put(numbers.clone().map(|number| (Key::from(record(number)), value()))).await?;
        let txn = client.begin().await?;
        for number in numbers {
            txn.put(txn_record(number), value())?;
        }
        txn.commit().await?;
    }
    Ok(())
}
