//! libFuzzer's way into `artifact`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| isoflop_fuzz::artifact(bytes));
