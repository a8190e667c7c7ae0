//! Scenarios that hold on every runtime.
//!
//! Each is a function that takes an [`Rt`](crate::world::Rt) and panics if the client misbehaves. [`for_each_scenario!`](crate::for_each_scenario) makes
//! tests of them.

pub mod arguments;
pub mod cancellation;
pub mod decisions;
pub mod disturbance;
pub mod isolation;
pub mod latches;
pub mod lifecycle;
pub mod locks;
pub mod pessimistic;
pub mod pipelined;
pub mod raw;
pub mod savepoints;
pub mod txn;

/// Declares a test for each scenario: `$run` is called with a function from [`Rt`](crate::world::Rt) to the scenario's
/// future.
#[macro_export]
macro_rules! for_each_scenario {
    ($run:path) => {
        $crate::for_each_scenario! { @tests $run;
            raw {
                single_keys_are_put_read_and_deleted,
                an_empty_value_is_a_value,
                batches_reach_all_regions_and_keep_their_order,
                scans_cross_region_boundaries_both_ways,
                a_deleted_range_leaves_what_is_outside,
                a_swap_happens_only_from_the_expected_value,
                concurrent_swaps_lose_no_increment,
                a_key_with_a_time_to_live_disappears,
                column_families_are_apart,
                a_checksum_does_not_depend_on_regions,
                values_of_a_mebibyte_arrive_whole,
            }
            txn {
                committed_writes_are_read_by_later_transactions,
                a_transaction_reads_its_own_writes,
                a_snapshot_does_not_move,
                the_second_of_two_writers_conflicts,
                an_insert_fails_if_the_key_exists,
                locked_keys_guard_against_write_skew,
                nothing_is_left_of_a_transaction_that_is_rolled_back,
                a_transaction_without_writes_commits_without_a_timestamp,
                run_tries_again_until_every_increment_counts,
                run_returns_what_the_body_refuses,
                a_large_transaction_commits_over_many_regions,
                a_stream_of_pairs_reads_page_by_page,
                values_of_a_mebibyte_commit,
            }
            decisions {
                all_keys_are_committed_at_one_timestamp,
                readers_are_not_overtaken,
                commits_follow_real_time,
            }
            isolation {
                writers_of_one_key_do_not_overlap,
                readers_see_what_was_committed_before_them,
                tasks_share_a_snapshot,
                assertions_are_checked_if_that_is_wanted,
            }
            latches {
                who_has_lost_hears_so_before_anything_is_sent,
                commits_of_the_same_key_take_turns,
                nobody_waits_for_who_has_gone_nor_longer_than_allowed,
            }
            savepoints {
                a_dropped_savepoint_takes_its_writes_back,
                savepoints_nest,
                a_value_is_set_only_in_place_of_the_expected_one,
            }
            pipelined {
                what_is_flushed_is_read_back_by_its_owner_and_by_nobody_else_before_the_commit,
                a_key_has_the_value_of_its_latest_generation,
                nothing_is_left_of_a_pipelined_transaction_that_is_given_up,
                who_writes_faster_than_tikv_waits_and_loses_nothing,
                a_conflict_ends_a_pipelined_transaction_when_it_is_flushed,
                a_pipelined_transaction_without_writes_commits_without_a_timestamp,
            }
            locks {
                what_was_only_prewritten_is_rolled_back_by_who_meets_it,
                what_is_committed_at_its_primary_is_committed_by_who_meets_it,
                a_scan_goes_through_locks_among_many_keys,
                a_snapshot_from_before_a_lock_is_not_held_up,
                a_reader_and_a_living_transaction_agree_on_their_order,
                a_reader_that_waits_too_long_says_for_whom,
                reads_of_whatever_is_committed_pass_locks,
            }
            pessimistic {
                a_locked_key_is_written_by_nobody_else,
                increments_under_a_lock_all_count_at_the_first_attempt,
                of_two_that_wait_for_each_other_one_is_told,
                run_tries_again_after_deadlocks,
                who_gives_up_holds_nothing,
                locks_outlast_their_life_as_long_as_their_transaction_lives,
                a_call_that_is_dropped_leaves_the_transaction_usable_and_nothing_locked,
                a_wait_that_is_dropped_takes_no_lock_later,
                an_absent_key_stays_absent_until_it_is_put,
                many_keys_are_locked_and_read_at_once,
                a_conflict_is_reported_to_who_wants_to_know,
                a_fair_lock_is_kept_by_the_next_attempt,
                shared_locks_are_shared,
            }
            disturbance {
                writers_go_on_while_regions_split_and_leaders_move,
                transfers_keep_the_sum_while_regions_split_and_leaders_move,
                another_leader_serves_when_a_store_is_gone,
                a_store_that_is_gone_and_back_is_used_again,
                a_member_of_pd_takes_over,
                a_client_survives_a_pd_that_is_gone_for_a_while,
            }
            cancellation {
                dropped_reads_and_writes_leave_the_client_usable,
                a_dropped_commit_happens_wholly_or_not_at_all,
                a_commit_that_is_being_decided_ends_without_its_owner,
            }
            lifecycle {
                every_call_keeps_its_time_limit,
                a_swap_without_an_answer_is_undetermined,
                a_commit_without_an_answer_is_undetermined,
                the_outcome_of_a_commit_that_never_arrived_can_be_asked,
                after_close_every_call_is_refused,
                closing_ends_what_is_being_waited_for,
                a_thousand_tasks_get_each_its_own_answer,
                clones_outlive_the_first_client,
            }
            arguments {
                empty_and_long_keys_are_refused,
                empty_and_large_values_are_refused,
                a_transaction_is_limited_in_size,
                a_finished_transaction_refuses_everything,
                limits_of_scans_are_checked,
                nothing_is_asked_where_there_is_nothing_to_ask,
            }
        }
    };
    (@tests $run:path; $($module:ident { $($name:ident,)* })*) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                $run(|rt| Box::pin(async move { $crate::suite::$module::$name(&rt).await }));
            })*
        })*
    };
}
