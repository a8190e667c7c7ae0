use tikv_proto::kvrpcpb::{BatchGetRequest, BatchGetResponse, KvPair, ScanRequest, ScanResponse};

use super::*;
use crate::backoff::BackoffKind;
use crate::error::{Error, KeyError};
use crate::key::{Direction, KeyRange};
use crate::machine::{SleepReason, Token};
use crate::snapshot::{Page, Scan, ScanCursor, ScanPage};

fn range(start: &str, end: &str) -> KeyRange {
    KeyRange::new(start, end)
}

fn page(range: KeyRange, direction: Direction, limit: u32) -> Script<ScanPage> {
    page_with(range, direction, limit, options())
}

fn page_with(range: KeyRange, direction: Direction, limit: u32, options: SnapshotOptions) -> Script<ScanPage> {
    script(ScanPage::new(&config(), ScanCursor::new(range, direction), limit, options, fresh()))
}

fn forward(start: &str, end: &str, limit: u32) -> Script<ScanPage> {
    page(range(start, end), Direction::Forward, limit)
}

fn reverse(start: &str, end: &str, limit: u32) -> Script<ScanPage> {
    page(range(start, end), Direction::Reverse, limit)
}

fn expect<M: Machine>(script: &mut Script<M>, start: &str, end: &str, limit: u32) -> Token
where
    M::Output: Debug,
{
    script.expect_call(1, |request: &ScanRequest| {
        let actual = (&request.start_key[..], &request.end_key[..], request.limit);
        assert_eq!(actual, (start.as_bytes(), end.as_bytes(), limit));
        assert_eq!(request.version, ts(READ_MS).version());
    })
}

fn pairs(pairs: Vec<KvPair>) -> ScanResponse {
    ScanResponse { pairs, ..Default::default() }
}

fn next(start: &str, end: &str, direction: Direction) -> Option<ScanCursor> {
    Some(ScanCursor::new(range(start, end), direction))
}

fn ends(script: &mut Script<ScanPage>, expected: Vec<Pair>, next: Option<ScanCursor>) {
    assert_eq!(script.expect_done().result, Ok(Page { pairs: expected, next }));
}

mod one_page {
    use super::*;

    #[test]
    fn a_short_page_goes_on_behind_its_region() {
        let mut script = forward("c", "z", 3);
        expect(&mut script, "c", "g", 3);
        script.reply(pairs(vec![kv("c", "1"), kv("f", "2")]));
        ends(&mut script, vec![pair("c", "1"), pair("f", "2")], next("g", "z", Direction::Forward));
    }

    #[test]
    fn a_full_page_goes_on_behind_its_last_key() {
        let mut script = forward("c", "z", 2);
        expect(&mut script, "c", "g", 2);
        script.reply(pairs(vec![kv("c", "1"), kv("f", "2")]));
        ends(&mut script, vec![pair("c", "1"), pair("f", "2")], next("f\0", "z", Direction::Forward));
    }

    #[test]
    fn an_empty_region_is_an_empty_page() {
        let mut script = forward("c", "", 2);
        expect(&mut script, "c", "g", 2);
        script.reply(pairs(vec![]));
        ends(&mut script, vec![], next("g", "", Direction::Forward));
    }

    #[test]
    fn the_end_of_the_range_or_of_all_keys_ends_the_scan() {
        for (start, end, part_end) in [("c", "f", "f"), ("c", "g", "g"), ("q", "", "")] {
            let mut script = forward(start, end, 2);
            expect(&mut script, start, part_end, 2);
            script.reply(pairs(vec![]));
            ends(&mut script, vec![], None);
        }
    }

    #[test]
    fn a_full_page_that_ends_with_the_last_possible_key_ends_the_scan() {
        let mut script = forward("c", "c\0", 1);
        expect(&mut script, "c", "c\0", 1);
        script.reply(pairs(vec![kv("c", "1")]));
        ends(&mut script, vec![pair("c", "1")], None);
    }

    #[test]
    fn a_reverse_page_begins_at_its_upper_bound() {
        let mut script = reverse("b", "m", 3);
        script.expect_call(1, |request: &ScanRequest| {
            assert!(request.reverse);
            assert_eq!((&request.start_key[..], &request.end_key[..]), (b"m".as_slice(), b"g".as_slice()));
        });
        script.reply(pairs(vec![kv("l", "1"), kv("h", "2")]));
        ends(&mut script, vec![pair("l", "1"), pair("h", "2")], next("b", "g", Direction::Reverse));
    }

    #[test]
    fn a_full_reverse_page_goes_on_below_its_last_key() {
        let mut script = reverse("b", "m", 2);
        expect(&mut script, "m", "g", 2);
        script.reply(pairs(vec![kv("l", "1"), kv("h", "2")]));
        ends(&mut script, vec![pair("l", "1"), pair("h", "2")], next("b", "h", Direction::Reverse));
    }

    #[test]
    fn a_reverse_scan_whose_upper_bound_is_a_regions_start_begins_in_the_region_before() {
        let mut script = reverse("b", "p", 2);
        expect(&mut script, "p", "g", 2);
        assert_eq!(script.last_context().region_id, 2);
    }

    #[test]
    fn a_reverse_scan_ends_at_the_start_of_its_range() {
        for (start, part_start) in [("b", "b"), ("", "")] {
            let mut script = reverse(start, "f", 2);
            expect(&mut script, "f", part_start, 2);
            script.reply(pairs(vec![]));
            ends(&mut script, vec![], None);
        }
    }

    #[test]
    fn a_reverse_scan_from_the_end_of_all_keys_names_a_bound_behind_them() {
        let mut script = reverse("", "", 2);
        script.expect_call(1, |request: &ScanRequest| {
            assert!(request.start_key.len() > 8 * 1024 && request.start_key.iter().all(|byte| *byte == u8::MAX));
            assert_eq!(request.end_key, "p");
        });
        assert_eq!(script.last_context().region_id, 3);
        script.reply(pairs(vec![kv("z", "1")]));
        ends(&mut script, vec![pair("z", "1")], next("", "p", Direction::Reverse));
    }

    #[test]
    fn nothing_is_asked_for_nothing() {
        ends(&mut forward("c", "c", 2), vec![], None);
        ends(&mut forward("c", "d", 0), vec![], next("c", "d", Direction::Forward));
    }

    #[test]
    fn the_options_of_a_scan_reach_tikv() {
        let options = SnapshotOptions { key_only: true, sample_step: 5, ..options() };
        let mut script = page_with(range("a", "b"), Direction::Forward, 2, options);
        script.expect_call(1, |request: &ScanRequest| {
            assert!(request.key_only);
            assert_eq!(request.sample_step, 5);
        });
        assert_eq!(script.last_context().max_execution_duration_ms, 60_000);
    }

    #[test]
    fn a_split_shortens_the_page() {
        let mut script = forward("c", "z", 2);
        expect(&mut script, "c", "g", 2);
        script.region_error(epoch_not_match(vec![split(1, "".."e"), split(4, "e".."g")]));
        expect(&mut script, "c", "e", 2);
        script.reply(pairs(vec![]));
        ends(&mut script, vec![], next("e", "z", Direction::Forward));
    }

    #[test]
    fn a_store_that_says_split_again_and_again_is_not_hammered() {
        let mut script = forward("c", "z", 2);
        let regions = || epoch_not_match(vec![split(1, "".."g")]);
        expect(&mut script, "c", "g", 2);
        script.region_error(regions());
        expect(&mut script, "c", "g", 2);
        script.region_error(regions());
        script.expect_sleep(|_, reason| assert_eq!(reason, SleepReason::Backoff(BackoffKind::RegionMiss)));
    }

    #[test]
    fn a_reverse_page_follows_a_split_to_the_upper_half() {
        let mut script = reverse("b", "g", 2);
        expect(&mut script, "g", "b", 2);
        script.region_error(epoch_not_match(vec![split(1, "".."e"), split(4, "e".."g")]));
        expect(&mut script, "g", "e", 2);
        assert_eq!(script.last_context().region_id, 4);
    }

    #[test]
    fn pairs_out_of_range_or_order_are_nonsense() {
        let nonsense = [
            (Direction::Forward, vec![kv("f", "1"), kv("e", "2")]),
            (Direction::Forward, vec![kv("f", "1"), kv("f", "2")]),
            (Direction::Forward, vec![kv("b", "1")]),
            (Direction::Forward, vec![kv("g", "1")]),
            (Direction::Reverse, vec![kv("d", "1"), kv("e", "2")]),
            (Direction::Reverse, vec![kv("f", "1")]),
        ];
        for (direction, response) in nonsense {
            let mut script = page(range("c", "f"), direction, 9);
            script.expect_call(1, |_: &ScanRequest| {});
            script.reply(pairs(response));
            assert!(matches!(script.expect_done().result, Err(Error::WrongResponse { operation: "Scan", .. })));
        }
    }

    #[test]
    fn other_refusals_are_typed() {
        for response in [
            ScanResponse { error: aborted(), ..Default::default() },
            pairs(vec![kv("c", "1"), KvPair { error: aborted(), ..Default::default() }]),
        ] {
            let mut script = forward("c", "f", 9);
            script.expect_call(1, |_: &ScanRequest| {});
            script.reply(response);
            assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".into()))));
        }
    }
}

mod locks {
    use super::*;

    #[test]
    fn the_refusal_of_a_whole_request_counts_for_nothing_but_its_lock() {
        let mut script = forward("c", "z", 2);
        expect(&mut script, "c", "g", 2);
        // TiKV puts the error into the first pair too, for clients of old; less than a page is not the region's end.
        let response =
            ScanResponse { error: locked("e", 10_000), pairs: vec![locked_pair("e", 10_000)], ..Default::default() };
        script.reply(response);
        status(&mut script, pushed(10_000));
        expect(&mut script, "c", "g", 2);
        assert_eq!(script.last_context().resolved_locks, versions(&[10_000]));
        script.reply(pairs(vec![kv("c", "1"), kv("e", "2")]));
        ends(&mut script, vec![pair("c", "1"), pair("e", "2")], next("e\0", "z", Direction::Forward));
    }

    fn batch(pairs: Vec<KvPair>) -> BatchGetResponse {
        BatchGetResponse { pairs, ..Default::default() }
    }

    #[test]
    fn locked_keys_of_a_page_are_read_on_their_own_all_at_once() {
        let mut script = forward("c", "z", 4);
        expect(&mut script, "c", "g", 4);
        script.reply(pairs(vec![
            locked_pair("c", 10_000),
            kv("d", "2"),
            locked_pair("e", 10_000),
            locked_pair("f", 10_100),
        ]));
        let first = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
        let second = script.expect_call(1, |_: &CheckTxnStatusRequest| {});
        script.reply_to(first, committed(10_500));
        script.expect_spawn();
        script.reply_to(second, rolled_back());
        script.expect_spawn();
        script.expect_call(1, |request: &BatchGetRequest| assert_eq!(request.keys, ["c", "e", "f"]));
        let context = &script.last_context();
        assert_eq!(context.committed_locks, versions(&[10_000]));
        assert_eq!(context.resolved_locks, versions(&[10_100]));
        script.reply(batch(vec![kv("c", "1"), kv("e", "3")]));
        let read = script.expect_done();
        assert_eq!(learnt(&read), (vec![ts(10_100)], vec![ts(10_000)]));
        let expected = vec![pair("c", "1"), pair("d", "2"), pair("e", "3")];
        let next = next("f\0", "z", Direction::Forward);
        assert_eq!(read.result, Ok(Page { pairs: expected, next }), "a key without a value still counts as scanned");
    }

    #[test]
    fn the_locked_keys_of_a_reverse_page_find_their_places() {
        let mut script = reverse("c", "g", 3);
        expect(&mut script, "g", "c", 3);
        script.reply(pairs(vec![kv("f", "1"), locked_pair("e", 10_000), kv("d", "3")]));
        status(&mut script, pushed(10_000));
        script.expect_call(1, |request: &BatchGetRequest| assert_eq!(request.keys, ["e"]));
        script.reply(batch(vec![kv("e", "2")]));
        let expected = vec![pair("f", "1"), pair("e", "2"), pair("d", "3")];
        ends(&mut script, expected, next("c", "d", Direction::Reverse));
    }

    #[test]
    fn a_scan_of_keys_shows_no_value_of_a_locked_key_either() {
        let options = SnapshotOptions { key_only: true, need_commit_ts: true, ..options() };
        let mut script = page_with(range("c", "g"), Direction::Forward, 3, options);
        script.expect_call(1, |_: &ScanRequest| {});
        script.reply(pairs(vec![kv("c", ""), locked_pair("e", 10_000), locked_pair("f", 10_000)]));
        status(&mut script, pushed(10_000));
        script.expect_call(1, |request: &BatchGetRequest| assert!(!request.need_commit_ts));
        script.reply(batch(vec![kv("e", "2")]));
        ends(&mut script, vec![pair("c", ""), pair("e", "")], next("f\0", "g", Direction::Forward));
    }

    #[test]
    fn a_live_lock_is_waited_for() {
        let mut script = forward("c", "g", 2);
        expect(&mut script, "c", "g", 2);
        script.reply(ScanResponse { error: locked("e", 10_000), ..Default::default() });
        status(&mut script, alive(10_000));
        wait(&mut script);
        expect(&mut script, "c", "g", 2);
    }
}

mod many_pages {
    use super::*;

    fn scan(range: KeyRange, direction: Direction, limit: usize, page: u32) -> Script<Scan> {
        let options = SnapshotOptions { scan_batch_size: page, ..options() };
        script(Scan::new(range, direction, limit, options, fresh()))
    }

    #[test]
    fn a_scan_goes_through_all_regions_of_its_range() {
        let mut script = scan(range("c", "z"), Direction::Forward, 100, 2);
        expect(&mut script, "c", "g", 2);
        script.reply(pairs(vec![kv("d", "1"), kv("e", "2")]));
        expect(&mut script, "e\0", "g", 2);
        script.reply(pairs(vec![]));
        expect(&mut script, "g", "p", 2);
        script.reply(pairs(vec![]));
        expect(&mut script, "p", "z", 2);
        script.reply(pairs(vec![kv("q", "3")]));
        assert_eq!(script.expect_done().result, Ok(vec![pair("d", "1"), pair("e", "2"), pair("q", "3")]));
    }

    #[test]
    fn a_reverse_scan_goes_through_all_regions_of_its_range() {
        let mut script = scan(range("c", "z"), Direction::Reverse, 100, 2);
        expect(&mut script, "z", "p", 2);
        script.reply(pairs(vec![kv("q", "1"), kv("p", "2")]));
        expect(&mut script, "p", "g", 2);
        script.reply(pairs(vec![]));
        expect(&mut script, "g", "c", 2);
        script.reply(pairs(vec![kv("d", "3")]));
        assert_eq!(script.expect_done().result, Ok(vec![pair("q", "1"), pair("p", "2"), pair("d", "3")]));
    }

    #[test]
    fn no_more_is_asked_for_than_is_missing() {
        let mut script = scan(range("c", "z"), Direction::Forward, 3, 2);
        expect(&mut script, "c", "g", 2);
        script.reply(pairs(vec![kv("d", "1"), kv("e", "2")]));
        expect(&mut script, "e\0", "g", 1);
        script.reply(pairs(vec![kv("f", "3")]));
        assert_eq!(script.expect_done().result.map(|pairs| pairs.len()), Ok(3));
    }

    #[test]
    fn a_limit_of_nothing_asks_for_nothing() {
        assert_eq!(scan(range("c", "z"), Direction::Forward, 0, 2).expect_done().result, Ok(vec![]));
    }

    #[test]
    fn without_a_page_size_the_configurations_counts() {
        let mut script = scan(range("c", "d"), Direction::Forward, 1_000, 0);
        expect(&mut script, "c", "d", 256);
    }

    #[test]
    fn what_a_page_learns_is_told_to_the_next() {
        let mut script = scan(range("c", "z"), Direction::Forward, 100, 2);
        expect(&mut script, "c", "g", 2);
        script.reply(ScanResponse { error: locked("e", 10_000), ..Default::default() });
        status(&mut script, pushed(10_000));
        expect(&mut script, "c", "g", 2);
        script.reply(pairs(vec![]));
        expect(&mut script, "g", "p", 2);
        assert_eq!(script.last_context().resolved_locks, versions(&[10_000]));
    }

    #[test]
    fn an_error_ends_the_scan() {
        let mut script = scan(range("c", "z"), Direction::Forward, 100, 2);
        expect(&mut script, "c", "g", 2);
        script.reply(pairs(vec![kv("d", "1")]));
        expect(&mut script, "g", "p", 2);
        script.reply(ScanResponse { error: aborted(), ..Default::default() });
        assert_eq!(script.expect_done().result, Err(Error::Key(KeyError::Abort("no".into()))));
    }
}
