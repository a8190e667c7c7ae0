//! The administration channel: a command a line, each answered by a line.

use super::ServedCluster;
use crate::cluster::Region;

/// The commands, with what they take and what follows `ok`.
const HELP: &str = "help regions stores split transfer-leader stop-store start-store stop-pd start-pd";

/// | line | answer |
/// |---|---|
/// | `help` | the commands |
/// | `regions` | `ID:START:END:VERSION:LEADERSTORE …`, keys in hex as PD knows them, 0 for no leader |
/// | `stores` | `ID:ADDRESS …` |
/// | `split KEY` | `LEFT RIGHT`; the key in hex, as transactional clients write it |
/// | `transfer-leader REGION STORE` | |
/// | `stop-store STORE`, `start-store STORE` | |
/// | `stop-pd [MEMBER]`, `start-pd [MEMBER]` | the first one if none is named |
pub(super) fn run(cluster: &ServedCluster, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let answer = match words.split_first() {
        Some((command, arguments)) => execute(cluster, command, arguments),
        None => Err("a command is expected".to_owned()),
    };
    match answer {
        Ok(answer) if answer.is_empty() => "ok".to_owned(),
        Ok(answer) => format!("ok {answer}"),
        Err(error) => format!("error {}", error.replace('\n', " ")),
    }
}

fn execute(cluster: &ServedCluster, command: &str, arguments: &[&str]) -> Result<String, String> {
    match (command, arguments) {
        ("help", []) => Ok(HELP.to_owned()),
        ("regions", []) => Ok(regions(cluster)),
        ("stores", []) => Ok(stores(cluster)),
        ("split", [key]) => {
            let (left, right) = cluster.split(&bytes_of(key)?).map_err(|error| error.to_string())?;
            Ok(format!("{left} {right}"))
        }
        ("transfer-leader", [region, store]) => {
            done(cluster.transfer_leader(number(region)?, number(store)?).map_err(std::io::Error::other))
        }
        ("stop-store", [store]) => done(cluster.stop_store(number(store)?)),
        ("start-store", [store]) => done(cluster.start_store(number(store)?)),
        ("stop-pd", []) => done(cluster.stop_pd(1)),
        ("stop-pd", [member]) => done(cluster.stop_pd(number(member)?)),
        ("start-pd", []) => done(cluster.start_pd(1)),
        ("start-pd", [member]) => done(cluster.start_pd(number(member)?)),
        _ => Err(format!("unknown command, or wrong arguments: {command}; there are {HELP}")),
    }
}

fn done(result: std::io::Result<()>) -> Result<String, String> {
    result.map(|()| String::new()).map_err(|error| error.to_string())
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn bytes_of(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(|| format!("{hex} is no key in hex"))?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn regions(cluster: &ServedCluster) -> String {
    let describe = |region: &Region| {
        let (id, leader, version) = (region.id(), region.leader.unwrap_or(0), region.epoch().version);
        format!("{id}:{}:{}:{version}:{leader}", hex_of(&region.meta.start_key), hex_of(&region.meta.end_key))
    };
    let all: Vec<String> =
        cluster.with_cluster(|cluster, _| cluster.topology().regions().iter().map(describe).collect());
    all.join(" ")
}

fn stores(cluster: &ServedCluster) -> String {
    let all: Vec<String> =
        cluster.store_addresses().into_iter().map(|(id, address)| format!("{id}:{address}")).collect();
    all.join(" ")
}
