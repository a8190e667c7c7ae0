//! The client on smol: `cargo run --example smol -- 127.0.0.1:2379`.
#![allow(clippy::print_stdout)]

use tikv_transport_smol::Smol;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pd = std::env::args().nth(1).ok_or("usage: smol PD_ADDRESS")?;
    smol::block_on(async {
        let client = tikv::Client::connect([pd], Smol::new()).await?;
        client.raw().put("smol/fruit", "apple").await?;
        println!("raw: {:?}", client.raw().get("smol/fruit").await?);
        let txn = client.begin().await?;
        txn.put("smol/city", "Lisbon")?;
        println!("committed at {:?}", txn.commit().await?.commit_ts);
        Ok(())
    })
}
