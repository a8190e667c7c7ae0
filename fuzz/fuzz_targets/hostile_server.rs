//! libFuzzer's entry to [`tikv_fuzz::hostile_server`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::hostile_server(data));
