//! libFuzzer's entry to [`tikv_fuzz::membuffer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::membuffer(data));
