//! Times the text form, the verifier and every pass on the training graph of an 80-layer model:
//! `cargo run --release -p isoflop-compiler --example pass_speed`.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::model::training_graph;
use isoflop_compiler::passes::all;
use isoflop_compiler::text::{parse, print};
use isoflop_compiler::verify::verify;
use std::time::Instant;

/// Milliseconds, the median of five.
fn median<T>(mut f: impl FnMut() -> (Instant, T)) -> (f64, T) {
    let mut runs: Vec<(f64, T)> = (0..5)
        .map(|_| {
            let (start, out) = f();
            (start.elapsed().as_secs_f64() * 1e3, out)
        })
        .collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs.swap_remove(2)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n_layers = std::env::args().nth(1).map_or(Ok(80), |a| a.parse())?;
    let model = ModelConfig::gopher(n_layers, 16, 32, 512, 32000, 512);
    let step = StepConfig::new(2);
    let g = training_graph(&model, &step)?;
    println!("{n_layers} layers: {} nodes, {} edges", g.nodes().node_count(), g.nodes().edge_count());
    let (ms, text) = median(|| (Instant::now(), print(&g)));
    println!("print     {ms:8.1} ms, {:.1} MB", text.len() as f64 / 1e6);
    let (ms, read) = median(|| (Instant::now(), parse(&text, "printed")));
    read?;
    println!("parse     {ms:8.1} ms");
    let (ms, verified) = median(|| (Instant::now(), verify(&g)));
    println!("verify    {ms:8.1} ms, {} problems", verified.err().map_or(0, |p| p.len()));
    for pass in all() {
        let (ms, after) = median(|| {
            let mut g = g.clone();
            let start = Instant::now();
            pass.apply(&mut g);
            (start, g)
        });
        println!("{:<10}{ms:8.1} ms, {} nodes left", pass.name, after.nodes().node_count());
    }
    Ok(())
}
