//! The client on async-std: `cargo run --example async_std -- 127.0.0.1:2379`.
#![allow(clippy::print_stdout)]

use tikv_transport_async_std::AsyncStd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pd = std::env::args().nth(1).ok_or("usage: async_std PD_ADDRESS")?;
    async_std::task::block_on(async {
        let client = tikv::Client::connect([pd], AsyncStd::new()).await?;
        client.raw().put("async-std/fruit", "apple").await?;
        println!("raw: {:?}", client.raw().get("async-std/fruit").await?);
        let txn = client.begin().await?;
        txn.put("async-std/city", "Lisbon")?;
        println!("committed at {:?}", txn.commit().await?.commit_ts);
        Ok(())
    })
}
