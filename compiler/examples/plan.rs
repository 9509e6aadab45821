//! Times the way from a configuration to a planned program, and to machine code where MLIR is linked:
//! `cargo run --release -p isoflop-compiler --example plan -- 280b`.
use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::plan_program;
use isoflop_kernels::program::Space;
use std::time::Instant;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "44m".into());
    let (n_layers, n_heads, d_head, d_model, vocab_size, seq_len, batch) = match name.as_str() {
        "280b" => (80, 128, 128, 16384, 32000, 2048, 1),
        "44m" => (8, 16, 32, 512, 32000, 512, 2),
        _ => (2, 2, 8, 16, 32, 16, 2),
    };
    let model = ModelConfig::gopher(n_layers, n_heads, d_head, d_model, vocab_size, seq_len);
    let step = StepConfig::new(batch);
    let start = Instant::now();
    let plan = match plan_program(&model, &step) {
        Ok(plan) => plan,
        Err(e) => return eprintln!("{e}"),
    };
    let p = &plan.train.program;
    println!("{name}: planned in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    println!(
        "{} launches in {} waves of {} kernels; arena {:.1} MB (bound {:.1} MB), state {:.1} MB",
        p.launches.len(),
        p.launches.last().map_or(0, |l| l.wave + 1),
        p.kernels.len(),
        p.arena_bytes as f64 / 1e6,
        p.arena_lower_bound as f64 / 1e6,
        p.bytes_in(Space::State) as f64 / 1e6
    );
    #[cfg(feature = "mlir")]
    if name != "280b" {
        use isoflop_compiler::driver::{CompileOptions, compile};
        let folder = std::env::temp_dir().join("isoflop-plan-example");
        let options = CompileOptions {
            target: isoflop_compiler::mlir::Target::host(),
            artifacts: folder.join("artifacts"),
            cache: folder.join("cache"),
            threads: 2,
        };
        let start = Instant::now();
        match compile(&model, &step, &options) {
            Ok(c) => println!(
                "{} of {} kernels compiled in {:.1} ms: {}",
                c.kernels_compiled,
                c.kernels_total,
                start.elapsed().as_secs_f64() * 1e3,
                c.artifact.dir.display()
            ),
            Err(e) => eprintln!("{e}"),
        }
    }
}
