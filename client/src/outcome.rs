//! Outcomes that were not known when a commit ended.

use tikv_core::keyspace::KeyCodec;
use tikv_core::lock::{OutcomeOf, TxnOutcome};
use tikv_core::route::CallOptions;
use tracing::Instrument;

use crate::{Client, Error, Key, Timestamp};

impl Client {
    /// What became of a transaction whose commit ended with [`Error::Undetermined`], which names its `start_ts` and `primary`.
    /// If TiKV finds no trace of it, it is rolled back, so that the answer stays true. As long as its locks are alive it is
    /// [`TxnOutcome::Open`]: ask again later.
    ///
    /// A key that is not the transaction's primary gives a wrong answer.
    ///
    /// ```no_run
    /// # async fn example(client: tikv::Client, txn: tikv::Transaction) -> Result<(), tikv::Error> {
    /// use tikv::{Error, TxnOutcome};
    ///
    /// if let Err(Error::Undetermined { start_ts, primary, .. }) = txn.commit().await {
    ///     match client.outcome_of(start_ts, primary).await? {
    ///         TxnOutcome::Committed(commit_ts) => println!("committed at {commit_ts}"),
    ///         TxnOutcome::RolledBack => println!("nothing was written: it can be run again"),
    ///         TxnOutcome::Open { for_up_to } => println!("ask again in {for_up_to:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The answer is to be trusted as long as garbage is not collected past `start_ts`: the record of a commit may go with the version
    /// that it wrote, and who asks afterwards is told that nothing was written.
    ///
    /// client-go: `LockResolver.GetTxnStatus`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyKey`]; [`Error::RetriesExhausted`] if TiKV could not be asked within about 20 s: the outcome is as unknown
    /// as before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the question.
    pub async fn outcome_of(&self, start_ts: Timestamp, primary: impl Into<Key>) -> Result<TxnOutcome, Error> {
        let question = OutcomeOf::new(self.config(), start_ts, primary.into(), CallOptions::new(self.config()))?;
        let span = tracing::debug_span!("tikv.txn", operation = "outcome_of", %start_ts);
        self.drive(KeyCodec::Txn, question).instrument(span).await
    }
}
