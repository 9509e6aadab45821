//! What must be known to generate one kernel: the body, where its results go, which results overwrite an input, and
//! how rows are cut into tasks. Equal specs give equal code, whatever model they come from.

use super::grid::Grid;
use crate::cost;
use crate::fuse::body::{Access, Body, Item, Level, Reduction, Source};
use crate::graph::{Op, TensorType};
use crate::machine::Machine;
use isoflop_kernels::DType;
use std::fmt::Write;

/// Elements one task works on, about: enough to hide its start, little enough to share among threads.
const TASK_ELEMENTS: usize = 16 * 1024;
/// Tasks of a kernel that reduces over rows: each holds a partial result.
const MAX_PARTIALS: usize = 64;
/// Rows of a task of such a kernel are a power of two up to this, so that tasks of chains are multiples of it.
const PARTIAL_ROWS: usize = 128;

/// A result of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Item whose value this is.
    pub item: usize,
    /// Element type in memory, shape of one partial for reductions over rows.
    pub ty: TensorType,
    /// The result overwrites this input of the body, element by element.
    pub in_place: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// Loops over rows and columns, or flat elements.
    Region(Body),
    /// One operation that moves data in its own pattern.
    Move { op: Op, operands: Vec<TensorType>, result: TensorType },
    /// Sums (or takes the maximum of) `parts` partial results of `width` elements each, in their order.
    Finish { parts: usize, width: usize, max: bool, dtype: DType },
}

#[derive(Clone, Debug)]
pub struct KernelSpec {
    pub kind: Kind,
    pub outputs: Vec<Output>,
    pub rows: usize,
    pub rows_per_task: usize,
    /// How it is spread over a GPU; none on a CPU.
    pub grid: Option<Grid>,
}

impl KernelSpec {
    /// The same kernel for this machine.
    pub fn on(self, machine: &Machine) -> KernelSpec {
        match machine {
            Machine::Cpu => self,
            Machine::Cuda(gpu) => {
                // One launch does all rows; tasks are what it leaves partial results of.
                let spec = KernelSpec { rows_per_task: self.rows.max(1), ..self };
                KernelSpec { grid: Some(Grid::of(&spec, gpu)), ..spec }
            }
        }
    }

    pub fn region(body: Body, outputs: Vec<Output>) -> KernelSpec {
        let rows = body.rows().max(1);
        let columns = body.columns().max(1);
        let mut rows_per_task = TASK_ELEMENTS.div_ceil(columns).clamp(1, rows);
        let partials = outputs.iter().any(|o| partial(&body, &body.items[o.item]).is_some());
        if partials {
            rows_per_task = rows_per_task.max(rows.div_ceil(MAX_PARTIALS));
        }
        let by_chains = partials && body.split.is_some() && rows >= 2 * PARTIAL_ROWS;
        if by_chains {
            let most = PARTIAL_ROWS.max(rows.div_ceil(MAX_PARTIALS).next_power_of_two());
            rows_per_task = rows_per_task.next_power_of_two().min(most);
        }
        // Even tasks, and whole vectors where rows are elements; a single task has room for any fewer rows, so that
        // small kernels of different sizes are one kernel.
        match rows.div_ceil(rows_per_task) {
            1 => rows_per_task = TASK_ELEMENTS.div_ceil(columns).max(rows),
            _ if by_chains => {}
            tasks => {
                rows_per_task = rows.div_ceil(tasks);
                if body.split.is_none() {
                    rows_per_task = rows_per_task.next_multiple_of(64);
                }
            }
        }
        KernelSpec { kind: Kind::Region(body), outputs, rows, rows_per_task, grid: None }
    }

    pub fn movement(op: Op, operands: Vec<TensorType>, result: TensorType) -> KernelSpec {
        let rows = result.elements().max(1);
        let rows_per_task = TASK_ELEMENTS.min(rows);
        KernelSpec {
            kind: Kind::Move { op, operands, result },
            outputs: Vec::new(),
            rows,
            rows_per_task,
            grid: None,
        }
    }

    pub fn finish(parts: usize, width: usize, max: bool, dtype: DType) -> KernelSpec {
        KernelSpec {
            kind: Kind::Finish { parts, width, max, dtype },
            outputs: Vec::new(),
            rows: width,
            rows_per_task: width.min(TASK_ELEMENTS),
            grid: None,
        }
    }

    /// Tasks that a CPU cuts it into, or groups of a GPU: each leaves one partial result where rows are reduced.
    pub fn tasks(&self) -> usize {
        if let Some(grid) = &self.grid {
            return grid.groups();
        }
        self.rows.div_ceil(self.rows_per_task)
    }

    /// Scalar operations of all rows, as the cost model counts them.
    pub fn operations(&self) -> u64 {
        match &self.kind {
            Kind::Region(body) => cost::operations_of(body),
            Kind::Move { result, .. } => result.elements() as u64,
            Kind::Finish { parts, width, .. } => (parts * width) as u64,
        }
    }

    /// Everything the code depends on, as text; equal text, equal code. Rows do not count: one kernel serves any number
    /// of them, except that partial results are placed by task.
    pub fn canonical(&self) -> String {
        let mut s = String::new();
        match &self.kind {
            Kind::Region(b) => {
                let _ = write!(s, "region {:?}", b.split.map(|_| b.columns()));
                for ty in &b.input_types {
                    s.extend([" ", ty.dtype.name()]);
                }
                for (k, i) in b.items.iter().enumerate() {
                    let types = [i.operand, i.result.dtype].map(DType::name);
                    let levels = [i.level, b.result_level(k)].map(Level::name);
                    s.extend(["; ", i.op.mnemonic()]);
                    types.into_iter().chain(levels).for_each(|word| s.extend([" ", word]));
                    for source in &i.sources {
                        let _ = match *source {
                            Source::Item { index, access } => write!(s, " %{index} {}", access.name()),
                            Source::Input { index, access } => write!(s, " in{index} {}", access.name()),
                            Source::Constant(c) => write!(s, " {:x}", c.to_bits()),
                            // Of an index only whether it is the row's or the column's matters.
                            Source::Iota(axis) => write!(s, " iota{}", b.full.len() - axis),
                        };
                    }
                }
                let partials = self.outputs.iter().any(|o| partial(b, &b.items[o.item]).is_some());
                if partials && self.grid.is_none() {
                    let _ = write!(s, "; {} rows a task", self.rows_per_task);
                }
            }
            Kind::Move { op, operands, result } => {
                let _ = write!(s, "move {op:?} {operands:?} {result:?}");
            }
            Kind::Finish { parts, width, max, dtype } => {
                let _ = write!(s, "finish {parts} {width} {max} {dtype}");
            }
        }
        for o in &self.outputs {
            let _ = write!(s, " -> {} {} {:?}", o.item, o.ty.dtype.name(), o.in_place);
        }
        if let Some(Grid { threads, lanes, vector, .. }) = self.grid {
            let _ = write!(s, " on {threads} threads, {lanes} a row, {vector} elements each");
        }
        s
    }

    /// Symbol in the shared object.
    pub fn symbol(&self) -> String {
        let hash = blake3::hash(self.canonical().as_bytes()).to_hex();
        format!("isoflop_{}_{}", self.kind(), &hash[..16])
    }

    /// `rows`, `flat`, `finish`, or the operation of a movement.
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Region(b) if b.split.is_some() => "rows",
            Kind::Region(_) => "flat",
            Kind::Move { op, .. } => op.mnemonic(),
            Kind::Finish { .. } => "finish",
        }
    }

    /// Pointers that the kernel takes: what it reads, then what it writes and does not overwrite.
    pub fn n_args(&self) -> usize {
        match &self.kind {
            Kind::Region(b) => b.inputs.len() + self.outputs.iter().filter(|o| o.in_place.is_none()).count(),
            Kind::Move { operands, .. } => operands.len() + 1,
            Kind::Finish { .. } => 2,
        }
    }

    /// Of these arguments, which are read and which are written.
    pub fn reads_and_writes(&self) -> Vec<(bool, bool)> {
        let inputs = match &self.kind {
            Kind::Region(b) => b.inputs.len(),
            Kind::Move { operands, .. } => operands.len(),
            Kind::Finish { .. } => 1,
        };
        let over = |k: usize| self.outputs.iter().any(|o| o.in_place == Some(k));
        (0..self.n_args()).map(|k| (k < inputs, k >= inputs || over(k))).collect()
    }
}

/// The reduction over rows that this item is, if it is one: its result is partial until every task is done.
pub fn partial(body: &Body, item: &Item) -> Option<Reduction> {
    match item.op {
        Op::Reduce { .. } => match body.reduction(item) {
            Reduction::Row => None,
            r => Some(r),
        },
        _ => None,
    }
}

/// Inputs that the loops of phase `p` read at full level, given that full-level outputs of earlier phases are read
/// back from memory instead of being computed again.
fn loads_in_phase(body: &Body, outputs: &[Output], depths: &[usize], phase: usize) -> Vec<bool> {
    let mut loaded = vec![false; body.inputs.len()];
    let mut seen = vec![false; body.items.len()];
    let mut stack: Vec<usize> = phase_roots(body, outputs, depths, phase);
    while let Some(k) = stack.pop() {
        if std::mem::replace(&mut seen[k], true) {
            continue;
        }
        for s in &body.items[k].sources {
            match *s {
                Source::Input { index, access: Access::Direct } => loaded[index] = true,
                Source::Item { index, .. } => {
                    let stored = depths[index] < phase && outputs.iter().any(|o| o.item == index);
                    if body.result_level(index) == Level::Full && !stored {
                        stack.push(index);
                    }
                }
                _ => {}
            }
        }
    }
    loaded
}

/// Items that the column loop of a phase must compute: full-level results, and reductions of full-level values.
pub fn phase_roots(body: &Body, outputs: &[Output], depths: &[usize], phase: usize) -> Vec<usize> {
    let reads_full = |k: usize| body.items[k].level == Level::Full;
    (0..body.items.len())
        .filter(|&k| reads_full(k))
        .filter(|&k| match body.items[k].op {
            Op::Reduce { .. } => {
                let row = body.reduction(&body.items[k]) == Reduction::Row;
                (if row { depths[k] - 1 } else { depths[k] }) == phase
            }
            _ => depths[k] == phase && outputs.iter().any(|o| o.item == k),
        })
        .collect()
}

/// May output `item` overwrite input `input`? Only where the input is read element by element, and no later than
/// the output is written.
pub fn may_overwrite(body: &Body, outputs: &[Output], item: usize, input: usize) -> bool {
    let item_level = body.result_level(item);
    if partial(body, &body.items[item]).is_some() || !matches!(item_level, Level::Full | Level::Outer) {
        return false;
    }
    // Every use of the input must be direct, at the level of the output.
    let mut used = false;
    for i in &body.items {
        for s in &i.sources {
            if let Source::Input { index, access } = *s
                && index == input
            {
                used = true;
                if access != Access::Direct || i.level != item_level {
                    return false;
                }
            }
        }
    }
    if !used || body.input_types[input] != body.items[item].result {
        return false;
    }
    let depths = body.depths();
    if item_level == Level::Outer {
        // Row values are written after the last loop of their row; nothing reads the input after that.
        return true;
    }
    let last = depths.iter().copied().max().unwrap_or(0);
    (depths[item] + 1..=last).all(|p| !loads_in_phase(body, outputs, &depths, p)[input])
}
