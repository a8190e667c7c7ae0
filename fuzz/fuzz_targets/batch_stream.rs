//! libFuzzer's entry to [`tikv_fuzz::batch_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::batch_stream(data));
