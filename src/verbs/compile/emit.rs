//! `isoflop compile --emit`: stages of the compilation as text.

use isoflop_compiler::driver::{CompileOptions, distinct};
use isoflop_compiler::lower::{self, Lowered};
use isoflop_compiler::mlir::{self, Emit};
use isoflop_kernels::program::{Call, Program, Space};
use isoflop_sweeps::display;
use miette::IntoDiagnostic;
use std::fmt::Write;

/// Every different kernel of the training step, as MLIR or as what it compiles to.
pub fn kernels(train: &Lowered, compiler: &CompileOptions, emit: Option<Emit>) -> miette::Result<String> {
    let texts: Vec<String> = distinct(&[train]).into_iter().map(lower::mlir_function).collect();
    let Some(emit) = emit else { return Ok(texts.join("\n")) };
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut out = String::new();
    for compiled in mlir::compile_all(&borrowed, &compiler.target, emit, compiler.threads) {
        out.push_str(compiled.into_diagnostic()?.text().unwrap_or_default());
    }
    Ok(out)
}

/// The memory plan and the launches of a program; those of a chain are joined by a line.
pub fn program(p: &Program) -> String {
    let mut out = String::new();
    let sizes = [Space::State, Space::Input, Space::Output, Space::Table, Space::Arena]
        .map(|s| format!("{s:?} {}", display::bytes(p.bytes_in(s))));
    let share = p.arena_bytes as f64 / p.arena_lower_bound.max(1) as f64;
    let _ = writeln!(out, "program {}: {}", p.name, sizes.join(", ").to_lowercase().replace("kb", "kB"));
    let _ = writeln!(
        out,
        "arena {} bytes, {share:.3} times the lower bound of {}; {} in all",
        p.arena_bytes,
        p.arena_lower_bound,
        display::bytes(p.total_bytes())
    );
    let _ = writeln!(out, "{:>4} {:>5}  {:<24} {:>14} {:>12}  label", "", "wave", "call", "FLOPs", "bytes");
    for (i, launch) in p.launches.iter().enumerate() {
        let call = match &launch.call {
            Call::Generated { kernel } => {
                p.kernels.get(*kernel as usize).map_or_else(|| "?".to_owned(), |k| k.symbol.clone())
            }
            Call::Grouped { kernels } => {
                let first = kernels.first().and_then(|&k| p.kernels.get(k as usize));
                format!("{} x{}", first.map_or("?", |k| &k.symbol), kernels.len())
            }
            Call::Gemm(g) => format!("gemm {}x{}x{}x{}", g.batch, g.m, g.n, g.k),
            Call::GemmSquares(g) => format!("gemm {}x{}x{}x{} and squares", g.batch, g.m, g.n, g.k),
            Call::RelAttentionForward(_) => "attention forward".to_owned(),
            Call::RelAttentionBackward(_) => "attention backward".to_owned(),
            Call::Head(h) if h.gradients => "head loss and gradients".to_owned(),
            Call::Head(_) => "head loss".to_owned(),
            Call::Gather { .. } => "gather".to_owned(),
            Call::ScatterAdd { .. } => "scatter-add".to_owned(),
            Call::Copy { .. } => "copy".to_owned(),
        };
        let (wave, flops, bytes) = (launch.wave, launch.flops, launch.bytes);
        // Launches that one task runs one after another on its rows hang together.
        let chain = p.chains.iter().find(|c| c.members().contains(&i));
        let mark = match chain {
            Some(c) if c.first as usize == i => "┌",
            Some(c) if c.members().end == i + 1 => "└",
            Some(_) => "│",
            None => " ",
        };
        let _ = writeln!(out, "{i:>4} {wave:>5} {mark}{call:<24} {flops:>14} {bytes:>12}  {}", launch.label);
    }
    out
}
