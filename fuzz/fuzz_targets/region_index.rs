//! libFuzzer's entry to [`tikv_fuzz::region_index`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::region_index(data));
