//! What one generated kernel computes, in the form that legality, cost and code emission all look at: a list of
//! scalar operations over an iteration space of rows and columns.
//!
//! The iteration space is `full`, the largest shape in the region, cut by `split` into outer axes (rows, divided among
//! tasks) and inner axes (columns, walked by one task). Every value lives at one level: full (one per row and
//! column), outer (one per row), inner (one per column, read only), or scalar.

use super::decision::Reason;
use super::order::{Place, Places};
use crate::graph::{Axes, Graph, Op, ReduceKind, Shape, TensorType, Value};
use isoflop_kernels::DType;
use petgraph::stable_graph::NodeIndex;
use smallvec::SmallVec;

/// Arguments a generated kernel may take.
pub const MAX_ARGS: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    Full,
    Outer,
    Inner,
    Scalar,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Full => "full",
            Level::Outer => "outer",
            Level::Inner => "inner",
            Level::Scalar => "scalar",
        }
    }
}

/// How an item reads a source: as it is, or repeated by a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Direct,
    /// The source's axes are the first of the result's.
    Prefix,
    /// The source's axes are the last of the result's.
    Suffix,
    /// The source is a scalar.
    Splat,
}

impl Access {
    pub fn name(self) -> &'static str {
        match self {
            Access::Direct => "direct",
            Access::Prefix => "prefix",
            Access::Suffix => "suffix",
            Access::Splat => "splat",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// Result of another item.
    Item {
        index: usize,
        access: Access,
    },
    /// `Body::inputs[index]`.
    Input {
        index: usize,
        access: Access,
    },
    Constant(f64),
    /// The index along one axis of the reader's shape.
    Iota(usize),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub node: NodeIndex,
    pub op: Op,
    pub sources: SmallVec<[Source; 3]>,
    pub result: TensorType,
    /// Element type of the operands; of a select's branches.
    pub operand: DType,
    /// Shape of the operands: the result's for elementwise operations, the operand's for reductions.
    pub work: Shape,
    /// Level of the work; a reduction's result stands one or two levels lower.
    pub level: Level,
}

/// Where a reduction's result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Over the columns: one result per row, usable at once.
    Row,
    /// Over the rows: one result per column, complete only after the last row.
    Column,
    /// Over everything.
    Total,
}

#[derive(Clone, Debug)]
pub struct Body {
    pub full: Shape,
    /// Outer axes; `None` where nothing in the region tells rows from columns, so that it runs over flat elements.
    pub split: Option<usize>,
    /// Values from outside, each once.
    pub inputs: Vec<Value>,
    pub input_types: Vec<TensorType>,
    /// In topological order.
    pub items: Vec<Item>,
}

/// Nodes that cost nothing inside a kernel and are copied into every region that reads them.
pub fn is_free(op: &Op) -> bool {
    matches!(op, Op::Constant { .. } | Op::Iota { .. } | Op::Broadcast { .. })
}

/// Nodes that can be items of a region.
pub fn is_item(op: &Op) -> bool {
    op.is_elementwise() || matches!(op, Op::Reduce { .. })
}

/// What `v` really reads, looking through free nodes. A broadcast into the middle, and an index among more than two
/// axes, stay values of their own, made by kernels of their own.
pub fn resolve(g: &Graph, v: Value) -> Resolved {
    match g.op(v.node) {
        Op::Constant { value } => Resolved::Constant(*value),
        Op::Iota { axis } if g.ty(v).rank() <= 2 => Resolved::Iota(*axis),
        Op::Broadcast { dims } => {
            let from = g.operands(v.node)[0];
            match (broadcast_access(dims, g.ty(v).rank()), g.op(from.node)) {
                (Some(_), Op::Constant { value }) => Resolved::Constant(*value),
                (None, _) | (_, Op::Iota { .. } | Op::Broadcast { .. }) => Resolved::Value(v, Access::Direct),
                (Some(access), _) => Resolved::Value(from, access),
            }
        }
        _ => Resolved::Value(v, Access::Direct),
    }
}

pub enum Resolved {
    Constant(f64),
    Iota(usize),
    Value(Value, Access),
}

fn broadcast_access(dims: &Axes, rank: usize) -> Option<Access> {
    let n = dims.len();
    if n == 0 {
        Some(Access::Splat)
    } else if n == rank {
        Some(Access::Direct)
    } else if dims.iter().enumerate().all(|(i, &d)| d == i) {
        Some(Access::Prefix)
    } else if dims.iter().enumerate().all(|(i, &d)| d == rank - n + i) {
        Some(Access::Suffix)
    } else {
        None
    }
}

/// A kernel before its items are copied out of the graph: what decides whether it can be one.
pub struct Draft<'g> {
    full: Shape,
    split: Option<usize>,
    inputs: SmallVec<[Value; 8]>,
    input_types: SmallVec<[&'g TensorType; 8]>,
    items: Vec<DraftItem<'g>>,
}

struct DraftItem<'g> {
    node: NodeIndex,
    op: &'g Op,
    sources: SmallVec<[Source; 3]>,
    result: &'g TensorType,
    operand: DType,
    work: &'g Shape,
    level: Level,
}

/// What one node reads and works on, whichever kernel it will be part of.
pub struct Reading<'g> {
    sources: SmallVec<[Resolved; 3]>,
    operand: DType,
    work: &'g Shape,
}

impl<'g> Reading<'g> {
    pub fn of(g: &'g Graph, n: NodeIndex) -> Reading<'g> {
        let operands = g.operands(n);
        let result = &g.node(n).results[0];
        let work = match g.op(n) {
            Op::Reduce { .. } => &g.ty(operands[0]).shape,
            _ => &result.shape,
        };
        let operand = operands.last().map_or(result.dtype, |&v| g.ty(v).dtype);
        Reading { sources: operands.into_iter().map(|v| resolve(g, v)).collect(), operand, work }
    }
}

impl<'g> Draft<'g> {
    /// These nodes of `g`, in topological order, as one kernel, or why they cannot be.
    pub fn of(g: &'g Graph, nodes: &[NodeIndex]) -> Result<Draft<'g>, Reason> {
        let readings: Vec<Reading> = nodes.iter().map(|&n| Reading::of(g, n)).collect();
        Draft::with(g, nodes, readings.iter(), &mut Places::new(g.index_bound()))
    }

    /// As [`Draft::of`], with what is known of each node, and a table to look them up in.
    pub fn with<'a>(
        g: &'g Graph,
        nodes: &[NodeIndex],
        readings: impl Iterator<Item = &'a Reading<'g>>,
        places: &mut Places,
    ) -> Result<Draft<'g>, Reason>
    where
        'g: 'a,
    {
        places.clear();
        let mut draft = Draft {
            full: Shape::new(),
            split: None,
            inputs: SmallVec::new(),
            input_types: SmallVec::new(),
            items: Vec::with_capacity(nodes.len()),
        };
        for (&n, &Reading { ref sources, operand, work }) in nodes.iter().zip(readings) {
            let sources = sources
                .iter()
                .map(|s| match *s {
                    Resolved::Constant(c) => Source::Constant(c),
                    Resolved::Iota(axis) => Source::Iota(axis),
                    Resolved::Value(from, access) => match places.get(from.node.index()) {
                        Some(Place::Item(index)) => Source::Item { index, access },
                        Some(Place::Input(index)) if draft.inputs[index] == from => {
                            Source::Input { index, access }
                        }
                        // Another result of a node that is an input already.
                        Some(_) => Source::Input { index: draft.input(g, from), access },
                        None => {
                            let index = draft.new_input(g, from);
                            places.set(from.node.index(), Place::Input(index));
                            Source::Input { index, access }
                        }
                    },
                })
                .collect();
            places.set(n.index(), Place::Item(draft.items.len()));
            let result = &g.node(n).results[0];
            let op = g.op(n);
            draft.items.push(DraftItem { node: n, op, sources, result, operand, work, level: Level::Full });
        }
        draft.find_domain()?;
        draft.find_levels()?;
        Ok(draft)
    }

    /// Values it reads.
    pub fn n_inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Which input `v` is, as a new one where it is none yet.
    fn input(&mut self, g: &'g Graph, v: Value) -> usize {
        self.inputs.iter().position(|&i| i == v).unwrap_or_else(|| self.new_input(g, v))
    }

    fn new_input(&mut self, g: &'g Graph, v: Value) -> usize {
        self.inputs.push(v);
        self.input_types.push(g.ty(v));
        self.inputs.len() - 1
    }

    fn find_domain(&mut self) -> Result<(), Reason> {
        let Some(largest) =
            self.items.iter().max_by_key(|i| (i.work.len(), i.work.iter().product::<usize>()))
        else {
            return Ok(());
        };
        self.full = largest.work.clone();
        let rank = self.full.len();
        let mut split: Option<usize> = None;
        let mut want = |k: usize| match split {
            Some(s) if s != k => Err(Reason::DomainMismatch),
            _ => {
                split = Some(k);
                Ok(())
            }
        };
        for item in self.items.iter().filter(|i| *i.work == self.full) {
            for s in &item.sources {
                let (access, source_rank) = match *s {
                    Source::Item { index, access } => (access, self.items[index].result.rank()),
                    Source::Input { index, access } => (access, self.input_types[index].rank()),
                    // Flat elements do not know their row and column.
                    Source::Iota(_) if rank == 2 => (Access::Prefix, 1),
                    Source::Iota(_) | Source::Constant(_) => continue,
                };
                match access {
                    Access::Prefix => want(source_rank)?,
                    Access::Suffix => want(rank - source_rank)?,
                    Access::Direct | Access::Splat => {}
                }
            }
            if let Op::Reduce { axes, .. } = item.op
                && axes.len() < rank
            {
                if is_trailing(axes, rank) {
                    want(rank - axes.len())?;
                } else if is_leading(axes) {
                    want(axes.len())?;
                } else {
                    return Err(Reason::Strided);
                }
            }
        }
        self.split = split;
        Ok(())
    }

    fn find_levels(&mut self) -> Result<(), Reason> {
        for k in 0..self.items.len() {
            let item = &self.items[k];
            let level = if *item.work == self.full {
                Level::Full
            } else if self.split.is_some_and(|s| item.work[..] == self.full[..s]) && !item.work.is_empty() {
                Level::Outer
            } else if item.work.is_empty() {
                return Err(Reason::ScalarApart);
            } else if self.split.is_some_and(|s| item.work[..] == self.full[s..]) {
                // A column vector computed in the region would be computed again for every row.
                return Err(Reason::RepeatsWork);
            } else {
                return Err(Reason::DomainMismatch);
            };
            if level == Level::Outer
                && let Op::Reduce { axes, .. } = item.op
                && axes.len() < item.work.len()
            {
                return Err(Reason::DomainMismatch);
            }
            for s in &item.sources {
                match *s {
                    Source::Item { index, access } => self.edge(&self.items[index], access, level)?,
                    Source::Input { access, .. } => {
                        if level == Level::Outer && matches!(access, Access::Prefix | Access::Suffix) {
                            return Err(Reason::DomainMismatch);
                        }
                    }
                    Source::Constant(_) => {}
                    Source::Iota(axis) => self.iota_fits(axis, level)?,
                }
            }
            self.items[k].level = level;
        }
        Ok(())
    }

    /// May an item at `level` read this earlier item's result with this access?
    fn edge(&self, producer: &DraftItem, access: Access, level: Level) -> Result<(), Reason> {
        let at = match producer.op {
            Op::Reduce { .. } => match reduction(producer.op, producer.work.len()) {
                Reduction::Row => Level::Outer,
                Reduction::Column | Reduction::Total => return Err(Reason::NeedsWholeReduction),
            },
            _ => producer.level,
        };
        match (at, access, level) {
            (Level::Full, Access::Direct, Level::Full) => Ok(()),
            (Level::Outer, Access::Direct, Level::Outer) => Ok(()),
            (Level::Outer, Access::Prefix, Level::Full) => Ok(()),
            // A column vector computed in the region would be computed again for every row.
            (_, Access::Suffix | Access::Splat, _) => Err(Reason::RepeatsWork),
            _ => Err(Reason::DomainMismatch),
        }
    }

    /// An index along an axis that the loops know: the row of a single outer axis, the column of a single inner one.
    fn iota_fits(&self, axis: usize, level: Level) -> Result<(), Reason> {
        let rank = self.full.len();
        let fits = match (self.split, level) {
            (None, _) => rank == 1,
            (Some(s), Level::Full) => (axis == 0 && s == 1) || (axis + 1 == rank && s + 1 == rank),
            (Some(s), _) => s == 1,
        };
        if fits { Ok(()) } else { Err(Reason::Strided) }
    }
}

impl Body {
    /// The body of these nodes of `g`, in topological order, or why they cannot be one kernel.
    pub fn of(g: &Graph, nodes: &[NodeIndex]) -> Result<Body, Reason> {
        let Draft { full, split, inputs, input_types, items } = Draft::of(g, nodes)?;
        let item = |i: DraftItem| Item {
            node: i.node,
            op: i.op.clone(),
            sources: i.sources,
            result: i.result.clone(),
            operand: i.operand,
            work: i.work.clone(),
            level: i.level,
        };
        Ok(Body {
            full,
            split,
            inputs: inputs.to_vec(),
            input_types: input_types.into_iter().cloned().collect(),
            items: items.into_iter().map(item).collect(),
        })
    }

    pub fn reduction(&self, item: &Item) -> Reduction {
        reduction(&item.op, item.work.len())
    }

    /// Rows of the iteration space: elements where there is no split.
    pub fn rows(&self) -> usize {
        match self.split {
            Some(s) => self.full[..s].iter().product(),
            None => self.full.iter().product(),
        }
    }

    /// Columns of the iteration space: 1 where there is no split.
    pub fn columns(&self) -> usize {
        self.split.map_or(1, |s| self.full[s..].iter().product())
    }

    /// Level of an input as an item at `level` reads it.
    pub fn input_level(&self, access: Access, level: Level) -> Level {
        match access {
            Access::Direct => level,
            Access::Prefix => Level::Outer,
            Access::Suffix => Level::Inner,
            Access::Splat => Level::Scalar,
        }
    }

    /// Level of item `k`'s result.
    pub fn result_level(&self, k: usize) -> Level {
        let item = &self.items[k];
        match item.op {
            Op::Reduce { .. } => match self.reduction(item) {
                Reduction::Row => Level::Outer,
                Reduction::Column => Level::Inner,
                Reduction::Total => Level::Scalar,
            },
            _ => item.level,
        }
    }

    /// The phase in which each item's value is known: a row reduction is complete one phase after its operand.
    pub fn depths(&self) -> Vec<usize> {
        let mut depth: Vec<usize> = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let of_sources = item.sources.iter().map(|s| match *s {
                Source::Item { index, .. } => depth[index],
                _ => 0,
            });
            let d = of_sources.max().unwrap_or(0);
            let row = matches!(item.op, Op::Reduce { .. }) && self.reduction(item) == Reduction::Row;
            depth.push(if row { d + 1 } else { d });
        }
        depth
    }
}

/// Where the result of this reduction of `rank` axes goes.
fn reduction(op: &Op, rank: usize) -> Reduction {
    let Op::Reduce { axes, .. } = op else { return Reduction::Total };
    if axes.len() == rank {
        Reduction::Total
    } else if is_trailing(axes, rank) {
        Reduction::Row
    } else {
        Reduction::Column
    }
}

fn is_trailing(axes: &Axes, rank: usize) -> bool {
    !axes.is_empty() && axes.iter().enumerate().all(|(i, &a)| a == rank - axes.len() + i)
}

fn is_leading(axes: &Axes) -> bool {
    !axes.is_empty() && axes.iter().enumerate().all(|(i, &a)| a == i)
}

/// The neutral element a reduction starts from.
pub fn neutral(kind: ReduceKind) -> f64 {
    match kind {
        ReduceKind::Sum => 0.0,
        ReduceKind::Max => f64::NEG_INFINITY,
    }
}
