use super::*;
use crate::simulate::{FaultSet, Node, Plan, TraceKind, WorkloadKind, simulate_with_trace};

fn drawn(seed: u64) -> (Scenario, Report) {
    let plan = Plan { workload: Some(WorkloadKind::Bank), faults: FaultSet::ALL, transactions: 30 };
    let scenario = Scenario::draw(seed, &plan);
    let report = simulate_with_trace(&scenario);
    (scenario, report)
}

#[test]
fn every_message_of_the_trace_is_a_flight_and_every_one_that_arrived_has_landed() {
    for seed in 0..4 {
        let (_, report) = drawn(seed);
        let chart = Chart::new(&report.trace);
        let of_kind = |wanted: fn(TraceKind) -> bool| report.trace.iter().filter(|event| wanted(event.kind)).count();
        let sent =
            of_kind(|kind| matches!(kind, TraceKind::Request(_) | TraceKind::Reply(_) | TraceKind::Duplicated(_)));
        assert_eq!(chart.flights.len(), sent, "seed {seed}");
        let arrived = of_kind(|kind| matches!(kind, TraceKind::Arrived(_) | TraceKind::Answered("a reply")));
        let landed = chart.flights.iter().filter(|flight| flight.fate == chart::Fate::Delivered).count();
        assert_eq!(landed, arrived, "seed {seed}");
        let lost = of_kind(|kind| matches!(kind, TraceKind::Lost(_)));
        assert_eq!(chart.flights.iter().filter(|flight| flight.fate == chart::Fate::Lost).count(), lost, "seed {seed}");
        for flight in &chart.flights {
            assert!(flight.arrived.is_none_or(|at| at >= flight.sent), "{flight:?}");
            assert_eq!(matches!(flight.to, Node::Client(_)), flight.is_reply, "{flight:?}");
        }
    }
}

#[test]
fn clients_lie_between_pd_and_stores() {
    let (_, report) = drawn(1);
    let chart = Chart::new(&report.trace);
    let ranks = chart.lanes.iter().map(|node| match node {
        Node::World => 0,
        Node::Pd(_) => 1,
        Node::Client(_) => 2,
        Node::Store(_) => 3,
    });
    assert!(ranks.is_sorted());
}

#[test]
fn whatever_strings_say_ends_no_script() {
    let (scenario, report) = drawn(0);
    let html = page(&scenario, &report, "</script><script>alert(1)</script>{{data}}\u{2028}");
    assert_eq!(html.matches("</script>").count(), 2, "those of the template");
    assert!(html.contains("\\u003c/script>\\u003cscript>alert(1)"));
    assert!(!html.contains('\u{2028}'));
    assert_eq!(html.matches("id=\"run\"").count(), 1);
}

#[test]
fn a_page_is_complete_and_asks_the_network_for_nothing() {
    let (scenario, report) = drawn(2);
    let html = page(&scenario, &report, "tikv-sim replay 2");
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(!html.contains("{{"), "something was not filled in");
    for foreign in ["src=", "href=", "@import", "url(", "http:", "https:"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}
