//! A tour of the client: raw keys, a transaction, a conflict, a scan over several regions.
//!
//! `cargo run --release --example quickstart` starts a simulated cluster on TCP ports of this machine and tours that;
//! `-- --pd 127.0.0.1:2379` tours a cluster of yours (it writes and deletes keys under `quickstart/`, and `a/q` to `z/q`).
#![allow(clippy::print_stdout)]

use std::error::Error as StdError;

use tikv::{Client, Direction, Error, KeyRange, RawClient};
use tikv_transport_tokio::Tokio;

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let cluster = tikv_examples::cluster(std::env::args())?;
    println!("{cluster}");
    let client = Client::connect([cluster.pd()], Tokio::current()).await?;
    println!("connected: cluster {}", client.cluster_id());

    raw_keys(&client.raw()).await?;
    transaction(&client).await?;
    conflict(&client).await?;
    scan(&client).await?;
    println!("\nThat was it. The same calls run over smol, async-std or threads of your own: see the other examples.");
    Ok(())
}

async fn raw_keys(raw: &RawClient) -> Result<(), Error> {
    println!("\n-- raw keys: no transactions, the fastest way");
    raw.put("quickstart/raw/apple", "red").await?;
    println!("put apple, get apple      -> {:?}", raw.get("quickstart/raw/apple").await?);
    println!("get pear                  -> {:?}", raw.get("quickstart/raw/pear").await?);
    raw.batch_put([("quickstart/raw/banana", "yellow"), ("quickstart/raw/cherry", "dark red")]).await?;
    let fruits = raw.scan("quickstart/raw/".."quickstart/raw0", 10).await?;
    println!("scan                      -> {} fruits", fruits.len());
    for fruit in fruits {
        println!("                             {:?} is {:?}", fruit.key, fruit.value);
    }
    raw.delete_range("quickstart/raw/".."quickstart/raw0").await?;
    println!("delete range, get apple   -> {:?}", raw.get("quickstart/raw/apple").await?);
    Ok(())
}

async fn transaction(client: &Client) -> Result<(), Error> {
    println!("\n-- a transaction: all of its writes, or none");
    let txn = client.begin().await?;
    txn.put("quickstart/txn/alice", "10")?;
    txn.put("quickstart/txn/bob", "5")?;
    println!("own writes are seen       -> alice has {:?}", txn.get("quickstart/txn/alice").await?);
    let before = client.snapshot().await?.get("quickstart/txn/alice").await?;
    println!("others see nothing yet    -> alice has {before:?}");
    let outcome = txn.commit().await?;
    println!("commit                    -> at {}", outcome.commit_ts.unwrap_or_default());
    let after = client.snapshot().await?.get("quickstart/txn/alice").await?;
    println!("now others see it         -> alice has {after:?}");
    Ok(())
}

async fn conflict(client: &Client) -> Result<(), Error> {
    println!("\n-- two transactions in conflict");
    let (first, second) = (client.begin().await?, client.begin().await?);
    first.put("quickstart/txn/alice", "11")?;
    second.put("quickstart/txn/alice", "12")?;
    println!("the first commits         -> {}", outcome(&first.commit().await));
    println!("the second cannot         -> {}", outcome(&second.commit().await));

    // What `run` is for: it runs the transaction again until it goes through.
    let transfer = |client: Client| async move {
        client
            .run(|txn| async move {
                let balance = |value: Option<bytes::Bytes>| -> u64 {
                    value.and_then(|value| String::from_utf8_lossy(&value).parse().ok()).unwrap_or(0)
                };
                let alice = balance(txn.get("quickstart/txn/alice").await?);
                let bob = balance(txn.get("quickstart/txn/bob").await?);
                txn.put("quickstart/txn/alice", (alice - 1).to_string())?;
                txn.put("quickstart/txn/bob", (bob + 1).to_string())
            })
            .await
    };
    let transfers: Vec<_> = (0..4).map(|_| tokio::spawn(transfer(client.clone()))).collect();
    for transfer in transfers {
        transfer.await.map_err(|error| Error::InvalidArgument(error.to_string().into()))??;
    }
    let pairs = client.snapshot().await?.batch_get(["quickstart/txn/alice", "quickstart/txn/bob"]).await?;
    println!("four transfers at once    -> {pairs:?}: the sum is as before");
    Ok(())
}

async fn scan(client: &Client) -> Result<(), Error> {
    println!("\n-- a scan over several regions");
    let txn = client.begin().await?;
    for letter in b'a'..=b'z' {
        txn.put(vec![letter, b'/', b'q'], vec![letter])?;
    }
    txn.commit().await?;
    let snapshot = client.snapshot().await?;
    let first = snapshot.scan(vec![b'a', b'/']..vec![b'z', b'0'], 3).await?;
    println!("the first three           -> {:?}", first.iter().map(|pair| &pair.key).collect::<Vec<_>>());
    let last = snapshot.reverse_scan(vec![b'a', b'/']..vec![b'z', b'0'], 3).await?;
    println!("the last three            -> {:?}", last.iter().map(|pair| &pair.key).collect::<Vec<_>>());
    let mut all = snapshot.stream(KeyRange::new("a/", "z0"), Direction::Forward);
    let mut count = 0;
    while all.next().await?.is_some() {
        count += 1;
    }
    println!("page by page, everything  -> {count} keys: the letters, and alice and bob");

    let clean_up = client.begin().await?;
    for letter in b'a'..=b'z' {
        clean_up.delete(vec![letter, b'/', b'q'])?;
    }
    for name in ["alice", "bob"] {
        clean_up.delete(format!("quickstart/txn/{name}"))?;
    }
    clean_up.commit().await?;
    Ok(())
}

fn outcome<T>(result: &Result<T, Error>) -> String {
    match result {
        Ok(_) => "committed".into(),
        Err(error) => format!("{error} (retryable: {})", error.is_retryable()),
    }
}
