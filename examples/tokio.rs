//! The client on tokio: `cargo run --example tokio -- 127.0.0.1:2379`.
#![allow(clippy::print_stdout)]

use tikv_transport_tokio::Tokio;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pd = std::env::args().nth(1).ok_or("usage: tokio PD_ADDRESS")?;
    let client = tikv::Client::connect([pd], Tokio::current()).await?;
    client.raw().put("tokio/fruit", "apple").await?;
    println!("raw: {:?}", client.raw().get("tokio/fruit").await?);
    let txn = client.begin().await?;
    txn.put("tokio/city", "Lisbon")?;
    println!("committed at {:?}", txn.commit().await?.commit_ts);
    Ok(())
}
