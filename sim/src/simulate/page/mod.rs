//! A run as a page for a browser: a space-time diagram of who sent what to whom, and when.
//!
//! The page is one file that asks the network for nothing: style, program and data lie in it. `chart` says what is drawn;
//! `data.js`, `drawing.js` and `controls.js`, put together, draw it.

mod chart;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use serde_json::json;

use self::chart::Chart;
use super::report::Report;
use super::scenario::Scenario;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const PROGRAM: &str = concat!(include_str!("data.js"), include_str!("drawing.js"), include_str!("controls.js"));

/// The page of a run of which the [trace](Report::trace) was kept. `command` is what repeats the run.
///
/// ```
/// use tikv_sim::simulate::{Plan, Scenario, page, simulate_with_trace};
///
/// let scenario = Scenario::draw(1, &Plan { transactions: 5, ..Plan::default() });
/// let html = page(&scenario, &simulate_with_trace(&scenario), "tikv-sim replay 1 --transactions 5");
/// assert!(html.starts_with("<!doctype html>"));
/// ```
#[must_use]
pub fn page(scenario: &Scenario, report: &Report, command: &str) -> String {
    let chart = Chart::new(&report.trace);
    let data = json!({
        "seed": scenario.seed.to_string(),
        "workload": scenario.workload.name(),
        "options": scenario.options.to_string(),
        "faults": scenario.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "totals": report.totals.to_string(),
        "command": command,
        "violation": report.violation.as_ref().map(|broken| chart.violation(&report.trace, broken)),
        "chart": chart.to_json(),
    });
    let title = format!("seed {}, {}", scenario.seed, scenario.workload);
    filled(&[("title", &in_text(&title)), ("style", STYLE), ("data", &in_script(&data)), ("program", PROGRAM)])
}

/// The template with each `{{name}}` replaced. What is put in is not looked at again.
fn filled(parts: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        page.push_str(before);
        page.push_str(parts.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text));
        rest = after;
    }
    page + rest
}

/// JSON that ends no script element, whatever its strings say: `<` is written as an escape, which JSON knows.
fn in_script(data: &serde_json::Value) -> String {
    data.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn in_text(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, letter| {
        match letter {
            '<' | '>' | '&' | '"' | '\'' => {
                let _ = write!(escaped, "&#{};", u32::from(letter));
            }
            letter => escaped.push(letter),
        }
        escaped
    })
}
