//! The raw commands.

use serde_json::json;
use tikv_client::KvPair;

use crate::request::{Fault, Outcome, Request};
use crate::{Peer, pairs};

impl Peer {
    pub async fn raw_put(&self, request: &Request) -> Outcome {
        self.raw.put(request.bytes("key")?, request.bytes("value")?).await?;
        Ok(json!({}))
    }

    pub async fn raw_get(&self, request: &Request) -> Outcome {
        let value = self.raw.get(request.bytes("key")?).await?;
        Ok(json!({ "value": value.map(hex::encode) }))
    }

    pub async fn raw_delete(&self, request: &Request) -> Outcome {
        self.raw.delete(request.bytes("key")?).await?;
        Ok(json!({}))
    }

    pub async fn raw_batch_put(&self, request: &Request) -> Outcome {
        self.raw.batch_put(request.pairs()?.into_iter().map(KvPair::from)).await?;
        Ok(json!({}))
    }

    pub async fn raw_batch_get(&self, request: &Request) -> Outcome {
        Ok(pairs(self.raw.batch_get(request.list("keys")?).await?))
    }

    pub async fn raw_batch_delete(&self, request: &Request) -> Outcome {
        self.raw.batch_delete(request.list("keys")?).await?;
        Ok(json!({}))
    }

    /// Without an end, `scan` of tikv-client 0.4.0 stops after the first region.
    pub async fn raw_scan(&self, request: &Request) -> Outcome {
        if request.bytes("end")?.is_empty() {
            return Err(Fault::unsupported("tikv-client 0.4.0 does not scan without an end"));
        }
        Ok(pairs(self.raw.scan(request.range()?, request.limit()).await?))
    }

    /// `scan_reverse` of tikv-client 0.4.0 walks the regions forward, so more than one region comes out in the wrong order.
    pub async fn raw_reverse_scan(&self, _: &Request) -> Outcome {
        Err(Fault::unsupported("tikv-client 0.4.0 does not scan backward over several regions"))
    }

    pub async fn raw_delete_range(&self, request: &Request) -> Outcome {
        self.raw.delete_range(request.range()?).await?;
        Ok(json!({}))
    }

    pub async fn raw_cas(&self, request: &Request) -> Outcome {
        let expected = request.optional_bytes("expected")?;
        let (key, value) = (request.bytes("key")?, request.bytes("value")?);
        let (previous, swapped) = self.atomic.compare_and_swap(key, expected, value).await?;
        Ok(json!({ "swapped": swapped, "previous": previous.map(hex::encode) }))
    }
}
