//! What a run is like, apart from its faults: how large, how fast, and with which settings.

use std::fmt;
use std::time::Duration;

use tikv_core::config::Config;
use tikv_core::rng::Rng;

use super::workload::WorkloadKind;

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $min:literal..=$max:literal;)+) => {
        /// What a run is like. All of it follows from the seed, and all of it is shown.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct Options {
            $($(#[$doc])* pub $name: u32,)+
        }

        impl Options {
            /// How many numbers it is.
            pub(super) const WORDS: usize = [$(stringify!($name)),+].len();

            /// All numbers, in order.
            pub(super) fn words(&self) -> [u32; Options::WORDS] {
                [$(self.$name),+]
            }

            /// What they are called, in order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Sets the option of this name, within its bounds.
            ///
            /// # Errors
            ///
            /// If there is no option of this name.
            pub fn set(&mut self, name: &str, value: u32) -> Result<(), UnknownOption> {
                match name {
                    $(stringify!($name) => self.$name = value.clamp($min, $max),)+
                    _ => return Err(UnknownOption(name.to_owned())),
                }
                Ok(())
            }

            /// The option of this name.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u32> {
                Options::NAMES.iter().zip(self.words()).find(|(known, _)| **known == name).map(|(_, value)| value)
            }

            /// The options of these numbers, each brought within its bounds.
            pub(super) fn of_words(words: [u32; Options::WORDS]) -> Self {
                let [$($name),+] = words;
                Options { $($name: $name.clamp($min, $max),)+ }
            }
        }

        impl fmt::Display for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut separator = "";
                for (name, value) in [$(stringify!($name)),+].iter().zip(self.words()) {
                    write!(f, "{separator}{name}={value}")?;
                    separator = " ";
                }
                Ok(())
            }
        }
    };
}

options! {
    /// Clients, each with an engine of its own.
    clients: 1..=16;
    /// Transactions that a client runs at once.
    sessions: 1..=64;
    /// Stores.
    stores: 1..=16;
    /// Stores on which each region lies.
    replicas: 1..=7;
    /// Regions at the beginning.
    regions: 1..=256;
    /// Members of PD.
    pd_members: 1..=7;
    /// Keys of the workload; fewer keys, more conflicts.
    keys: 2..=4096;
    /// Transactions (or raw calls) after which no new one is begun.
    transactions: 1..=100_000_000;
    /// The least time that a message takes, in µs.
    latency_us: 1..=200_000;
    /// What may come on top of it at random, in µs.
    jitter_us: 0..=200_000;
    /// The longest pause between two transactions of a session, in µs.
    think_us: 0..=10_000_000;
    /// The time after which a connection on which nothing comes is broken off, in ms.
    connection_timeout_ms: 10..=1_000_000;
    /// How many transactions in a thousand may commit asynchronously.
    async_commit_permille: 0..=1000;
    /// How many may commit in one phase.
    one_phase_permille: 0..=1000;
    /// How many need no order in real time.
    causal_permille: 0..=1000;
    /// See [`Config::async_commit_max_keys`].
    async_commit_max_keys: 0..=1024;
    /// See [`Config::async_commit_safe_window`], in ms.
    async_commit_safe_window_ms: 0..=1_000_000;
    /// How many operations in a thousand have a deadline.
    deadline_permille: 0..=1000;
    /// How far off a deadline is at most, in ms.
    deadline_ms: 1..=1_000_000;
    /// How far the clocks of clients are apart at most, in ms.
    clock_skew_ms: 0..=100_000_000;
    /// How much faster or slower than another a clock may be, in millionths.
    clock_drift_ppm: 0..=500_000;
    /// See [`Config::call_timeout`], in ms.
    call_timeout_ms: 1..=1_000_000;
    /// See [`Config::pd_timeout`], in ms.
    pd_timeout_ms: 10..=1_000_000;
    /// See [`Config::lock_ttl`], in ms.
    lock_ttl_ms: 1..=1_000_000;
    /// See [`Config::managed_lock_ttl`], in ms.
    managed_lock_ttl_ms: 1..=1_000_000;
    /// See [`Config::heartbeat_txn_bytes`].
    heartbeat_txn_bytes: 0..=100_000_000;
    /// See [`Config::txn_batch_bytes`].
    txn_batch_bytes: 1..=1_000_000;
    /// See [`Config::operation_concurrency`].
    operation_concurrency: 1..=1024;
    /// See [`Config::scan_batch_size`].
    scan_batch_size: 1..=10_000;
    /// See [`Config::batch_get_size`].
    batch_get_size: 1..=10_000;
    /// See [`Config::resolved_lock_cache_size`].
    resolved_lock_cache_size: 1..=10_000;
    /// See [`Config::region_ttl`], in ms.
    region_ttl_ms: 1..=10_000_000;
    /// See [`Config::tso_batch_limit`].
    tso_batch_limit: 1..=100_000;
    /// See [`Config::backoff_weight`].
    backoff_weight: 1..=10;
    /// How many transactions in a thousand lock what they read, of workloads whose transactions can.
    pessimistic_permille: 0..=1000;
    /// How many of these lock fairly.
    fair_permille: 0..=1000;
    /// How many of these share the locks of what they only read.
    shared_permille: 0..=1000;
    /// How many transactions in a thousand are pipelined.
    pipelined_permille: 0..=1000;
    /// See [`Config::pre_split_keys`].
    pre_split_keys: 1..=100_000_000;
    /// See [`Config::pre_split_bytes`].
    pre_split_bytes: 1..=100_000_000;
    /// How often in a thousand turns a session resolves all old locks, as garbage collection does, instead of a transaction.
    sweep_permille: 0..=1000;
    /// How many transactions in a thousand ask their owners whether they may commit.
    ask_owner_permille: 0..=1000;
}

/// A name that is no option's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no option {0}; there are {names}", names = Options::NAMES.join(", "))]
pub struct UnknownOption(String);

impl Options {
    /// Options at random. Without faults nothing is set such that operations fail by themselves.
    pub(super) fn draw(rng: &mut Rng, workload: WorkloadKind, with_faults: bool) -> Self {
        let default = Options::of_config(&Config::default());
        let mut draw = Draw(rng);
        let is_large = workload == WorkloadKind::Large;
        let mut options = Options {
            clients: draw.between(1, 5),
            sessions: draw.between(1, 6),
            stores: draw.between(1, 5),
            replicas: draw.one_of(&[1, 3, 3, 3, 5]),
            regions: draw.log(1, if is_large { 64 } else { 16 }),
            pd_members: draw.one_of(&[1, 3, 3]),
            keys: if is_large { draw.log(32, 512) } else { draw.log(2, 64) },
            latency_us: draw.log(20, 2_000),
            jitter_us: draw.log(1, 5_000),
            think_us: draw.one_of(&[0, 0, 1_000, 50_000, 1_000_000]),
            clock_skew_ms: draw.one_of(&[0, 100, 10_000, 1_000_000]),
            async_commit_permille: draw.one_of(&[0, 500, 1_000]),
            one_phase_permille: draw.one_of(&[0, 0, 300, 1_000]),
            causal_permille: draw.one_of(&[0, 0, 500]),
            ..default
        };
        // Each setting by itself may be an unusual one.
        let max_keys = draw.log(1, 32);
        draw.sometimes(&mut options.async_commit_max_keys, max_keys);
        let safe_window = draw.log(1, 2_000);
        draw.sometimes(&mut options.async_commit_safe_window_ms, safe_window);
        let batch_bytes = draw.log(1, 2_000);
        draw.sometimes(&mut options.txn_batch_bytes, batch_bytes);
        let concurrency = draw.log(1, 16);
        draw.sometimes(&mut options.operation_concurrency, concurrency);
        let scan_batch_size = draw.log(1, 16);
        draw.sometimes(&mut options.scan_batch_size, scan_batch_size);
        let batch_get_size = draw.log(1, 16);
        draw.sometimes(&mut options.batch_get_size, batch_get_size);
        let cache_size = draw.log(1, 16);
        draw.sometimes(&mut options.resolved_lock_cache_size, cache_size);
        let tso_batch_limit = draw.log(1, 8);
        draw.sometimes(&mut options.tso_batch_limit, tso_batch_limit);
        let heartbeat_bytes = draw.log(1, 1_000);
        draw.sometimes(&mut options.heartbeat_txn_bytes, heartbeat_bytes);
        if with_faults {
            draw.unreliable(&mut options);
        }
        if workload.may_lock() {
            options.pessimistic_permille = draw.one_of(&[0, 300, 1_000]);
            options.fair_permille = draw.one_of(&[0, 500, 1_000]);
            options.shared_permille = draw.one_of(&[0, 500, 1_000]);
        }
        options.pipelined_permille = draw.one_of(&[0, 0, 300, 1_000]);
        let (pre_split_keys, pre_split_bytes) = (draw.log(2, 32), draw.log(1, 1_000));
        draw.sometimes(&mut options.pre_split_keys, pre_split_keys);
        draw.sometimes(&mut options.pre_split_bytes, pre_split_bytes);
        options.sweep_permille = draw.one_of(&[0, 0, 0, 20]);
        options.ask_owner_permille = draw.one_of(&[0, 0, 0, 300]);
        options
    }

    fn of_config(config: &Config) -> Self {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Options {
            clients: 3,
            sessions: 3,
            stores: 3,
            replicas: 3,
            regions: 4,
            pd_members: 1,
            keys: 16,
            transactions: Options::DEFAULT_TRANSACTIONS,
            latency_us: 500,
            jitter_us: 500,
            think_us: 0,
            connection_timeout_ms: 10_000,
            async_commit_permille: 0,
            one_phase_permille: 0,
            causal_permille: 0,
            async_commit_max_keys: count(config.async_commit_max_keys),
            async_commit_safe_window_ms: ms(config.async_commit_safe_window),
            deadline_permille: 0,
            deadline_ms: 10_000,
            clock_skew_ms: 0,
            clock_drift_ppm: 0,
            call_timeout_ms: ms(config.call_timeout),
            pd_timeout_ms: ms(config.pd_timeout),
            lock_ttl_ms: ms(config.lock_ttl),
            managed_lock_ttl_ms: ms(config.managed_lock_ttl),
            heartbeat_txn_bytes: count(config.heartbeat_txn_bytes as usize),
            txn_batch_bytes: count(config.txn_batch_bytes),
            operation_concurrency: count(config.operation_concurrency),
            scan_batch_size: config.scan_batch_size,
            batch_get_size: count(config.batch_get_size),
            resolved_lock_cache_size: count(config.resolved_lock_cache_size),
            region_ttl_ms: ms(config.region_ttl),
            tso_batch_limit: config.tso_batch_limit,
            backoff_weight: config.backoff_weight,
            pessimistic_permille: 0,
            fair_permille: 0,
            shared_permille: 0,
            pipelined_permille: 0,
            pre_split_keys: count(config.pre_split_keys),
            pre_split_bytes: count(config.pre_split_bytes as usize),
            sweep_permille: 0,
            ask_owner_permille: 0,
        }
    }

    /// How many transactions a run has unless it is told otherwise.
    pub const DEFAULT_TRANSACTIONS: u32 = 300;

    /// The settings of the clients.
    #[must_use]
    pub fn config(&self) -> Config {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        let mut config = Config::default();
        config.call_timeout = ms(self.call_timeout_ms);
        config.batch_call_timeout = ms(self.call_timeout_ms.saturating_mul(2));
        config.pd_timeout = ms(self.pd_timeout_ms);
        config.async_commit_max_keys = self.async_commit_max_keys as usize;
        config.async_commit_safe_window = ms(self.async_commit_safe_window_ms);
        config.lock_ttl = ms(self.lock_ttl_ms);
        config.managed_lock_ttl = ms(self.managed_lock_ttl_ms);
        config.heartbeat_txn_bytes = self.heartbeat_txn_bytes.into();
        config.txn_batch_bytes = self.txn_batch_bytes as usize;
        config.operation_concurrency = self.operation_concurrency as usize;
        config.scan_batch_size = self.scan_batch_size;
        config.batch_get_size = self.batch_get_size as usize;
        config.resolved_lock_cache_size = self.resolved_lock_cache_size as usize;
        config.region_ttl = ms(self.region_ttl_ms);
        config.tso_batch_limit = self.tso_batch_limit;
        config.backoff_weight = self.backoff_weight;
        config.pre_split_keys = self.pre_split_keys as usize;
        config.pre_split_bytes = self.pre_split_bytes.into();
        config
    }

    /// The settings of the auditor, who has time.
    pub(super) fn patient_config(&self) -> Config {
        let default = Config::default();
        let mut config = self.config();
        config.call_timeout = default.call_timeout;
        config.batch_call_timeout = default.batch_call_timeout;
        config.pd_timeout = default.pd_timeout;
        config.backoff_weight = default.backoff_weight;
        config
    }

    /// Whether nothing fails for lack of time as long as nothing goes wrong.
    pub(super) fn is_patient(&self) -> bool {
        let patient = Options::of_config(&self.patient_config());
        self.call_timeout_ms >= patient.call_timeout_ms && self.pd_timeout_ms >= patient.pd_timeout_ms
    }

    /// About how long the transactions take without faults, in µs.
    pub(super) fn expected_us(&self) -> u64 {
        const ROUND_TRIPS: u64 = 7;
        let round_trip = 2 * u64::from(self.latency_us) + u64::from(self.jitter_us);
        let one = ROUND_TRIPS * round_trip + u64::from(self.think_us) / 2;
        one * u64::from(self.transactions) / u64::from(self.clients * self.sessions) + one
    }
}

struct Draw<'a>(&'a mut Rng);

impl Draw<'_> {
    fn between(&mut self, least: u32, most: u32) -> u32 {
        self.0.range(u64::from(least)..u64::from(most) + 1) as u32
    }

    /// Small numbers as often as large ones, of whatever order.
    fn log(&mut self, least: u32, most: u32) -> u32 {
        log_uniform(self.0, least, most)
    }

    fn one_of(&mut self, choices: &[u32]) -> u32 {
        let index = self.0.below(choices.len() as u64) as usize;
        choices.get(index).copied().unwrap_or_default()
    }

    fn sometimes(&mut self, option: &mut u32, unusual: u32) {
        if self.0.below(3) == 0 {
            *option = unusual;
        }
    }

    /// What makes operations fail more often.
    fn unreliable(&mut self, options: &mut Options) {
        options.connection_timeout_ms = self.log(100, 20_000);
        options.deadline_permille = self.one_of(&[0, 0, 100, 500]);
        options.deadline_ms = self.log(1, 60_000);
        options.clock_drift_ppm = self.one_of(&[0, 0, 1_000, 100_000]);
        let call_timeout = self.log(5, 30_000);
        self.sometimes(&mut options.call_timeout_ms, call_timeout);
        let pd_timeout = self.log(20, 3_000);
        self.sometimes(&mut options.pd_timeout_ms, pd_timeout);
        let lock_ttl = self.log(1, 3_000);
        self.sometimes(&mut options.lock_ttl_ms, lock_ttl);
        let managed_lock_ttl = self.log(10, 20_000);
        self.sometimes(&mut options.managed_lock_ttl_ms, managed_lock_ttl);
        let region_ttl = self.log(1, 600_000);
        self.sometimes(&mut options.region_ttl_ms, region_ttl);
        let weight = self.between(1, 2);
        self.sometimes(&mut options.backoff_weight, weight);
    }
}

/// A number of which the logarithm is evenly distributed.
pub(super) fn log_uniform(rng: &mut Rng, least: u32, most: u32) -> u32 {
    let (least, most) = (u64::from(least.max(1)), u64::from(most));
    let doublings = (most / least).max(1).ilog2();
    let floor = least << rng.below(u64::from(doublings) + 1);
    rng.range(floor..(2 * floor).min(most + 1)).min(most) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_drawn_lies_within_the_bounds() {
        for seed in 0..2_000 {
            for with_faults in [false, true] {
                let workload = WorkloadKind::ALL[seed as usize % WorkloadKind::ALL.len()];
                let options = Options::draw(&mut Rng::new(seed), workload, with_faults);
                assert_eq!(Options::of_words(options.words()), options, "seed {seed}");
            }
        }
    }

    #[test]
    fn options_are_set_by_their_names_within_their_bounds() {
        let mut options = Options::draw(&mut Rng::new(1), WorkloadKind::Bank, true);
        for (name, word) in Options::NAMES.iter().zip(Options::draw(&mut Rng::new(2), WorkloadKind::Bank, true).words())
        {
            assert_eq!(options.set(name, word), Ok(()));
        }
        assert_eq!(options, Options::draw(&mut Rng::new(2), WorkloadKind::Bank, true));
        assert_eq!(options.set("clients", 1_000), Ok(()));
        assert_eq!(options.clients, 16);
        assert!(options.set("rain", 1).is_err());
    }

    #[test]
    fn options_are_shown_in_full() {
        let options = Options::draw(&mut Rng::new(1), WorkloadKind::Bank, true);
        assert_eq!(options.to_string().split(' ').count(), Options::WORDS);
        assert!(options.to_string().starts_with("clients="));
    }

    #[test]
    fn default_settings_are_the_default_settings_of_clients() {
        let mut config = Options::of_config(&Config::default()).config();
        let default = Config::default();
        // Every RPC has one time limit here, so that there is one setting less.
        config.batch_call_timeout = default.batch_call_timeout;
        assert_eq!(config, default);
    }
}
