//! A launch before buffers have places, and how it can be cut by rows.

use super::kernel::{KernelSpec, Kind, Output, partial};
use crate::fuse::body::{Body, Level, Reduction, Source};
use isoflop_kernels::cpu::gemm::Gemm;
use isoflop_kernels::program::Call;

/// One launch before buffers have places: storages instead of buffers.
pub struct Step {
    pub call: Call,
    /// Storage of each argument.
    pub args: Vec<usize>,
    /// Which arguments are written.
    pub writes: Vec<bool>,
    pub label: String,
    pub flops: u64,
    /// How a task with some of its rows is cut out of it, if it can be.
    pub cut: Option<Cut>,
}

/// The rows of a launch and what a task with some of them touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub rows: usize,
    /// A task's rows must be a multiple of this many, its last task's aside.
    pub unit: usize,
    /// For each argument.
    pub touches: Vec<Touch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// The same share of its bytes as of the rows.
    Share,
    /// Any of it.
    Whole,
    /// Partial results, a place for each `unit` rows.
    Partial,
}

impl Cut {
    /// Of a product: its rows are those of a and c. `a` is the number of elements that the first operand has.
    pub fn of_product(g: &Gemm, a: usize) -> Option<Cut> {
        let dense_c = g.batch == 1 && g.n > 1 && g.c[1] == g.n && g.c[2] == 1;
        let dense_a = g.a[1] * g.m == a && g.a[2] * (g.k.max(1) - 1) < g.a[1];
        (dense_c && g.k > 0 && !g.accumulate).then(|| Cut {
            rows: g.m,
            unit: 1,
            touches: vec![if dense_a { Touch::Share } else { Touch::Whole }, Touch::Whole, Touch::Share],
        })
    }

    /// Of a generated kernel, whose arguments are inputs, then the outputs that are not in place.
    pub fn of_kernel(spec: &KernelSpec) -> Option<Cut> {
        let Kind::Region(body) = &spec.kind else { return None };
        let mut touches: Vec<Touch> = (0..body.inputs.len()).map(|i| touch_of_input(body, i)).collect();
        let mut unit = 1;
        for o in spec.outputs.iter() {
            match partial(body, &body.items[o.item]) {
                Some(_) if spec.tasks() == 1 => return None,
                Some(_) => unit = spec.rows_per_task,
                None => {}
            }
            let written =
                if partial(body, &body.items[o.item]).is_some() { Touch::Partial } else { Touch::Share };
            match o.in_place {
                // Overwritten element by element, so read so.
                Some(_) => {}
                None => touches.push(written),
            }
        }
        Some(Cut { rows: spec.rows, unit, touches })
    }
}

fn touch_of_input(body: &Body, input: usize) -> Touch {
    let by_row = body.items.iter().all(|item| {
        item.sources.iter().all(|s| match *s {
            Source::Input { index, access } if index == input => {
                matches!(body.input_level(access, item.level), Level::Full | Level::Outer)
            }
            _ => true,
        })
    });
    if by_row { Touch::Share } else { Touch::Whole }
}

/// Elements of one partial result, if the output is one.
pub fn partial_width(body: &Body, o: &Output) -> Option<usize> {
    partial(body, &body.items[o.item]).map(|r| if r == Reduction::Column { o.ty.elements() } else { 1 })
}
