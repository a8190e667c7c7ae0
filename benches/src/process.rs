//! What the kernel tells of this process. Linux; elsewhere less.

use std::time::{Duration, Instant};

/// Time that the first thread of the program had a processor, so that other programs disturb less; time that passed where the
/// kernel does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock.
    #[must_use]
    pub fn new() -> Self {
        Clock(Instant::now())
    }

    /// The time since some moment in the past.
    #[must_use]
    pub fn now(&self) -> Duration {
        let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        let on_cpu = stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok());
        on_cpu.map_or_else(|| self.0.elapsed(), Duration::from_nanos)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

/// Bytes of memory that the program holds; 0 where the kernel does not tell.
#[must_use]
pub fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).map_or(0, |pages| pages * PAGE_BYTES)
}
