//! The essays in `docs/protocol` list the transitions that the machines declare, neither more nor fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tikv_core::engine;

type Steps = BTreeMap<String, BTreeSet<(String, String)>>;

#[test]
fn the_transitions_of_the_essays_are_those_of_the_machines() {
    let mut told = Steps::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol");
    for file in fs::read_dir(&folder).expect("essays") {
        let path = file.expect("an essay").path();
        let text = fs::read_to_string(&path).expect("text");
        let blocks = text.split("```transitions\n").skip(1).filter_map(|rest| rest.split("```").next());
        for line in blocks.flat_map(str::lines) {
            let (machine, step) = line.split_once(": ").unwrap_or_else(|| panic!("{path:?}: {line}"));
            let (from, next) = step.split_once(" → ").unwrap_or_else(|| panic!("{path:?}: {line}"));
            let steps = next.split(" | ").map(|to| (from.to_owned(), to.to_owned()));
            told.entry(machine.to_owned()).or_default().extend(steps);
        }
    }
    assert!(!told.is_empty());
    for (machine, steps) in told {
        let phases = engine::phases().find(|phases| phases.machine == machine);
        let phases = phases.unwrap_or_else(|| panic!("there is no machine {machine} with phases"));
        let declared = phases.transitions().map(|step| (step.from.to_owned(), step.to.to_owned())).collect();
        assert_eq!(steps, declared, "{machine}");
    }
}
