//! libFuzzer's way into `sweep_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| isoflop_fuzz::sweep_file(bytes));
