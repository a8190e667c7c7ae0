//! The page of a run, as a browser shows it. Without Chromium there is nothing to see, and nothing is tested.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use tikv_core::timestamp::Timestamp;
use tikv_sim::simulate::{
    Broken, FaultKind, Plan, Report, Rule, Runner, Scenario, TraceEvent, TraceKind, WorkloadKind, page,
    simulate_with_trace,
};

/// Names that Chromium has on one system or another.
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome", "chrome"];

fn browser() -> Option<PathBuf> {
    let directories: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let candidates = BROWSERS.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    candidates.into_iter().find(|path| path.is_file())
}

/// What there is in the page once its program has run.
struct Shown(String);

impl Shown {
    fn load(browser: &PathBuf, name: &str, html: &str, fragment: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("diagram").join(name);
        fs::create_dir_all(&directory).expect("a directory for the page");
        let path = directory.join("page.html");
        fs::write(&path, html).expect("the page is written");
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1600,1000"])
            .args(["--virtual-time-budget=2000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", directory.join("profile").display()))
            .arg(format!("file://{}#{fragment}", path.display()))
            .output()
            .expect("the browser runs");
        let shown = Shown(String::from_utf8_lossy(&output.stdout).into_owned());
        assert!(shown.0.contains("data-ready=\"true\""), "the program of the page has not come to its end");
        assert!(shown.element("id=\"failure\"").contains("hidden"), "the program of the page has failed");
        shown
    }

    /// The tag with this attribute.
    fn element(&self, attribute: &str) -> &str {
        let (before, after) = self.0.split_once(attribute).expect("the element");
        let start = before.rfind('<').expect("a tag");
        let end = after.find('>').expect("the end of a tag");
        &self.0[start..before.len() + attribute.len() + end]
    }

    /// What the page says it has drawn.
    fn count(&self, name: &str) -> usize {
        let counts = self.element("id=\"counts\"");
        let (_, value) = counts.split_once(&format!("data-{name}=\"")).expect("a count");
        value.split('"').next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

fn is_flight(event: &&TraceEvent) -> bool {
    matches!(event.kind, TraceKind::Request(_) | TraceKind::Reply(_) | TraceKind::Duplicated(_))
}

/// A run in which messages are lost and doubled.
fn faulty_run() -> (Scenario, Report) {
    let faults = [FaultKind::Loss, FaultKind::Duplication, FaultKind::Split, FaultKind::StoreCrash];
    let plan = Plan { workload: Some(WorkloadKind::Bank), faults: faults.into_iter().collect(), transactions: 40 };
    let runs = (0..100).map(|seed| {
        let scenario = Scenario::draw(seed, &plan);
        let report = simulate_with_trace(&scenario);
        (scenario, report)
    });
    let mut faulty = runs.filter(|(_, report)| report.totals.lost > 0 && report.totals.duplicated > 0);
    faulty.next().expect("a seed with losses and copies")
}

fn busiest_txn(trace: &[TraceEvent]) -> (Timestamp, usize) {
    let mut counts: BTreeMap<Timestamp, usize> = BTreeMap::new();
    for event in trace.iter().filter(is_flight).filter(|event| !event.txn.is_zero()) {
        *counts.entry(event.txn).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).expect("a transaction")
}

#[test]
fn a_browser_draws_all_lanes_and_messages_and_of_one_transaction_its_own() {
    let Some(browser) = browser() else {
        let _ = writeln!(io::stderr(), "skipped: there is no Chromium in the PATH");
        return;
    };
    let (scenario, mut report) = faulty_run();
    let mut nodes: Vec<_> = report.trace.iter().flat_map(|event| [event.from, event.to]).collect();
    nodes.sort();
    nodes.dedup();
    let flights = report.trace.iter().filter(is_flight).count();

    let shown = Shown::load(&browser, "whole", &page(&scenario, &report, "tikv-sim replay"), "");
    assert_eq!(shown.count("lanes"), nodes.len());
    assert_eq!(shown.0.matches("<li style=\"top:").count(), nodes.len(), "a name for each lane");
    assert_eq!((shown.count("flights"), shown.count("flights-drawn")), (flights, flights));
    assert_eq!(shown.count("marks-drawn"), shown.count("marks"));
    assert!(shown.0.contains(">no violation</span>"));

    let (txn, of_txn) = busiest_txn(&report.trace);
    report.violation = Some(Broken { rule: Rule::NoOverlap, detail: format!("<b>{txn}</b>") });
    let html = page(&scenario, &report, "tikv-sim replay <1> --keep none");
    let shown = Shown::load(&browser, "txn", &html, &format!("txn={txn}"));
    assert_eq!((shown.count("flights"), shown.count("flights-shown")), (flights, of_txn));
    assert_eq!(shown.count("flights-drawn"), of_txn, "all of the transaction is in view");
    assert!(shown.count("marks-shown") < shown.count("marks"));
    assert!(shown.0.contains(">broken: no overlap</span>"));
    assert!(shown.0.contains(&format!("&lt;b&gt;{txn}&lt;/b&gt;")), "what the rule says is text");
    assert!(shown.0.contains(">tikv-sim replay &lt;1&gt; --keep none</code>"));
}

#[test]
fn the_command_line_writes_pages_of_what_was_cut_and_histories() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (html, history) = (directory.join("cut.html"), directory.join("cut.jsonl"));
    let output = Command::new(env!("CARGO_BIN_EXE_tikv-sim"))
        .args(["replay", "7", "--workload", "append", "--transactions", "10", "--quiet"])
        .args(["--keep", "none", "--set", "clients=1", "--set", "sessions=1"])
        .arg("--html")
        .arg(&html)
        .arg("--history")
        .arg(&history)
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("no violation"), "{said}");
    let html = fs::read_to_string(html).expect("a page");
    let command = "tikv-sim replay 7 --workload append --transactions 10 --keep none --set clients=1 --set sessions=1";
    assert!(html.contains(&format!("\"{command}\"")), "the page names what repeats the run");
    assert!(html.contains("[\"client-0\",\"client\"],[\"auditor\",\"client\"]"), "one client and the auditor");
    let plan = Plan { workload: Some(WorkloadKind::Append), transactions: 10, ..Plan::default() };
    let mut scenario = Scenario::draw(7, &plan).keeping(&[]);
    scenario.options.clients = 1;
    scenario.options.sessions = 1;
    let report = Runner { history: true, ..Runner::default() }.run(&scenario);
    assert_eq!(fs::read_to_string(history).ok(), report.history, "what is written is what happened");
}
