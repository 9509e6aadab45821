//! The smallest worker: trains one run directory and exits with the code that says how it ended.
//!
//!     cargo run --example worker -- <run dir> [steps to stop after]

use isoflop_kernels::footprint::WORKER;
use isoflop_runtime::train::{EXIT_FAILED, Options, stop_on_signals, train};
use std::path::Path;
use std::process::exit;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (run_dir, stop_after_steps) = match arguments.as_slice() {
        [run_dir] => (run_dir, None),
        [run_dir, steps] => match steps.parse() {
            Ok(steps) => (run_dir, Some(steps)),
            Err(e) => fail(&format!("steps to stop after: `{steps}` is not a number: {e}")),
        },
        _ => fail("usage: worker <run dir> [steps to stop after]"),
    };
    let stop = stop_on_signals().unwrap_or_else(|e| fail(&e.to_string()));
    let result = train(
        Path::new(run_dir),
        Options {
            threads: None,
            stop,
            stop_after_steps,
            base: WORKER,
            progress: &mut |status| println!("{:?} step {} of {}", status.state, status.step, status.steps),
            warn: &mut |warning| eprintln!("warning: {warning}"),
        },
    );
    match result {
        Ok(outcome) => exit(outcome.exit_code()),
        Err(e) => {
            eprintln!("error: {e}");
            exit(e.exit_code());
        }
    }
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    exit(EXIT_FAILED)
}
