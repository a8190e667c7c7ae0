//! Figures, medians and ratios.

use serde_json::Value;

use crate::results::digits;

/// What one run of a peer has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) operations: u64,
    /// Those of the warm-up included.
    pub(crate) all_operations: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) peak_bytes: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Of the whole run, both directions; `None` where the server does not count.
    pub(crate) wire_bytes: Option<u64>,
}

/// What samples are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Operations a second.
    Throughput,
    /// Seconds of the processor for 100,000 operations.
    Cpu,
    /// Latencies, in microseconds.
    P50,
    P99,
    P999,
    /// The peak of the process, in MiB.
    Memory,
    /// Bytes on the wire for one operation.
    Wire,
}

impl Metric {
    pub(crate) const ALL: [Metric; 7] =
        [Metric::Throughput, Metric::Cpu, Metric::P50, Metric::P99, Metric::P999, Metric::Memory, Metric::Wire];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Metric::Throughput => "throughput",
            Metric::Cpu => "cpu",
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::P999 => "p99.9",
            Metric::Memory => "memory",
            Metric::Wire => "wire",
        }
    }

    /// With its unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Metric::Throughput => "operations per second",
            Metric::Cpu => "CPU seconds per 100,000 operations",
            Metric::P50 => "p50, µs",
            Metric::P99 => "p99, µs",
            Metric::P999 => "p99.9, µs",
            Metric::Memory => "peak memory, MiB",
            Metric::Wire => "bytes on the wire per operation",
        }
    }
}

impl Sample {
    /// Reads the line of a peer.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let fields: Value = serde_json::from_str(line).map_err(|error| format!("{error} in: {line}"))?;
        let float = |name: &str| fields[name].as_f64().ok_or_else(|| format!("no {name} in: {line}"));
        let count = |name: &str| fields[name].as_u64().ok_or_else(|| format!("no {name} in: {line}"));
        Ok(Sample {
            operations: count("operations")?,
            all_operations: count("all_operations")?,
            seconds: float("seconds")?,
            cpu_seconds: float("cpu_seconds")?,
            p50_us: float("p50_us")?,
            p99_us: float("p99_us")?,
            p999_us: float("p999_us")?,
            peak_bytes: count("peak_bytes")?,
            errors: count("errors")?,
            first_error: fields["first_error"].as_str().map(str::to_owned),
            wire_bytes: None,
        })
    }

    /// `None` where nothing was done, or nobody counted.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        if self.operations == 0 {
            return None;
        }
        let operations = self.operations as f64;
        match metric {
            Metric::Throughput => Some(operations / self.seconds),
            Metric::Cpu => Some(self.cpu_seconds / operations * 1e5),
            Metric::P50 => Some(self.p50_us),
            Metric::P99 => Some(self.p99_us),
            Metric::P999 => Some(self.p999_us),
            Metric::Memory => Some(self.peak_bytes as f64 / f64::from(1 << 20)),
            Metric::Wire => Some(self.wire_bytes? as f64 / self.all_operations as f64),
        }
    }

    /// In a few words, errors included.
    pub(crate) fn summary(&self) -> String {
        let told = |metric| self.get(metric).map_or_else(|| "-".to_owned(), digits);
        let figures = format!("{}/s cpu {} p50 {}", told(Metric::Throughput), told(Metric::Cpu), told(Metric::P50));
        match &self.first_error {
            Some(error) => format!("{figures}, {} ERRORS, the first: {error}", self.errors),
            None => figures,
        }
    }
}

/// The middle of some values, and between which they lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Spread { median, lowest, highest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        let spread =
            |values: &[f64]| Spread::of(values.to_vec()).map(|spread| (spread.lowest, spread.median, spread.highest));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN]), None);
        assert_eq!(spread(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
        assert_eq!(spread(&[9.0, 1.0, 4.0, 2.0]), Some((1.0, 3.0, 9.0)));
    }

    #[test]
    fn a_line_becomes_figures_per_operation() {
        let line = r#"{"operations":2000,"all_operations":4000,"seconds":0.5,"cpu_seconds":0.01,"p50_us":10.5,"p99_us":20.0,
            "p999_us":30.0,"peak_bytes":2097152,"errors":0,"first_error":null}"#;
        let sample = Sample { wire_bytes: Some(400_000), ..Sample::parse(line).expect("a line") };
        let figures = Metric::ALL.map(|metric| sample.get(metric));
        assert_eq!(figures, [4000.0, 0.5, 10.5, 20.0, 30.0, 2.0, 100.0].map(Some));
    }

    #[test]
    fn nothing_follows_from_no_operation() {
        assert_eq!(Sample::default().get(Metric::Cpu), None);
        assert!(Sample::parse("{}").is_err() && Sample::parse("panic!").is_err());
    }
}
