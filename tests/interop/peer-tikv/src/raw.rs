//! The raw commands.

use serde_json::json;
use tikv::{Pair, RawClient};

use crate::peer::{Peer, pairs};
use crate::request::{Outcome, Request, hex};

impl Peer {
    fn raw(&self, request: &Request) -> RawClient {
        self.client.raw().with_timeout(request.timeout())
    }

    pub(crate) async fn raw_put(&self, request: &Request) -> Outcome {
        self.raw(request).put(request.key()?, request.bytes("value")?).await?;
        Ok(json!({}))
    }

    pub(crate) async fn raw_get(&self, request: &Request) -> Outcome {
        let value = self.raw(request).get(request.key()?).await?;
        Ok(json!({ "value": value.map(|value| hex(&value)) }))
    }

    pub(crate) async fn raw_delete(&self, request: &Request) -> Outcome {
        self.raw(request).delete(request.key()?).await?;
        Ok(json!({}))
    }

    pub(crate) async fn raw_batch_put(&self, request: &Request) -> Outcome {
        self.raw(request).batch_put(request.pairs()?).await?;
        Ok(json!({}))
    }

    pub(crate) async fn raw_batch_get(&self, request: &Request) -> Outcome {
        let keys = request.keys()?;
        let values = self.raw(request).batch_get(keys.iter().cloned()).await?;
        let found = keys.into_iter().zip(values).filter_map(|(key, value)| Some(Pair { key, value: value? }));
        Ok(pairs(found))
    }

    pub(crate) async fn raw_batch_delete(&self, request: &Request) -> Outcome {
        self.raw(request).batch_delete(request.keys()?).await?;
        Ok(json!({}))
    }

    pub(crate) async fn raw_scan(&self, request: &Request) -> Outcome {
        Ok(pairs(self.raw(request).scan(request.range()?, request.limit()).await?))
    }

    pub(crate) async fn raw_reverse_scan(&self, request: &Request) -> Outcome {
        Ok(pairs(self.raw(request).reverse_scan(request.range()?, request.limit()).await?))
    }

    pub(crate) async fn raw_delete_range(&self, request: &Request) -> Outcome {
        self.raw(request).delete_range(request.range()?).await?;
        Ok(json!({}))
    }

    pub(crate) async fn raw_cas(&self, request: &Request) -> Outcome {
        let (key, expected, value) = (request.key()?, request.optional_bytes("expected")?, request.bytes("value")?);
        let done = self.raw(request).with_atomic(true).compare_and_swap(key, expected, value).await?;
        Ok(json!({ "swapped": done.swapped, "previous": done.previous.map(|value| hex(&value)) }))
    }
}
