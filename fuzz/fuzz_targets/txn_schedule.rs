//! libFuzzer's entry to [`tikv_fuzz::txn_schedule`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::txn_schedule(data));
