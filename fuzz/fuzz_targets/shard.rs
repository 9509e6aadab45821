//! libFuzzer's way into `shard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| isoflop_fuzz::shard(bytes));
