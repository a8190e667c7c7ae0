//! What gungraun says of benchmarks: a line of JSON for each (version 7 of its schema).

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use serde_json::Value;

use crate::figures::Figures;

/// A line that is not what a summary of a benchmark should be.
#[derive(Debug)]
pub struct BadSummary(String);

impl fmt::Display for BadSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the summary of a benchmark under callgrind and DHAT: `{:.200}`", self.0)
    }
}

impl Error for BadSummary {}

/// The figures of every benchmark, by the name of its function.
///
/// # Errors
///
/// If a line lacks a figure.
pub fn operations(lines: &str) -> Result<BTreeMap<String, Figures>, BadSummary> {
    lines.lines().map(|line| operation(line).ok_or_else(|| BadSummary(line.to_owned()))).collect()
}

fn operation(line: &str) -> Option<(String, Figures)> {
    let summary: Value = serde_json::from_str(line).ok()?;
    let metric = |tool: &str, name: &str| {
        let profile = summary["profiles"].as_array()?.iter().find(|profile| profile["tool"] == tool)?;
        // What the last run measured may stand beside it.
        profile["data"]["total"]["metrics"][name]["values"]["new"].as_u64()
    };
    let instructions = metric("Callgrind", "Ir")?;
    let figures = Figures::of_one(instructions, metric("DHAT", "TotalBlocks")?, metric("DHAT", "TotalBytes")?);
    Some((summary["function_name"].as_str()?.to_owned(), figures))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(profiles: &str) -> String {
        format!(r#"{{"function_name":"raw_get","profiles":[{profiles}]}}"#)
    }

    fn profile(tool: &str, metrics: &str) -> String {
        format!(r#"{{"tool":"{tool}","data":{{"total":{{"metrics":{{{metrics}}}}}}}}}"#)
    }

    #[test]
    fn figures_are_those_of_this_run_and_of_one_operation() {
        let callgrind = profile("Callgrind", r#""Ir":{"values":{"new":2560,"old":256000}}"#);
        let dhat = profile("DHAT", r#""TotalBlocks":{"values":{"new":512}},"TotalBytes":{"values":{"new":25600}}"#);
        let figures = Figures { instructions: 10.0, allocations: 2.0, bytes: 100.0 };
        let read = operations(&line(&format!("{callgrind},{dhat}"))).expect("a summary");
        assert_eq!(read, BTreeMap::from([("raw_get".to_owned(), figures)]));
    }

    #[test]
    fn a_summary_without_a_tool_is_refused() {
        let callgrind = profile("Callgrind", r#""Ir":{"values":{"new":2560}}"#);
        assert!(operations(&line(&callgrind)).is_err());
        assert!(operations("not JSON").is_err());
    }
}
