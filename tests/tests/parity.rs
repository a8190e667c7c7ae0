//! The ledgers of `docs/parity` are complete and name things that exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A reason shorter than this explains nothing.
const MIN_REASON_CHARS: usize = 20;

/// File, suite and name of a test of client-go.
type TestId = [String; 3];

enum Status {
    Ported(Vec<Test>),
    NotApplicable,
    Todo,
}

/// A test of this repository: its file, from the root, and its name.
struct Test {
    path: String,
    name: String,
}

#[test]
fn every_test_of_client_go_has_one_row_in_the_ledger_and_none_is_made_up() {
    let expected: Vec<TestId> = read_table("client-go-tests.tsv", &["file", "package", "suite", "test"])
        .into_iter()
        .map(|row| [0, 2, 3].map(|column: usize| row[column].clone()))
        .collect();
    let found: Vec<TestId> = ledger().into_iter().map(|(test, _)| test).collect();
    let mut rows = BTreeMap::<_, [u32; 2]>::new();
    expected.iter().for_each(|test| rows.entry(test).or_default()[0] += 1);
    found.iter().for_each(|test| rows.entry(test).or_default()[1] += 1);
    let wrong: Vec<_> = rows.into_iter().filter(|(_, counts)| *counts != [1, 1]).collect();
    assert!(wrong.is_empty(), "tests with their rows in the inventory and in the ledger: {wrong:#?}");
    assert_eq!(found, expected, "the rows are the same, in another order");
}

#[test]
#[expect(clippy::print_stdout, reason = "the counts are for people to read")]
fn every_status_is_well_formed_and_names_tests_that_exist() {
    let mut sources = BTreeMap::new();
    let (mut counts, mut problems) = (BTreeMap::<_, u32>::new(), Vec::new());
    for (test, status) in ledger() {
        let status = match parse_status(&status) {
            Ok(status) => status,
            Err(problem) => {
                problems.push(format!("{test:?}: {problem}: {status:?}"));
                continue;
            }
        };
        *counts.entry(status.name()).or_default() += 1;
        let Status::Ported(ports) = status else { continue };
        for Test { path, name } in ports {
            let source = sources.entry(path.clone()).or_insert_with(|| fs::read_to_string(root().join(&path)));
            match source {
                Err(error) => problems.push(format!("{test:?}: {path}: {error}")),
                Ok(source) if !has_test(source, &name) => problems.push(format!("{test:?}: no test {name} in {path}")),
                Ok(_) => {}
            }
        }
    }
    println!("tests of client-go: {counts:?}");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_status_is_ported_to_a_test_or_not_applicable_for_a_reason_or_to_do() {
    for good in ["todo", "ported a/b.rs::c", "ported a/b.rs::c, a/d.rs::e", "n/a the allocator of another language"] {
        assert!(parse_status(good).is_ok(), "{good}");
    }
    for bad in ["", "done", "todo later", "ported", "ported b.rs", "ported b.rs::", "ported ::c", "n/a", "n/a because"]
    {
        assert!(parse_status(bad).is_err(), "{bad}");
    }
}

#[test]
fn only_functions_that_are_tests_count_as_tests() {
    let source = "\
        #[test]\nfn plain() {}\n\n\
        #[tokio::test]\n#[should_panic]\nasync fn with_attributes() {}\n\n\
        quickcheck! {\n    fn property(a: u8) -> bool {\n        true\n    }\n}\n\n\
        pub async fn scenario(rt: &Rt) {\n}\n\n\
        mod inner {\n    #[test]\n    fn nested() {}\n\n    fn not_nested() {}\n}\n\n\
        fn not_a_test() {}\n// fn commented() {}\n";
    let tests = ["plain", "with_attributes", "property", "scenario", "nested"];
    assert!(tests.into_iter().all(|name| has_test(source, name)));
    let others = ["not_a_test", "not_nested", "commented", "absent", "nest", "pla"];
    assert!(!others.into_iter().any(|name| has_test(source, name)));
}

/// Bugs of clients, by where they were collected, and how many of each.
const KNOWN_BUGS: [(&str, usize); 3] = [("S", 42), ("R", 12), ("T", 16)];

/// What a bug may wait for.
const FEATURES: [&str; 9] = [
    "pessimistic locking",
    "fair locking",
    "shared locks",
    "pipelined transactions",
    "garbage collection",
    "stale reads",
    "replica reads",
    "API v2",
    "resource control",
];

#[test]
#[expect(clippy::print_stdout, reason = "the counts are for people to read")]
fn every_known_bug_has_a_row_whose_status_is_known_and_whose_tests_exist() {
    let rows = read_table("known-bugs.tsv", &["id", "reported", "bug", "status", "where", "remains"]);
    let expected =
        KNOWN_BUGS.iter().flat_map(|(source, count)| (1..=*count).map(move |number| format!("{source}{number}")));
    let ids: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(ids, expected.collect::<Vec<_>>(), "one row for each, in order");
    let (mut counts, mut problems) = (BTreeMap::<_, u32>::new(), Vec::new());
    for row in &rows {
        *counts.entry(row[3].as_str()).or_default() += 1;
        problems.extend(problems_of_known_bug(row).into_iter().map(|problem| format!("{}: {problem}", row[0])));
    }
    println!("known bugs: {counts:?}");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_known_bug_is_tested_or_impossible_or_waits_for_a_feature_or_does_not_apply() {
    let this = "tests/tests/parity.rs::only_functions_that_are_tests_count_as_tests";
    let reason = "a reason that says why in a few words";
    let row = |status: &str, place: &str, remains: &str| {
        ["S1", "-", "a bug", status, place, remains].map(str::to_owned).to_vec()
    };
    for good in [
        row("tested", this, "-"),
        row("tested", this, "waits for fair locking"),
        row("impossible by construction", reason, "-"),
        row("waits for stale reads", reason, "-"),
        row("n/a", reason, "-"),
    ] {
        assert_eq!(problems_of_known_bug(&good), [""; 0], "{good:?}");
    }
    for bad in [
        row("tested", "", "-"),
        row("tested", "tests/tests/parity.rs::there_is_no_such_test", "-"),
        row("tested", "tests/tests/nowhere.rs::a", "-"),
        row("tested", this, "waits for better times"),
        row("tested", this, "something"),
        row("waits for better times", reason, "-"),
        row("n/a", "no", "-"),
        row("done", reason, "-"),
        row("todo", reason, "-"),
    ] {
        assert_ne!(problems_of_known_bug(&bad), [""; 0], "{bad:?}");
    }
}

/// What is wrong with a row of the ledger of bugs.
fn problems_of_known_bug(row: &[String]) -> Vec<String> {
    let [_, _, bug, status, place, remains] = row else { return vec!["six columns".to_owned()] };
    let waits = |text: &str| text.strip_prefix("waits for ").is_some_and(|feature| FEATURES.contains(&feature));
    let mut problems = Vec::new();
    if bug.is_empty() {
        problems.push("no bug is named".to_owned());
    }
    if remains != "-" && !(status == "tested" && waits(remains)) {
        problems.push(format!("what remains of it: {remains}"));
    }
    match status.as_str() {
        "tested" => problems.extend(place.split(", ").filter_map(missing_test)),
        "impossible by construction" | "n/a" => {}
        status if waits(status) => {}
        unknown => problems.push(format!("no such status: {unknown}")),
    }
    if status != "tested" && place.chars().count() < MIN_REASON_CHARS {
        problems.push("a reason says why in a few words".to_owned());
    }
    problems
}

/// Why there is no such test, if there is none.
fn missing_test(test: &str) -> Option<String> {
    let Some(Test { path, name }) = parse_test(test) else { return Some(format!("not `<path>::<test>`: {test:?}")) };
    match fs::read_to_string(root().join(&path)) {
        Err(error) => Some(format!("{path}: {error}")),
        Ok(source) => (!has_test(&source, &name)).then(|| format!("no test {name} in {path}")),
    }
}

/// The rows of the ledger: a test of client-go and its status, not yet parsed.
fn ledger() -> Vec<(TestId, String)> {
    let rows = read_table("tests.tsv", &["file", "suite", "test", "status"]);
    rows.into_iter().map(|row| ([0, 1, 2].map(|column: usize| row[column].clone()), row[3].clone())).collect()
}

impl Status {
    fn name(&self) -> &'static str {
        match self {
            Status::Ported(_) => "ported",
            Status::NotApplicable => "n/a",
            Status::Todo => "todo",
        }
    }
}

fn parse_status(status: &str) -> Result<Status, &'static str> {
    if status == "todo" {
        return Ok(Status::Todo);
    }
    if let Some(reason) = status.strip_prefix("n/a ") {
        return if reason.trim().chars().count() < MIN_REASON_CHARS {
            Err("a reason says why in a few words")
        } else {
            Ok(Status::NotApplicable)
        };
    }
    let Some(ports) = status.strip_prefix("ported ") else { return Err("not `ported …`, `n/a …` or `todo`") };
    let ports: Option<Vec<_>> = ports.split(", ").map(parse_test).collect();
    ports.map(Status::Ported).ok_or("not `<path>::<test>`")
}

fn parse_test(test: &str) -> Option<Test> {
    let (path, name) = test.split_once("::")?;
    let well_formed =
        path.ends_with(".rs") && !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    well_formed.then(|| Test { path: path.to_owned(), name: name.to_owned() })
}

/// Whether a source text defines a function of that name that is run as a test: one with an attribute that says so, or a
/// property within `quickcheck! { … }`.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    let definition = format!("fn {name}(");
    (0..lines.len()).any(|index| {
        let line = lines[index].trim_start();
        // A scenario is run by a test of every runtime.
        if line == format!("pub async {definition}rt: &Rt) {{") {
            return true;
        }
        let defines = line.starts_with(&definition) || line.starts_with(&format!("async {definition}"));
        defines && (has_test_attribute(&lines[..index]) || is_property(&lines[..index]))
    })
}

fn has_test_attribute(before: &[&str]) -> bool {
    let mut attributes = before.iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with("#["));
    attributes
        .any(|attribute| attribute == "#[test]" || attribute.ends_with("::test]") || attribute.contains("::test("))
}

fn is_property(before: &[&str]) -> bool {
    let top_level = before.iter().rev().find(|line| !line.is_empty() && !line.starts_with(char::is_whitespace));
    top_level.is_some_and(|line| line.starts_with("quickcheck!"))
}

/// The rows of a table of `docs/parity`, without its header.
fn read_table(name: &str, header: &[&str]) -> Vec<Vec<String>> {
    let path = root().join("docs/parity").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut rows = text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(rows.next().unwrap_or_default(), header, "{name}");
    let rows: Vec<_> = rows.collect();
    for row in &rows {
        assert_eq!(row.len(), header.len(), "{name}: {row:?}");
    }
    rows
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}
