//! What a program consists of, in numbers: the columns of tests/golden/fusions.csv, and of every comparison.

use crate::lower::Lowered;
use crate::lower::kernel::Kind;
use isoflop_kernels::program::Call;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Counts of one program. Kernels are counted for each launch that runs them, those of grouped launches too; `kernels`
/// is how many differ. Bytes of launches count every argument once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub launches: u64,
    pub waves: u64,
    pub chains: u64,
    pub launches_in_chains: u64,
    pub grouped_launches: u64,
    /// Kernels that loop over rows and columns.
    pub rows_kernels: u64,
    /// Kernels over flat elements.
    pub flat_kernels: u64,
    /// Transposes, slices and the like.
    pub moves: u64,
    /// Kernels that add up partial results.
    pub finishes: u64,
    pub kernels: u64,
    pub gemm: u64,
    pub gemm_squares: u64,
    pub attention_forward: u64,
    pub attention_backward: u64,
    pub head_loss: u64,
    pub head_loss_grad: u64,
    pub gather: u64,
    pub scatter_add: u64,
    pub copy: u64,
    /// Of products, causal half counted.
    pub flops: u64,
    pub launch_bytes: u64,
    pub arena_bytes: u64,
    pub arena_lower_bound: u64,
    pub total_bytes: u64,
}

impl Totals {
    pub fn of(lowered: &Lowered) -> Totals {
        let p = &lowered.program;
        let waves: BTreeSet<u32> = p.launches.iter().map(|l| l.wave).collect();
        let symbols: BTreeSet<&str> = p.kernels.iter().map(|k| k.symbol.as_str()).collect();
        let mut totals = Totals {
            launches: p.launches.len() as u64,
            waves: waves.len() as u64,
            chains: p.chains.len() as u64,
            launches_in_chains: p.chains.iter().map(|c| u64::from(c.launches)).sum(),
            kernels: symbols.len() as u64,
            flops: p.launches.iter().map(|l| l.flops).sum(),
            launch_bytes: p.launches.iter().map(|l| l.bytes).sum(),
            arena_bytes: p.arena_bytes,
            arena_lower_bound: p.arena_lower_bound,
            total_bytes: p.total_bytes(),
            ..Totals::default()
        };
        // Every call has its count, or this does not compile.
        for launch in &p.launches {
            match &launch.call {
                Call::Generated { kernel } => totals.kernel(lowered, *kernel),
                Call::Grouped { kernels } => {
                    totals.grouped_launches += 1;
                    kernels.iter().for_each(|&k| totals.kernel(lowered, k));
                }
                Call::Gemm(_) => totals.gemm += 1,
                Call::GemmSquares(_) => totals.gemm_squares += 1,
                Call::RelAttentionForward(_) => totals.attention_forward += 1,
                Call::RelAttentionBackward(_) => totals.attention_backward += 1,
                Call::Head(head) if head.gradients => totals.head_loss_grad += 1,
                Call::Head(_) => totals.head_loss += 1,
                Call::Gather { .. } => totals.gather += 1,
                Call::ScatterAdd { .. } => totals.scatter_add += 1,
                Call::Copy { .. } => totals.copy += 1,
            }
        }
        totals
    }

    fn kernel(&mut self, lowered: &Lowered, kernel: u32) {
        match &lowered.kernels[kernel as usize].kind {
            Kind::Region(body) if body.split.is_some() => self.rows_kernels += 1,
            Kind::Region(_) => self.flat_kernels += 1,
            Kind::Move { .. } => self.moves += 1,
            Kind::Finish { .. } => self.finishes += 1,
        }
    }

    /// Every count with its name.
    pub fn columns(&self) -> [(&'static str, u64); 24] {
        [
            ("launches", self.launches),
            ("waves", self.waves),
            ("chains", self.chains),
            ("launches_in_chains", self.launches_in_chains),
            ("grouped_launches", self.grouped_launches),
            ("rows_kernels", self.rows_kernels),
            ("flat_kernels", self.flat_kernels),
            ("moves", self.moves),
            ("finishes", self.finishes),
            ("kernels", self.kernels),
            ("gemm", self.gemm),
            ("gemm_squares", self.gemm_squares),
            ("attention_forward", self.attention_forward),
            ("attention_backward", self.attention_backward),
            ("head_loss", self.head_loss),
            ("head_loss_grad", self.head_loss_grad),
            ("gather", self.gather),
            ("scatter_add", self.scatter_add),
            ("copy", self.copy),
            ("flops", self.flops),
            ("launch_bytes", self.launch_bytes),
            ("arena_bytes", self.arena_bytes),
            ("arena_lower_bound", self.arena_lower_bound),
            ("total_bytes", self.total_bytes),
        ]
    }
}
