//! The modules of this crate are layers: each uses only those above it. The order is that of the table in `src/lib.rs`,
//! which is the only list there is; a module further right in a row is further down, too.
//!
//! Test code may use what it likes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A use of one module by another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrow {
    from: String,
    to: String,
    /// File and line.
    at: String,
}

#[test]
fn every_module_is_in_the_table_of_layers_once() {
    let layers = layers(&read("lib.rs"));
    let unique: BTreeSet<_> = layers.iter().cloned().collect();
    assert_eq!(unique.len(), layers.len(), "twice in the table: {layers:?}");
    let declared: BTreeSet<_> = declared_modules(&read("lib.rs")).collect();
    assert_eq!(unique, declared, "in the table, and declared");
    let present: BTreeSet<_> = fs::read_dir(source())
        .expect("the source")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with("lib.rs"))
        .map(|path| module_path(path.strip_prefix(source()).expect("below")).remove(0))
        .collect();
    assert_eq!(unique, present, "in the table, and in the folder");
}

#[test]
fn no_module_uses_one_below_it() {
    let layers = layers(&read("lib.rs"));
    let position = |module: &str| layers.iter().position(|layer| layer == module);
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for file in source_files(&source()) {
        let relative = file.strip_prefix(source()).expect("below").to_owned();
        for arrow in arrows_of(&relative, &fs::read_to_string(&file).expect("text")) {
            arrows += 1;
            let (Some(from), Some(to)) = (position(&arrow.from), position(&arrow.to)) else {
                wrong.push(arrow);
                continue;
            };
            if to > from {
                wrong.push(arrow);
            }
        }
    }
    assert!(arrows > 100, "only {arrows} uses were found");
    assert!(wrong.is_empty(), "upward, or of something that is no module: {wrong:#?}");
}

#[test]
fn uses_are_found_however_they_are_written() {
    let source = "\
        use crate::key::{Key, KeyRange};\n\
        use crate::{\n    error::Error, // why\n    time,\n    rng::{Rng},\n};\n\
        use super::super::backoff::Backoff;\n\
        use super::sibling::Thing;\n\
        // use crate::comment::Not;\n\
        /// [`link`](crate::document::Not)\n\
        fn f(value: crate::inline::Value) { let codec = crate::codec::decode; }\n\
        use not_crate::other::Thing;\n\
        #[cfg(test)]\n\
        mod tests {\n    use crate::engine::Engine;\n}\n";
    let found = |path: &str| {
        let arrows = arrows_of(Path::new(path), source).into_iter();
        arrows.map(|arrow| (arrow.to, arrow.at)).collect::<Vec<_>>()
    };
    let at = |module: &str, line: u32| (module.to_owned(), format!("route/call.rs:{line}"));
    let expected = [
        at("key", 1),
        at("error", 2),
        at("time", 2),
        at("rng", 2),
        at("backoff", 7),
        at("inline", 11),
        at("codec", 11),
    ];
    assert_eq!(found("route/call.rs"), expected);
    let at_the_top: Vec<_> = found("route/mod.rs").into_iter().map(|(module, _)| module).collect();
    assert!(at_the_top.contains(&"sibling".to_owned()), "{at_the_top:?}");
    assert!(found("route/tests.rs").is_empty() && found("route/tests/call.rs").is_empty());
}

/// The modules of the table, from top to bottom and from left to right.
fn layers(lib: &str) -> Vec<String> {
    let rows = lib.lines().filter(|line| line.starts_with("//! | ") && line.contains("[`"));
    rows.flat_map(|row| row.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn declared_modules(lib: &str) -> impl Iterator<Item = String> + '_ {
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod ")));
    names.filter_map(|name| name.strip_suffix(';')).map(str::to_owned)
}

/// The modules that a file uses from outside its own.
fn arrows_of(file: &Path, text: &str) -> Vec<Arrow> {
    if is_test_code(file) {
        return Vec::new();
    }
    let path = module_path(file);
    // The rest of the file is its tests. Comments go, lines stay.
    let lines = text.lines().take_while(|line| !line.starts_with("mod tests {"));
    let code = lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let foreign = roots(&code, path.len()).into_iter().filter(|(to, _)| *to != path[0]);
    let arrow = |(to, start): (String, usize)| {
        let line = code[..start].matches('\n').count() + 1;
        Arrow { from: path[0].clone(), to, at: format!("{}:{line}", file.display()) }
    };
    foreign.map(arrow).collect()
}

fn is_test_code(file: &Path) -> bool {
    let is_test =
        |part: &str| part == "tests" || part == "tests.rs" || part == "script.rs" || part.ends_with("_tests.rs");
    file.iter().any(|part| part.to_str().is_some_and(is_test))
}

/// The module of a file, from the root of the crate.
fn module_path(file: &Path) -> Vec<String> {
    let without_extension = file.with_extension("");
    let parts = without_extension.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "mod").collect()
}

/// The modules at the root of the crate that are named by the code of a module of this depth, and where.
fn roots(code: &str, depth: usize) -> Vec<(String, usize)> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", &to_root] {
        for (start, _) in code.match_indices(prefix) {
            let before = code[..start].chars().next_back();
            // Part of a longer word, or of a longer way up.
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                continue;
            }
            found.extend(first_names(&code[start + prefix.len()..]).into_iter().map(|name| (name, start)));
        }
    }
    found.sort_by_key(|(_, start)| *start);
    found
}

/// The first name of a path, or those of all paths in a group.
fn first_names(rest: &str) -> Vec<String> {
    let name = |path: &str| path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                names.push(name(&group[start..index]));
                start = index + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    entries
        .into_iter()
        .flat_map(|path| if path.is_dir() { source_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("src/lib.rs"))
        .collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(source().join(name)).expect("text")
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
