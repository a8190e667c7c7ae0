//! A page without anything outside of it.

use std::fmt::Write;

use crate::figures::Metric;
use crate::results::{CaseResults, Results};
use crate::svg::{Bar, Chart, Group};

const STYLE: &str = "\
body { font: 14px sans-serif; margin: 2em; color: #222 }
section { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start }
svg { font: 11px sans-serif }
svg .title { font-size: 13px; font-weight: bold }
svg .group { fill: #777 }
svg path { stroke: #000; stroke-opacity: .6 }
.tokio { fill: #1f6fb4 } .smol { fill: #5fa5dd } .async-std { fill: #a3cdf0 }
.client-go { fill: #e08a2e } .tikv-client { fill: #b94a3f } .floor { fill: #999 }
pre { background: #f4f4f4; padding: 1em; overflow-x: auto; font-size: 12px }";

/// Charts of all workloads, and the text below them.
pub(crate) fn html(results: &Results) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>tikv side by side</title><style>{STYLE}</style>\
         <h1>The tikv client side by side</h1>\
         <p>Medians over rounds in which all took turns on the same machine; lines show the lowest and the highest round. \
         Compare within a chart only.</p>"
    );
    for cases in results.cases.chunk_by(|one, other| one.case.name() == other.case.name()) {
        let name = cases.first().map(|case| case.case.name()).unwrap_or_default();
        let _ = write!(page, "<h2>{name}</h2><section>");
        for metric in Metric::ALL {
            page.push_str(&chart(cases, metric).map(|chart| chart.svg()).unwrap_or_default());
        }
        page.push_str("</section>");
    }
    let text = results.text().replace('&', "&amp;").replace('<', "&lt;");
    let _ = write!(page, "<h2>All figures</h2><pre>{text}</pre></html>");
    page
}

/// The cases of one workload, which differ in their callers; `None` if nothing is known of them.
fn chart(cases: &[CaseResults], metric: Metric) -> Option<Chart> {
    let mut chart = Chart { title: metric.title().to_owned(), groups: Vec::new() };
    for case in cases {
        let bars: Vec<Bar> = case
            .peers()
            .filter_map(|peer| {
                let figure = case.figure(peer, metric)?;
                let (value, spread) = (figure.median, (figure.lowest, figure.highest));
                Some(Bar { name: peer.to_string(), class: peer.to_string(), value, spread })
            })
            .collect();
        if !bars.is_empty() {
            chart.groups.push(Group { name: format!("{} callers", case.case.callers), bars });
        }
    }
    (!chart.groups.is_empty()).then_some(chart)
}
