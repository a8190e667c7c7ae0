//! How the cost of an operation grows with callers, connections and stores: our client over tokio on the null server.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error;
use std::fs;

use tikv_benches::curve::Curve;
use tikv_benches::plot::{Line, Plot, Point};
use tikv_benches::report::{Report, Section, Table};

use crate::arguments::Arguments;
use crate::figures::{Metric, Sample, Spread};
use crate::peer::Peer;
use crate::plan::{Case, duration};
use crate::results::digits;
use crate::server::{Server, ServerKind};

/// The metric of costs is told for 100,000 operations.
const MICROSECONDS_PER_CPU: f64 = 10.0;

/// What grows, and what is done meanwhile.
struct Sweep {
    title: &'static str,
    /// What there are more and more of.
    axis: &'static str,
    sizes: &'static [usize],
    lines: &'static [Workload],
}

/// One line of a plot.
struct Workload {
    name: &'static str,
    /// What is measured at a size.
    setting: fn(usize) -> Setting,
}

/// The circumstances of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Setting {
    workload: &'static str,
    callers: usize,
    /// To each store.
    connections: usize,
    stores: usize,
}

const fn raw_get(callers: usize) -> Setting {
    Setting { workload: "raw_get", callers, connections: 1, stores: 1 }
}

const SWEEPS: [Sweep; 3] = [
    Sweep {
        title: "An operation, by callers (one store, one connection)",
        axis: "callers",
        sizes: &[1, 4, 16, 64, 256, 1024, 4096],
        lines: &[
            Workload { name: "raw_get", setting: raw_get },
            Workload {
                name: "commit_1_2pc",
                setting: |callers| Setting { workload: "commit_1_2pc", ..raw_get(callers) },
            },
        ],
    },
    Sweep {
        title: "A raw get, by connections to the only store",
        axis: "connections",
        sizes: &[1, 2, 4, 8, 16],
        lines: &[
            Workload { name: "128 callers", setting: |connections| Setting { connections, ..raw_get(128) } },
            Workload { name: "512 callers", setting: |connections| Setting { connections, ..raw_get(512) } },
        ],
    },
    Sweep {
        title: "A raw get, by stores (one connection to each)",
        axis: "stores",
        sizes: &[1, 4, 16, 64, 256],
        lines: &[Workload { name: "512 callers", setting: |stores| Setting { stores, ..raw_get(512) } }],
    },
];

impl Setting {
    fn case(&self) -> Case {
        let (workload, peers) = (self.workload.to_owned(), vec![Peer::Tokio]);
        Case { server: ServerKind::Null, workload, callers: self.callers, peers }
    }

    fn measure(&self, arguments: &Arguments, server: &Server) -> Result<Sample, Box<dyn Error>> {
        let connections = self.connections.to_string();
        let sample = Peer::Tokio.measure_with(arguments, server.pd(), &self.case(), &[&connections])?;
        match sample.first_error {
            Some(error) => Err(format!("{} operations failed, the first: {error}", sample.errors).into()),
            None => Ok(sample),
        }
    }
}

/// All that is measured in a round: the sweep, the line and the size of each measurement.
fn steps() -> impl Iterator<Item = (Place, Setting)> {
    SWEEPS.iter().enumerate().flat_map(|(sweep, Sweep { sizes, lines, .. })| {
        lines.iter().enumerate().flat_map(move |(line, workload)| {
            sizes.iter().map(move |size| (Place { sweep, line, size: *size }, (workload.setting)(*size)))
        })
    })
}

/// Where a figure belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    sweep: usize,
    line: usize,
    size: usize,
}

/// The samples of all rounds.
#[derive(Debug, Default)]
struct Samples(BTreeMap<Place, Vec<Sample>>);

/// Measures, and tells.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let cases: Vec<Case> = steps().map(|(_, setting)| setting.case()).collect();
    eprintln!("this takes some {} minutes", duration(arguments, cases.iter()).as_secs().div_ceil(60));
    let samples = measure(arguments)?;
    let report = samples.report();
    let text = report.markdown();
    print!("{text}");
    if let Some(directory) = &arguments.output {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("scaling.md"), &text)?;
        fs::write(directory.join("scaling.html"), report.html())?;
    }
    if let Some(file) = &arguments.markdown {
        fs::write(file, text)?;
    }
    match cases.len() * arguments.rounds - samples.count() {
        0 => Ok(()),
        missing => Err(format!("{missing} measurements have failed: see above").into()),
    }
}

fn measure(arguments: &Arguments) -> Result<Samples, Box<dyn Error>> {
    let mut servers = BTreeMap::new();
    let mut samples = Samples::default();
    for round in 0..arguments.rounds {
        // No size is always measured before another one.
        let mut steps: Vec<_> = steps().collect();
        if round % 2 == 1 {
            steps.reverse();
        }
        for (place, setting) in steps {
            let server = match servers.entry(setting.stores) {
                Entry::Occupied(running) => running.into_mut(),
                Entry::Vacant(place) => place.insert(Server::with_stores(setting.stores, arguments)?),
            };
            let named = format!("{} {}, {} callers", SWEEPS[place.sweep].axis, place.size, setting.case());
            match setting.measure(arguments, server) {
                Ok(sample) => {
                    eprintln!("{named} {}", sample.summary());
                    samples.0.entry(place).or_default().push(sample);
                }
                Err(error) => eprintln!("{named} FAILED: {error}"),
            }
        }
    }
    Ok(samples)
}

impl Samples {
    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn figure(&self, place: Place, metric: Metric) -> Option<Spread> {
        Spread::of(self.0.get(&place)?.iter().filter_map(|sample| sample.get(metric)))
    }

    /// Microseconds of the processor for an operation.
    fn cost(&self, place: Place) -> Option<Spread> {
        let cpu = self.figure(place, Metric::Cpu)?;
        let scaled = |value: f64| value * MICROSECONDS_PER_CPU;
        Some(Spread { median: scaled(cpu.median), lowest: scaled(cpu.lowest), highest: scaled(cpu.highest) })
    }

    fn report(&self) -> Report {
        Report {
            title: "How the tikv client scales".to_owned(),
            lead: "Our client over tokio on the null server, which shares the processors with it. Points are medians of rounds, \
                   bars show the lowest and the highest round. Compare within a plot only."
                .to_owned(),
            sections: (0..SWEEPS.len()).map(|sweep| self.section(sweep)).collect(),
        }
    }

    fn section(&self, sweep: usize) -> Section {
        let Sweep { title, axis, lines, .. } = &SWEEPS[sweep];
        let plot = |title: &str, y: &str, figure: &dyn Fn(Place) -> Option<Spread>| Plot {
            title: title.to_owned(),
            x: (*axis).to_owned(),
            y: y.to_owned(),
            lines: (0..lines.len()).map(|line| self.line(sweep, line, figure)).collect(),
        };
        Section {
            title: (*title).to_owned(),
            table: self.table(sweep),
            plots: vec![
                plot("CPU time of an operation", "µs", &|place| self.cost(place)),
                plot("Throughput", "operations per second", &|place| self.figure(place, Metric::Throughput)),
            ],
            notes: (0..lines.len()).map(|line| self.note(sweep, line)).collect(),
        }
    }

    fn table(&self, sweep: usize) -> Table {
        let Sweep { axis, sizes, lines, .. } = &SWEEPS[sweep];
        let mut columns = vec![(*axis).to_owned()];
        for Workload { name, .. } in *lines {
            columns.extend([format!("{name}: CPU, µs"), "rounds".to_owned(), "operations/s".to_owned()]);
        }
        let row = |size: &usize| {
            let mut row = vec![size.to_string()];
            for line in 0..lines.len() {
                let place = Place { sweep, line, size: *size };
                let (cost, throughput) = (self.cost(place), self.figure(place, Metric::Throughput));
                row.push(cost.map_or_else(String::new, |cost| digits(cost.median)));
                row.push(
                    cost.map_or_else(String::new, |cost| format!("{} … {}", digits(cost.lowest), digits(cost.highest))),
                );
                row.push(throughput.map_or_else(String::new, |throughput| digits(throughput.median)));
            }
            row
        };
        Table { columns, rows: sizes.iter().map(row).collect() }
    }

    fn line(&self, sweep: usize, line: usize, figure: &dyn Fn(Place) -> Option<Spread>) -> Line {
        let Sweep { sizes, lines, .. } = &SWEEPS[sweep];
        let point = |size: &usize| {
            let Spread { median, lowest, highest } = figure(Place { sweep, line, size: *size })?;
            Some(Point { x: *size as f64, y: median, spread: (lowest, highest) })
        };
        Line { name: lines[line].name.to_owned(), points: sizes.iter().filter_map(point).collect() }
    }

    /// How the CPU time grows along a line.
    fn note(&self, sweep: usize, line: usize) -> String {
        let line = self.line(sweep, line, &|place| self.cost(place));
        let curve = Curve(line.points.iter().map(|point| (point.x, point.y)).collect());
        format!(
            "Exponent of the CPU time of {}: {:.2} (steepest step {:.2}).",
            line.name,
            curve.exponent(),
            curve.steepest()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tikv_bench_load as load;

    use super::*;

    /// Twice the cost for four times the size, in each line; the second of three rounds is a slow one.
    fn samples() -> Samples {
        let mut samples = Samples::default();
        for (place, _) in steps() {
            for slower in [1.0, 3.0, 1.5] {
                let cpu_seconds = 1e-3 * (place.size as f64).sqrt() * slower;
                let sample = Sample { operations: 1000, seconds: 1.0, cpu_seconds, ..Sample::default() };
                samples.0.entry(place).or_default().push(sample);
            }
        }
        samples
    }

    #[test]
    fn it_takes_less_than_three_minutes() {
        let arguments = Arguments::parse(&["--scaling".to_owned()]).expect("choices");
        let cases: Vec<Case> = steps().map(|(_, setting)| setting.case()).collect();
        let took = duration(&arguments, cases.iter());
        assert!(took < Duration::from_secs(3 * 60), "{took:?}");
    }

    #[test]
    fn every_sweep_changes_what_it_is_called_after_and_nothing_else() {
        for (place, setting) in steps() {
            let Setting { workload, callers, connections, stores } = setting;
            assert!(workload.parse::<load::Workload>().is_ok(), "{workload}");
            let sizes = match SWEEPS[place.sweep].axis {
                "callers" => (callers, connections, stores) == (place.size, 1, 1),
                "connections" => (connections, stores) == (place.size, 1),
                "stores" => (connections, stores) == (1, place.size),
                _ => false,
            };
            assert!(sizes, "{place:?} {setting:?}");
        }
    }

    #[test]
    fn the_report_has_medians_their_spread_and_exponents() {
        let text = samples().report().markdown();
        // At 16 callers an operation takes four times the 1, 3 and 1.5 µs that it takes at one.
        assert!(text.contains("\n| 16 | 6.00 | 4.00 … 12.0 | 1000 | 6.00 | 4.00 … 12.0 | 1000 |\n"), "{text}");
        assert_eq!(text.matches(": 0.50 (steepest step 0.50).").count(), 5, "{text}");
    }

    #[test]
    fn what_was_not_measured_is_missing_and_not_nought() {
        let mut samples = samples();
        samples.0.retain(|place, _| place.size != 64);
        let text = samples.report().markdown();
        assert!(text.contains("\n| 64 |  |  |  |  |  |  |\n"), "{text}");
        assert!(text.contains(": 0.50 (steepest step 0.50).") && samples.report().html().contains("<svg"));
    }
}
