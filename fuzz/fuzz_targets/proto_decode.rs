//! libFuzzer's entry to [`tikv_fuzz::proto_decode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::proto_decode(data));
