//! libFuzzer's entry to [`tikv_fuzz::grpc_frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tikv_fuzz::grpc_frames(data));
