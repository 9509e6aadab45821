//! `plan`: a program as text that says where every buffer lies and what each launch touches.

use crate::fuse::body::Body;
use crate::graph::Op;
use crate::lower::Lowered;
use crate::lower::kernel::{KernelSpec, Kind};
use isoflop_kernels::program::{Call, Launch, Program, Space};
use std::fmt::Write;

/// Buffers with their bytes of the arena, then launches by wave. Kernels are numbered and named by what they
/// compute, not by their hash, so the text changes only with the plan.
pub fn text(lowered: &Lowered) -> String {
    let p = &lowered.program;
    let mut out = format!("arena {} bytes, lower bound {}\n", p.arena_bytes, p.arena_lower_bound);
    for b in &p.buffers {
        let shape: Vec<String> = b.shape.iter().map(usize::to_string).collect();
        let _ = write!(out, "buffer {}: {}[{}] ", b.name, b.dtype, shape.join(","));
        let _ = match b.space {
            Space::Arena => writeln!(out, "arena {}..{}", b.offset, b.offset + b.bytes()),
            space => writeln!(out, "{}", format!("{space:?}").to_lowercase()),
        };
    }
    for (i, launch) in p.launches.iter().enumerate() {
        if let Some(chain) = p.chains.iter().find(|c| c.first as usize == i) {
            let (len, rows, step) = (chain.launches, chain.rows, chain.rows_per_task);
            let _ = writeln!(out, "chain of {len} over {rows} rows, {step} a task");
        }
        let chained = p.chains.iter().any(|c| c.members().contains(&i));
        let (what, args) = call(lowered, p, launch);
        let indent = if chained { "  " } else { "" };
        let _ = writeln!(out, "{indent}wave {}: {what} ({})", launch.wave, args.join(", "));
    }
    out
}

/// What a launch does, and its arguments; `x!` is read and written over.
fn call(lowered: &Lowered, p: &Program, launch: &Launch) -> (String, Vec<String>) {
    let mut args: Vec<String> = launch.args.iter().map(|&a| p.buffers[a as usize].name.clone()).collect();
    let what = match &launch.call {
        Call::Generated { kernel } => {
            let spec = &lowered.kernels[*kernel as usize];
            for over in spec.outputs.iter().filter_map(|o| o.in_place) {
                args[over].push('!');
            }
            format!("kernel {kernel} {}", generated(spec))
        }
        Call::Grouped { kernels } => {
            let mut start = 0;
            for &k in kernels {
                let spec = &lowered.kernels[k as usize];
                spec.outputs.iter().filter_map(|o| o.in_place).for_each(|over| args[start + over].push('!'));
                start += p.kernels[k as usize].n_args as usize;
            }
            let first = kernels.first().map(|&k| generated(&lowered.kernels[k as usize])).unwrap_or_default();
            format!("{} kernels as one: {first}", kernels.len())
        }
        Call::Gemm(g) => {
            let add = if g.accumulate { " added" } else { "" };
            format!("gemm {}x{}x{}x{}{add}", g.batch, g.m, g.n, g.k)
        }
        Call::GemmSquares(g) => format!("gemm {}x{}x{}x{} and its squares", g.batch, g.m, g.n, g.k),
        Call::RelAttentionForward(_) => "attention".into(),
        Call::RelAttentionBackward(_) => "attention gradient".into(),
        Call::Head(h) => {
            let what = if h.gradients { "head and gradients" } else { "head" };
            format!("{what} of {} rows, {} at once", h.rows, h.chunk)
        }
        Call::Gather { rows, width, .. } => format!("gather {rows} rows of {width}"),
        Call::ScatterAdd { rows, width, accumulate, .. } => {
            let add = if *accumulate { " added" } else { "" };
            format!("scatter-add {rows} rows of {width}{add}")
        }
        Call::Copy { bytes } => format!("copy {bytes} bytes"),
    };
    (what, args)
}

fn generated(spec: &KernelSpec) -> String {
    let tasks = match spec.tasks() {
        1 => String::new(),
        n => format!(", {n} tasks of {} rows", spec.rows_per_task),
    };
    match &spec.kind {
        Kind::Region(body) => format!("[{}] over {} rows{tasks}", names(body), spec.rows),
        Kind::Move { op, .. } => format!("[{}] of {} elements{tasks}", op.mnemonic(), spec.rows),
        Kind::Finish { parts, width, max, .. } => {
            let how = if *max { "largest" } else { "sum" };
            format!("{how} of {parts} parts of {width}{tasks}")
        }
    }
}

fn names(body: &Body) -> String {
    body.items.iter().map(|i| Op::mnemonic(&i.op)).collect::<Vec<_>>().join(" ")
}
