//! How what core does grows with what it knows, and what that takes in memory: prints tables in Markdown, and plots them on a
//! page (`--report FILE`).
//!
//! Every point is measured by a process of its own, this program with a workload and a size as arguments: once by itself, for
//! processor time and memory, and once under valgrind, if there is one, for instructions.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use tikv_benches::curve::Curve;
use tikv_benches::keys;
use tikv_benches::plot::{Line, Plot, Point};
use tikv_benches::process::{Clock, resident_bytes};
use tikv_benches::report::{Report, Section, Table};
use tikv_benches::running::Running;
use tikv_benches::stream::Stream;
use tikv_benches::world::{Size, World};
use tikv_core::keyspace::KeyCodec;

/// Work that is over quickly is repeated for this long.
const LONG_ENOUGH: Duration = Duration::from_millis(300);
/// At least so many operations are measured together.
const COUNTED: u64 = 1_000;

/// What is done at several sizes.
struct Workload {
    name: &'static str,
    title: &'static str,
    /// What there are more and more of.
    axis: &'static str,
    sizes: &'static [u64],
    measure: fn(u64, Extent) -> Measured,
}

const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "regions",
        title: "A raw get, by regions known",
        axis: "regions",
        sizes: &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
        measure: |regions, extent| raw_gets(Size { regions, stores: 3 }, extent),
    },
    Workload {
        name: "stores",
        title: "A raw get, by stores known (1,000 regions)",
        axis: "stores",
        sizes: &[1, 4, 16, 64, 256],
        measure: |stores, extent| raw_gets(Size { regions: 1_000, stores }, extent),
    },
    Workload {
        name: "keys",
        title: "A key of a transaction committed in two phases, by keys (100 regions)",
        axis: "keys",
        sizes: &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
        measure: commits,
    },
    Workload {
        name: "operations",
        title: "A raw get in the engine, by operations in flight",
        axis: "operations",
        sizes: &[1, 16, 256, 4_096, 100_000],
        measure: operations,
    },
];

/// What a client holds many of.
struct Holding {
    name: &'static str,
    title: &'static str,
    count: u64,
    /// Bytes of resident memory for each of so many.
    bytes: fn(u64) -> f64,
}

const HOLDINGS: [Holding; 4] = [
    Holding {
        name: "held_regions",
        title: "region of three replicas, by a client that knows 1,000 stores",
        count: 1_000_000,
        bytes: |regions| held(regions, || World::new(KeyCodec::Raw, Size { regions, stores: 1_000 })),
    },
    Holding {
        name: "held_stores",
        title: "store",
        count: 100_000,
        bytes: |stores| held(stores, || World::new(KeyCodec::Raw, Size { regions: 1, stores })),
    },
    Holding {
        name: "held_operations",
        title: "raw get in flight in the engine, its call handed out",
        count: 100_000,
        bytes: |operations| held(operations, || Running::new(operations as usize)),
    },
    Holding {
        name: "held_calls",
        title: "call in flight in a stream of batches, its frame written",
        count: 100_000,
        bytes: |calls| held(calls, || Stream::sent(calls as usize)),
    },
];

/// How much is measured.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// Operations whose instructions somebody counts.
    Counted,
    /// As many as it takes for processor time.
    Timed,
}

/// Operations that were measured, and how long they took.
struct Measured {
    operations: u64,
    time: Duration,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let reported = match args[..] {
        [] => report(None),
        ["--report", file] => report(Some(file)),
        ["--point", name, size, extent] => {
            point(name, size.parse().unwrap_or(1), extent);
            Ok(())
        }
        _ => Err(io::Error::other("usage: scaling [--report FILE]")),
    };
    match reported {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints each table as soon as it is known; all takes minutes.
fn report(file: Option<&str>) -> io::Result<()> {
    let mut report = Report {
        title: "How core scales".to_owned(),
        lead: "Core by itself, without I/O: what one operation costs where a client knows or does more and more. A straight line \
               is a power of the size."
            .to_owned(),
        sections: Vec::new(),
    };
    let measured = WORKLOADS.iter().map(growth).chain(std::iter::once_with(memory));
    for section in measured {
        print!("{}", section.markdown());
        report.sections.push(section);
    }
    match file {
        Some(file) => fs::write(file, report.html()),
        None => Ok(()),
    }
}

fn growth(workload: &Workload) -> Section {
    let curve = |extent| {
        let cost = |size: &u64| (*size as f64, child(workload.name, *size, extent).unwrap_or(f64::NAN));
        Curve(workload.sizes.iter().map(cost).collect())
    };
    let (instructions, nanoseconds) = (curve(Extent::Counted), curve(Extent::Timed));
    let row = |((size, counted), (_, timed)): (&(f64, f64), &(f64, f64))| {
        [size, counted, timed].map(|figure| format!("{figure:.0}")).to_vec()
    };
    let line = |name: &str, curve: &Curve| Line {
        name: format!("{name}: exponent {:.2}", curve.exponent()),
        points: curve.0.iter().map(|(size, cost)| Point::single(*size, *cost)).collect(),
    };
    let plot = Plot {
        title: "What one costs".to_owned(),
        x: workload.axis.to_owned(),
        y: "instructions, ns".to_owned(),
        lines: vec![line("instructions", &instructions), line("nanoseconds of the processor", &nanoseconds)],
    };
    Section {
        title: workload.title.to_owned(),
        table: Table {
            columns: [workload.axis, "instructions", "ns"].map(str::to_owned).to_vec(),
            rows: instructions.0.iter().zip(&nanoseconds.0).map(row).collect(),
        },
        plots: vec![plot],
        notes: vec![format!(
            "Exponent: {:.2} of instructions (steepest step {:.2}), {:.2} of time (steepest step {:.2}).",
            instructions.exponent(),
            instructions.steepest(),
            nanoseconds.exponent(),
            nanoseconds.steepest()
        )],
    }
}

fn memory() -> Section {
    let row = |Holding { name, title, count, .. }: &Holding| {
        let bytes = child(name, *count, Extent::Timed).unwrap_or(f64::NAN);
        vec![(*title).to_owned(), count.to_string(), format!("{bytes:.0}")]
    };
    Section {
        title: "Resident memory".to_owned(),
        table: Table {
            columns: ["one of many", "how many", "bytes"].map(str::to_owned).to_vec(),
            rows: HOLDINGS.iter().map(row).collect(),
        },
        ..Section::default()
    }
}

/// What one operation costs, measured by another process: instructions or nanoseconds, or bytes.
fn child(name: &str, size: u64, extent: Extent) -> Option<f64> {
    let program = std::env::current_exe().ok()?;
    let mut command = match extent {
        Extent::Timed => Command::new(&program),
        Extent::Counted => {
            let mut command = Command::new("valgrind");
            command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=scaling::repeat*"]);
            command.arg(&program);
            command
        }
    };
    let extent_name = if extent == Extent::Counted { "counted" } else { "timed" };
    let output = command.args(["--point", name, &size.to_string(), extent_name]).output().ok()?;
    let printed: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
    match extent {
        Extent::Timed => Some(printed),
        // The program says how many operations there were, valgrind what they cost together.
        Extent::Counted => {
            let log = String::from_utf8_lossy(&output.stderr);
            let collected = log.lines().find_map(|line| line.split_once("Collected :"))?.1.trim();
            Some(collected.parse::<f64>().ok()? / printed)
        }
    }
}

fn point(name: &str, size: u64, extent: &str) {
    if let Some(holding) = HOLDINGS.iter().find(|holding| holding.name == name) {
        println!("{}", (holding.bytes)(size));
        return;
    }
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else { return };
    if extent == "counted" {
        println!("{}", (workload.measure)(size, Extent::Counted).operations);
    } else {
        let point = (workload.measure)(size, Extent::Timed);
        println!("{}", point.time.as_nanos() as f64 / point.operations as f64);
    }
}

fn raw_gets(size: Size, extent: Extent) -> Measured {
    let mut world = World::new(KeyCodec::Raw, size);
    let keys = keys::random(100_000);
    let mut next = keys.iter().cycle();
    measure(extent, 1, || next.next().is_some_and(|key| world.raw_get(key)))
}

fn commits(count: u64, extent: Extent) -> Measured {
    let mut world = World::new(KeyCodec::Txn, Size { regions: 100, stores: 3 });
    let keys = keys::spread(count);
    measure(extent, count, || world.commit(&keys))
}

fn operations(count: u64, extent: Extent) -> Measured {
    let mut running = Running::new(count as usize);
    measure(extent, 1, || running.replace())
}

/// Repeats work of so many operations.
fn measure(extent: Extent, operations: u64, mut work: impl FnMut() -> bool) -> Measured {
    let batch = COUNTED.div_ceil(operations);
    let clock = Clock::new();
    let (start, mut done) = (clock.now(), 0);
    loop {
        repeat(batch, &mut work);
        done += batch * operations;
        if extent == Extent::Counted || clock.now() - start >= LONG_ENOUGH {
            return Measured { operations: done, time: clock.now() - start };
        }
    }
}

/// Instructions are counted in here.
#[inline(never)]
fn repeat(times: u64, work: &mut impl FnMut() -> bool) {
    for _ in 0..times {
        assert!(work(), "an operation failed");
    }
}

/// Bytes for each of so many.
fn held<T>(count: u64, make: impl FnOnce() -> T) -> f64 {
    let before = resident_bytes();
    let made = black_box(make());
    let bytes = resident_bytes().saturating_sub(before);
    drop(made);
    bytes as f64 / count as f64
}
