//! Lowering: from a fused graph to a program, and from its kernels to MLIR text.

mod approximate;
mod chains;
pub mod grid;
pub mod kernel;
mod lanes;
mod launches;
mod movement;
pub mod product;
pub mod program;
mod region;
mod scalar;
pub(crate) mod schedule;
mod shell;
mod step;
mod storage;
#[cfg(test)]
mod tests;
mod values;
mod waves;

pub use program::{LowerError, Lowered, least_arena, lower, lower_for};

use kernel::{KernelSpec, Kind};

/// One function of MLIR text for this kernel, named by its symbol.
pub fn mlir_function(spec: &KernelSpec) -> String {
    let name = spec.symbol();
    match &spec.kind {
        Kind::Region(body) => region::emit(spec, body, &name),
        Kind::Move { .. } | Kind::Finish { .. } => movement::emit(spec, &name),
    }
}
