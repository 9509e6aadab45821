//! Prints what a phase of the thread pool costs when its tasks do nothing.
//!
//! `cargo run --release -p isoflop-runtime --example wave_cost`

use isoflop_runtime::pool::Pool;
use std::time::{Duration, Instant};

fn nothing(task: usize) {
    std::hint::black_box(task);
}

fn main() -> std::io::Result<()> {
    println!("{:>7} {:>6} {:>16} {:>16}", "threads", "tasks", "median us", "after sleep us");
    for threads in [1, 2, 3, 4] {
        let mut pool = Pool::new(threads)?;
        for tasks in [2, 16, 64] {
            let mut per_phase: Vec<f64> = (0..101)
                .map(|_| {
                    let start = Instant::now();
                    (0..200).for_each(|_| pool.run(tasks, &|task| nothing(task)));
                    start.elapsed().as_secs_f64() / 200.0
                })
                .collect();
            let mut woken: Vec<f64> = (0..51)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(2));
                    let start = Instant::now();
                    pool.run(tasks, &|task| nothing(task));
                    start.elapsed().as_secs_f64()
                })
                .collect();
            per_phase.sort_by(f64::total_cmp);
            woken.sort_by(f64::total_cmp);
            println!("{threads:>7} {tasks:>6} {:>16.2} {:>16.2}", per_phase[50] * 1e6, woken[25] * 1e6);
        }
    }
    Ok(())
}
