//! What operations cost, and the file in which that is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::num::ParseFloatError;
use std::str::FromStr;

/// How often a benchmark repeats its operation.
pub const REPEATS: usize = 256;

const COLUMNS: &str = "operation\tinstructions\tallocations\tbytes";
const ENVIRONMENT: &str = "# environment: ";
const HEADER: &str = "\
# What an operation of core costs by itself. Written by `benches/micro/run --update`; benches/README.md tells how to read it.
# Instructions depend on what follows: where it differs they are not judged.";

/// What one operation costs, each to two decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Instructions of the processor.
    pub instructions: f64,
    /// Blocks taken from the allocator; one that grows is counted again.
    pub allocations: f64,
    /// Bytes of these blocks.
    pub bytes: f64,
}

/// What every operation costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Compiler, processor and whatever else instructions depend on.
    pub environment: String,
    /// By the operation's name.
    pub operations: BTreeMap<String, Figures>,
}

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub enum BadRecord {
    /// There is no line that names compiler and processor.
    NoEnvironment,
    /// The names of the columns are missing.
    NoColumns,
    /// A line has more or fewer columns than that.
    Columns(String),
    /// Something that is no number where one belongs.
    Number(String),
    /// An operation that is there twice.
    Twice(String),
}

impl Figures {
    /// The cost of one operation, from that of all repetitions.
    #[must_use]
    pub fn of_one(instructions: u64, allocations: u64, bytes: u64) -> Self {
        let one = |all: u64| (all as f64 / REPEATS as f64 * 100.0).round() / 100.0;
        Figures { instructions: one(instructions), allocations: one(allocations), bytes: one(bytes) }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\n{ENVIRONMENT}{}\n{COLUMNS}", self.environment)?;
        for (name, Figures { instructions, allocations, bytes }) in &self.operations {
            writeln!(f, "{name}\t{instructions:.2}\t{allocations:.2}\t{bytes:.2}")?;
        }
        Ok(())
    }
}

impl FromStr for Record {
    type Err = BadRecord;

    fn from_str(text: &str) -> Result<Self, BadRecord> {
        let environment = text.lines().find_map(|line| line.strip_prefix(ENVIRONMENT));
        let environment = environment.ok_or(BadRecord::NoEnvironment)?.to_owned();
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        if lines.next() != Some(COLUMNS) {
            return Err(BadRecord::NoColumns);
        }
        let mut operations = BTreeMap::new();
        for line in lines {
            let columns: Vec<_> = line.split('\t').collect();
            let [name, instructions, allocations, bytes] = columns[..] else {
                return Err(BadRecord::Columns(line.to_owned()));
            };
            let number = |text: &str| text.parse().map_err(|_: ParseFloatError| BadRecord::Number(text.to_owned()));
            let figures = Figures {
                instructions: number(instructions)?,
                allocations: number(allocations)?,
                bytes: number(bytes)?,
            };
            if operations.insert(name.to_owned(), figures).is_some() {
                return Err(BadRecord::Twice(name.to_owned()));
            }
        }
        Ok(Record { environment, operations })
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRecord::NoEnvironment => write!(f, "no line begins with `{ENVIRONMENT}`"),
            BadRecord::NoColumns => write!(f, "the columns have no names"),
            BadRecord::Columns(line) => write!(f, "not four columns: `{line}`"),
            BadRecord::Number(text) => write!(f, "not a number: `{text}`"),
            BadRecord::Twice(name) => write!(f, "`{name}` is there twice"),
        }
    }
}

impl std::error::Error for BadRecord {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let figures = Figures::of_one(640_001, 2_304, 100_000);
        assert_eq!(figures, Figures { instructions: 2_500.0, allocations: 9.0, bytes: 390.63 });
        let operations = BTreeMap::from([("raw_get".to_owned(), figures), ("raw_put".to_owned(), Figures::default())]);
        let record = Record { environment: "rustc 1.95.0; x86_64".to_owned(), operations };
        assert_eq!(record.to_string().parse(), Ok(record));
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let read = |rows: &str| format!("{ENVIRONMENT}here\n{rows}").parse::<Record>();
        assert_eq!("".parse::<Record>(), Err(BadRecord::NoEnvironment));
        assert_eq!(read("raw_get\t1\t2\t3"), Err(BadRecord::NoColumns));
        let read = |rows: &str| read(&format!("{COLUMNS}\n{rows}"));
        assert_eq!(read("raw_get\t1\t2"), Err(BadRecord::Columns("raw_get\t1\t2".to_owned())));
        assert_eq!(read("raw_get\t1\t2\tx"), Err(BadRecord::Number("x".to_owned())));
        assert_eq!(read("a\t1\t2\t3\na\t1\t2\t3"), Err(BadRecord::Twice("a".to_owned())));
        assert_eq!(read("").map(|record| record.operations.len()), Ok(0));
    }
}
