//! libFuzzer's entry to [`tikv_fuzz::codec`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::codec(data));
