//! Reductions across the lanes that share a row: exchanges within a warp, then shared memory between warps. Every lane
//! ends with the same bits, and the order of the sum depends on the number of lanes alone.

use super::grid::Grid;
use super::scalar::{Names, assign, combine, register};
use crate::graph::ReduceKind;
use isoflop_kernels::DType;
use std::fmt::Write;

const WARP: usize = 32;

/// The reduction of `value` over the lanes of a group, in every lane.
pub fn across(
    out: &mut String,
    names: &mut Names,
    grid: &Grid,
    kind: ReduceKind,
    value: &str,
    d: DType,
) -> String {
    let mask = mask(out, names, grid);
    let mut sum = butterfly(out, names, kind, value, d, grid.lanes.min(WARP), &mask);
    let warps = grid.lanes / WARP;
    if warps < 2 {
        return sum;
    }
    let ty = format!("memref<{WARP}x{}, 3>", register(d));
    let shared = names.shared(d, WARP);
    let warp_size = assign(out, names, &format!("arith.constant {WARP} : index"));
    let warp = assign(out, names, &format!("arith.divui %thread, {warp_size} : index"));
    let lane = assign(out, names, &format!("arith.remui %thread, {warp_size} : index"));
    let is_first = assign(out, names, &format!("arith.cmpi eq, {lane}, %c0 : index"));
    let _ = writeln!(out, "scf.if {is_first} {{\nmemref.store {sum}, {shared}[{warp}] : {ty}\n}}");
    barrier(out);
    let warps_index = assign(out, names, &format!("arith.constant {warps} : index"));
    let other = assign(out, names, &format!("arith.remui {lane}, {warps_index} : index"));
    sum = assign(out, names, &format!("memref.load {shared}[{other}] : {ty}"));
    let sum = butterfly(out, names, kind, &sum, d, warps, &mask);
    // The next reduction writes where a slower warp may still read.
    barrier(out);
    sum
}

/// Waits for all threads of the block.
pub fn barrier(out: &mut String) {
    out.push_str("nvvm.barrier0\n");
}

/// Waits for all lanes of the group: no lane reads later what is written after this.
pub fn wait(out: &mut String, names: &mut Names, grid: &Grid) {
    if grid.lanes > WARP {
        return barrier(out);
    }
    let mask = mask(out, names, grid);
    let _ = writeln!(out, "nvvm.bar.warp.sync {mask} : i32");
}

/// One bit for each lane of the warp that belongs to this thread's group. Groups of one warp may run different numbers of
/// rows, so that only the lanes of a group meet.
fn mask(out: &mut String, names: &mut Names, grid: &Grid) -> String {
    if grid.lanes >= WARP {
        return assign(out, names, "arith.constant -1 : i32");
    }
    let bits = assign(out, names, &format!("arith.constant {} : i32", (1u32 << grid.lanes) - 1));
    let others = assign(out, names, &format!("arith.constant {} : i32", WARP - grid.lanes));
    let first = assign(out, names, &format!("arith.andi %thread32, {others} : i32"));
    assign(out, names, &format!("arith.shli {bits}, {first} : i32"))
}

/// Exchanges with the lane at half the distance each time.
fn butterfly(
    out: &mut String,
    names: &mut Names,
    kind: ReduceKind,
    value: &str,
    d: DType,
    lanes: usize,
    mask: &str,
) -> String {
    let mut sum = value.to_owned();
    let mut distance = lanes / 2;
    while distance > 0 {
        let other = exchange(out, names, &sum, d, distance, mask);
        sum = combine(out, names, kind, &sum, &other, d);
        distance /= 2;
    }
    sum
}

/// The value of the lane whose number differs in the bit `distance`.
fn exchange(out: &mut String, names: &mut Names, v: &str, d: DType, distance: usize, mask: &str) -> String {
    let (far, clamp) = (
        assign(out, names, &format!("arith.constant {distance} : i32")),
        assign(out, names, "arith.constant 31 : i32"),
    );
    let shuffle = |v: &str, ty: &str, out: &mut String, names: &mut Names| {
        assign(out, names, &format!("nvvm.shfl.sync bfly {mask}, {v}, {far}, {clamp} : {ty} -> {ty}"))
    };
    match d {
        DType::F32 | DType::I32 => shuffle(v, register(d), out, names),
        DType::Bf16 => {
            let wide = assign(out, names, &format!("arith.extf {v} : bf16 to f32"));
            let other = shuffle(&wide, "f32", out, names);
            assign(out, names, &format!("arith.truncf {other} : f32 to bf16"))
        }
        DType::Bool => {
            let wide = assign(out, names, &format!("arith.extui {v} : i1 to i32"));
            let other = shuffle(&wide, "i32", out, names);
            assign(out, names, &format!("arith.trunci {other} : i32 to i1"))
        }
        DType::F64 => {
            let bits = assign(out, names, &format!("arith.bitcast {v} : f64 to i64"));
            let half = assign(out, names, "arith.constant 32 : i64");
            let low = assign(out, names, &format!("arith.trunci {bits} : i64 to i32"));
            let high = assign(out, names, &format!("arith.shrui {bits}, {half} : i64"));
            let high = assign(out, names, &format!("arith.trunci {high} : i64 to i32"));
            let (low, high) = (shuffle(&low, "i32", out, names), shuffle(&high, "i32", out, names));
            let low = assign(out, names, &format!("arith.extui {low} : i32 to i64"));
            let high = assign(out, names, &format!("arith.extui {high} : i32 to i64"));
            let high = assign(out, names, &format!("arith.shli {high}, {half} : i64"));
            let bits = assign(out, names, &format!("arith.ori {low}, {high} : i64"));
            assign(out, names, &format!("arith.bitcast {bits} : i64 to f64"))
        }
    }
}
