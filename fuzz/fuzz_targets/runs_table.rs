//! libFuzzer's way into `runs_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| isoflop_fuzz::runs_table(bytes));
