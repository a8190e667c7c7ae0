//! Regions, split and spread over the stores.

use tikv_core::keyspace::KeyCodec;
use tikv_core::split::{Split, SplitOptions, SplitRegions};
use tracing::Instrument;

use crate::{Client, Key};

impl Client {
    /// Splits regions at transactional keys: before much is written, or to spread what is read often. Keys at which a region
    /// begins already are passed over. Very large transactions do so by themselves
    /// ([`Config::pre_split_keys`](crate::Config::pre_split_keys)).
    ///
    /// What is split stays so, whatever goes wrong after it: hence no `Result`, but the new regions and the first error. Regions
    /// could be merged again by PD, if nothing is written to them for long.
    ///
    /// ```no_run
    /// use tikv::{Scatter, SplitOptions};
    ///
    /// # async fn example(client: tikv::Client) {
    /// let options = SplitOptions { scatter: Scatter::Finish, ..SplitOptions::new(client.config()) };
    /// let split = client.split_regions(["b", "c", "d"], options).await;
    /// println!("{} new regions, {:?}", split.regions.len(), split.error);
    /// # }
    /// ```
    ///
    /// client-go: `SplitRegions`, `WaitScatterRegionFinish`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves regions split as they are, or as they are just going to be.
    pub async fn split_regions(&self, keys: impl IntoIterator<Item = impl Into<Key>>, options: SplitOptions) -> Split {
        let keys = keys.into_iter().map(Into::into).collect();
        let span = tracing::debug_span!("tikv.regions", operation = "split");
        self.drive(KeyCodec::Txn, SplitRegions::new(keys, options)).instrument(span).await
    }
}
