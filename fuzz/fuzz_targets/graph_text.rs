//! libFuzzer's way into `graph_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| isoflop_fuzz::graph_text(bytes));
