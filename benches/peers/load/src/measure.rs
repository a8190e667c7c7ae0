//! Callers, and the line that tells of them.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{cpu_time, peak_bytes};
use crate::{Arguments, Histogram, Keys};

/// One caller, for the runtime to run.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why an operation failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the callers have seen.
struct Seen {
    /// Of those that ended within the time of measuring.
    took: Histogram,
    /// Those of the warm-up included.
    operations: AtomicU64,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
    measured_from: Instant,
    ends: Instant,
}

/// One caller's client and choices.
pub trait Caller: Send + 'static {
    /// Does the workload's operation once.
    fn operate(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Starts the callers, waits, and prints the line of figures. Must not be called on a thread that the callers need.
pub fn measure<C: Caller>(arguments: &Arguments, spawn: impl Fn(Task), caller: impl Fn(Keys) -> C) {
    let measured_from = Instant::now() + arguments.warm_up;
    let seen = Arc::new(Seen {
        took: Histogram::default(),
        operations: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        first_error: Mutex::default(),
        measured_from,
        ends: measured_from + arguments.duration,
    });
    for number in 0..arguments.callers {
        spawn(Box::pin(run(Arc::clone(&seen), caller(Keys::new(number)))));
    }
    std::thread::sleep(arguments.warm_up);
    let (from, cpu_from) = (Instant::now(), cpu_time());
    std::thread::sleep(arguments.duration);
    let (elapsed, cpu) = (from.elapsed(), cpu_time() - cpu_from);
    print(&seen, elapsed, cpu);
}

async fn run(seen: Arc<Seen>, mut caller: impl Caller) {
    let mut began = Instant::now();
    while began < seen.ends {
        let result = caller.operate().await;
        let ended = Instant::now();
        seen.note(began, ended, result);
        began = ended;
    }
}

impl Seen {
    fn note(&self, began: Instant, ended: Instant, result: Result<(), impl Display>) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            self.errors.fetch_add(1, Ordering::Relaxed);
            self.first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        } else if self.measured_from <= ended && ended < self.ends {
            self.took.record(ended - began);
        }
    }
}

#[expect(clippy::print_stdout, reason = "the line is for whoever started this process")]
fn print(seen: &Seen, elapsed: Duration, cpu: Duration) {
    let first_error = seen.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let line = json!({
        "operations": seen.took.count(),
        "all_operations": seen.operations.load(Ordering::Relaxed),
        "seconds": elapsed.as_secs_f64(),
        "cpu_seconds": cpu.as_secs_f64(),
        "p50_us": seen.took.quantile_us(0.5),
        "p99_us": seen.took.quantile_us(0.99),
        "p999_us": seen.took.quantile_us(0.999),
        "peak_bytes": peak_bytes(),
        "errors": seen.errors.load(Ordering::Relaxed),
        "first_error": first_error,
    });
    println!("{line}");
}
