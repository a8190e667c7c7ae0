use super::*;

fn key(name: &str) -> Key {
    Key::from(name)
}

fn found(name: &str, value: &'static str) -> Found {
    Found::from([(key(name), bytes::Bytes::from_static(value.as_bytes()))])
}

fn lines(observed: Observed) -> Vec<Value> {
    let text = observed.finish(Time::from_millis(9));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn a_transaction_is_invoked_and_then_ok_with_what_it_has_read() {
    let mut observed = Observed::new();
    observed.invoke(Time::from_millis(1), 0, 0, vec![MicroOp::ReadList(key("a")), MicroOp::Append(key("a"), 3)]);
    observed.begin(0, 0, Timestamp::from_version(77));
    observed.read(0, 0, &found("a", "1,2,"));
    observed.end(Time::from_millis(2), 0, 0, Ending::Ok);
    let lines = lines(observed);
    assert_eq!(lines[0]["value"], json!([["r", "a", null], ["append", "a", 3]]));
    assert_eq!((&lines[0]["type"], &lines[0]["time"]), (&json!("invoke"), &json!(1_000_000)));
    assert_eq!(lines[1]["value"], json!([["r", "a", [1, 2]], ["append", "a", 3]]));
    assert_eq!((&lines[1]["type"], &lines[1]["start_ts"]), (&json!("ok"), &json!("77")));
    assert_eq!(lines.iter().map(|line| line["index"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1)]);
}

#[test]
fn after_an_unknown_outcome_the_session_goes_on_as_another_process() {
    let mut observed = Observed::new();
    for ending in [Ending::Fail, Ending::Info, Ending::Ok] {
        observed.invoke(Time::ZERO, 1, 2, vec![MicroOp::Write(key("a"), 1)]);
        observed.end(Time::ZERO, 1, 2, ending);
    }
    let processes: Vec<_> = lines(observed).iter().map(|line| line["process"].as_u64()).collect();
    assert_eq!(processes, [Some(0), Some(0), Some(0), Some(0), Some(1), Some(1)]);
}

#[test]
fn what_never_ends_ends_unknown() {
    let mut observed = Observed::new();
    observed.invoke(Time::ZERO, 0, 0, vec![MicroOp::Write(key("a"), 1)]);
    let lines = lines(observed);
    assert_eq!((lines.len(), &lines[1]["type"], &lines[1]["time"]), (2, &json!("info"), &json!(9_000_000)));
}

#[test]
fn a_read_that_finds_nothing_says_so_only_if_nothing_was_deleted() {
    let mut observed = Observed::new();
    for _ in 0..2 {
        observed.invoke(Time::ZERO, 0, 0, vec![MicroOp::ReadRegister(key("a"))]);
        observed.read(0, 0, &Found::new());
        observed.end(Time::ZERO, 0, 0, Ending::Ok);
        observed.invoke(Time::ZERO, 0, 1, vec![MicroOp::Delete(key("a"), 5)]);
    }
    let lines = lines(observed);
    assert_eq!(lines[1]["value"], json!([["r", "a", null]]));
    assert_eq!(lines[2]["value"], json!([["w", "a", -5]]));
    assert_eq!(lines[4]["value"], json!([]));
}
