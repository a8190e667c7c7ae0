//! Whatever was left behind, however regions change, whatever is lost on the way: a read sees what its timestamp says.

use quickcheck::quickcheck;

use super::model::{self, Model, Run};
use super::*;
use crate::key::{Direction, KeyRange};
use crate::rng::Rng;
use crate::snapshot::{BatchGet, Get, Page, Scan, ScanCursor, ScanPage};

/// A client, its cluster, and a snapshot at a timestamp of any time in its history.
struct Story {
    run: Run,
    rng: Rng,
    read_ts: Timestamp,
    known: ReadThrough,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let model = Model::new(rng.child(), ts(10_000));
        let mut run = Run::new(model, rng.child());
        let read_ts = Story::timestamp(&mut run, &mut rng);
        Story { run, rng, read_ts, known: ReadThrough::new(read_ts) }
    }

    fn timestamp(run: &mut Run, rng: &mut Rng) -> Timestamp {
        let (first, now) = (ts(10_000).version(), run.pd_now().version());
        Timestamp::from_version(rng.range(first..now + 1))
    }

    fn options(&mut self) -> SnapshotOptions {
        SnapshotOptions {
            need_commit_ts: self.rng.below(3) == 0,
            scan_batch_size: 1 + self.rng.below(6) as u32,
            batch_get_size: 1 + self.rng.below(8) as usize,
            ..SnapshotOptions::new(self.read_ts, &self.run.config)
        }
    }

    fn key(&mut self) -> Key {
        model::random_key(&mut self.rng)
    }

    fn range(&mut self) -> KeyRange {
        let mut bound = || if self.rng.below(4) == 0 { Key::EMPTY } else { model::random_key(&mut self.rng) };
        let (start, end) = (bound(), bound());
        if end.is_empty() || start <= end { KeyRange::new(start, end) } else { KeyRange::new(end, start) }
    }

    fn direction(&mut self) -> Direction {
        if self.rng.below(2) == 0 { Direction::Forward } else { Direction::Reverse }
    }

    /// The result of a read, of which the snapshot learns, after which its background tasks run (or do not).
    fn read<T, M: Machine<Output = Read<T>>>(&mut self, machine: M) -> T {
        let read = self.run.run(machine);
        self.known.learn(&read.read_through);
        self.run.run_background();
        read.result.expect("every lock can be resolved within the budget")
    }

    fn get(&mut self) {
        let (key, options) = (self.key(), self.options());
        let expected = self.run.model.expected(&key, self.read_ts);
        let get = Get::new(&self.run.config, key.clone(), options, self.known.clone());
        let value = self.read(get);
        assert_eq!(value.map(|value| value.bytes), expected, "{key:?} at {}", self.read_ts);
    }

    fn batch_get(&mut self) {
        let keys: Vec<_> = (0..self.rng.below(20)).map(|_| self.key()).collect();
        let mut expected: Vec<_> =
            keys.iter().filter_map(|key| Some((key.clone(), self.run.model.expected(key, self.read_ts)?))).collect();
        expected.sort();
        expected.dedup();
        let options = self.options();
        let batch_get = BatchGet::new(&self.run.config, keys, options, self.known.clone());
        assert_eq!(bytes_of(self.read(batch_get)), expected, "at {}", self.read_ts);
    }

    fn expected_scan(&self, range: &KeyRange, direction: Direction) -> Vec<(Key, Bytes)> {
        let mut expected = self.run.model.expected_in(range, self.read_ts);
        if direction == Direction::Reverse {
            expected.reverse();
        }
        expected
    }

    fn scan(&mut self) {
        let (range, direction, limit) = (self.range(), self.direction(), self.rng.below(40) as usize);
        let mut expected = self.expected_scan(&range, direction);
        expected.truncate(limit);
        let scan = Scan::new(range.clone(), direction, limit, self.options(), self.known.clone());
        assert_eq!(bytes_of(self.read(scan)), expected, "{direction:?} {range:?} at {}", self.read_ts);
    }

    fn scan_pages_of_keys(&mut self) {
        let (range, direction, options) = (self.range(), self.direction(), self.options());
        let options = SnapshotOptions { key_only: true, ..options };
        let expected: Vec<_> = self.expected_scan(&range, direction).into_iter().map(|(key, _)| key).collect();
        let (mut found, mut cursor) = (Vec::new(), Some(ScanCursor::new(range, direction)));
        while let Some(next) = cursor {
            let (limit, known) = (options.scan_batch_size, self.known.clone());
            let page = ScanPage::new(&self.run.config, next, limit, options.clone(), known);
            let Page { pairs, next } = self.read(page);
            found.extend(pairs.into_iter().map(|pair| pair.key));
            cursor = next;
        }
        assert_eq!(found, expected, "{direction:?} at {}", self.read_ts);
    }

    /// Another timestamp, earlier or later.
    fn travel(&mut self) {
        self.read_ts = Story::timestamp(&mut self.run, &mut self.rng);
        self.known.set_read_ts(self.read_ts);
    }

    fn newest(&mut self) {
        let key = self.key();
        let expected = self.run.model.expected(&key, Timestamp::MAX);
        let options = SnapshotOptions::new(Timestamp::MAX, &self.run.config);
        let known = ReadThrough::new(Timestamp::MAX);
        let value = self.read(Get::new(&self.run.config, key.clone(), options, known));
        assert_eq!(value.map(|value| value.bytes), expected, "the newest {key:?}");
    }
}

fn bytes_of(pairs: Vec<Pair>) -> Vec<(Key, Bytes)> {
    pairs.into_iter().map(|pair| (pair.key, pair.value.bytes)).collect()
}

fn tell(seed: u64) {
    let mut story = Story::new(seed);
    for _ in 0..6 {
        match story.rng.below(7) {
            0 | 1 => story.get(),
            2 => story.batch_get(),
            3 => story.scan(),
            4 => story.scan_pages_of_keys(),
            5 => story.newest(),
            _ => story.travel(),
        }
    }
}

quickcheck! {
    fn every_read_sees_what_its_timestamp_says(seed: u64) -> bool {
        tell(seed);
        true
    }

    fn a_story_can_be_told_again(seed: u64) -> bool {
        let end = |seed| {
            let mut story = Story::new(seed);
            story.scan();
            (story.run.pd_now(), story.run.model.locks(), story.known)
        };
        end(seed) == end(seed)
    }
}
