//! The operations of the graph: about thirty primitives, and the two composite nodes that passes form.
//!
//! What each means is said by the interpreter (`interp`) and in words by docs/spec.md.

use super::Graph;
use isoflop_kernels::program::Init;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A few axes, in the order the operation gives them meaning.
pub type Axes = SmallVec<[usize; 2]>;

/// Elementwise functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unary {
    Neg,
    Abs,
    Exp,
    Log,
    Tanh,
    Sqrt,
    Rsqrt,
    Sin,
    Cos,
    /// Identity whose gradient is zero. Removed by `simplify` once gradients exist.
    StopGradient,
}

/// Elementwise functions of two operands of equal type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
}

/// Elementwise comparisons; the result is bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceKind {
    Sum,
    Max,
}

/// What the compiler knows of an input.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "kebab-case")]
pub enum Role {
    /// Written by the host before each call.
    Data,
    /// Lives across calls; a graph output of the same name is its next value.
    State(Init),
    /// Filled once.
    Table(Init),
}

/// A product the CPU or GPU library computes, with everything its call needs but the pointers.
#[derive(Clone, Debug, PartialEq)]
pub enum Library {
    /// Operands qkv [T, 3*H*k], rel [seq, H*k], u [H, k], v [H, k]; results out [T, H*k], lse [batch*H, seq].
    RelAttention(RelAttentionCall),
    /// Operands qkv, rel, u, v, out, lse, dout; results dqkv, drel, du, dv.
    RelAttentionGrad(RelAttentionCall),
    /// Operands h [rows, width], table [vocab, width], targets i32 [rows]; result: the mean cross entropy, a scalar.
    HeadLoss(HeadCall),
    /// Operands of [`HeadLoss`](Library::HeadLoss); results loss, dh, dtable.
    HeadLossGrad(HeadCall),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelAttentionCall {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub d_head: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadCall {
    pub rows: usize,
    pub width: usize,
    pub vocab: usize,
    /// Rows whose logits exist at once; changes no meaning.
    pub chunk: usize,
}

#[derive(Clone, Debug)]
pub enum Op {
    /// A graph input: no operands.
    Input {
        name: String,
        role: Role,
    },
    /// Every element is `value`: no operands.
    Constant {
        value: f64,
    },
    /// The index along `axis`: no operands.
    Iota {
        axis: usize,
    },
    Unary(Unary),
    Binary(Binary),
    Compare(Comparison),
    /// Operands: condition (bool), on true, on false.
    Select,
    /// To the result's element type. Float to integer truncates toward zero.
    Cast,
    /// Operand axis k becomes result axis `dims[k]` (ascending); equal extents; every other result axis repeats.
    Broadcast {
        dims: Axes,
    },
    /// Same elements in row-major order.
    Reshape,
    /// Result axis k is operand axis `perm[k]`.
    Transpose {
        perm: Axes,
    },
    /// Elements `starts[k]..limits[k]` of every axis.
    Slice {
        starts: Axes,
        limits: Axes,
    },
    /// `low[k]` before and `high[k]` after every axis, filled with `value`.
    Pad {
        low: Axes,
        high: Axes,
        value: f64,
    },
    /// Along `axis`, two or more operands.
    Concat {
        axis: usize,
    },
    /// Over `axes` (ascending), which vanish from the shape. Max of nothing is -inf.
    Reduce {
        kind: ReduceKind,
        axes: Axes,
    },
    /// Sum of products over the contracting axes. Result axes: batch, then free axes of lhs, then free axes of rhs.
    Dot {
        lhs_batch: Axes,
        rhs_batch: Axes,
        lhs_contract: Axes,
        rhs_contract: Axes,
    },
    /// Operands: table [V, rest..], indices (i32). Result: indices' shape then rest. An index outside 0..V is an error.
    Gather,
    /// Operands: indices (i32), updates (indices' shape then rest), and perhaps a base of the result's type. Result
    /// [vocab, rest..]: the base, or zero, plus the updates of each index.
    ScatterAdd {
        vocab: usize,
    },
    /// Sum over all members of the named process group; element by element.
    AllReduce {
        group: String,
    },
    /// Concatenation over the named group along axis 0. The result's axis 0 is a multiple of the operand's.
    AllGather {
        group: String,
    },
    /// Sum over the named group, of which each member keeps its part of axis 0.
    ReduceScatter {
        group: String,
    },
    /// One generated kernel: a subgraph whose inputs `p0`, `p1`, ... are this node's operands and whose outputs are its results.
    Fused {
        region: Box<Graph>,
    },
    /// A call into a library of kernels.
    Call(Library),
}

impl Unary {
    pub const ALL: [Unary; 10] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Sqrt,
        Unary::Rsqrt,
        Unary::Sin,
        Unary::Cos,
        Unary::StopGradient,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Tanh => "tanh",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
            Unary::Sin => "sin",
            Unary::Cos => "cos",
            Unary::StopGradient => "stop_gradient",
        }
    }
}

impl Binary {
    pub const ALL: [Binary; 7] =
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min, Binary::Pow];

    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Max => "max",
            Binary::Min => "min",
            Binary::Pow => "pow",
        }
    }

    pub fn commutes(self) -> bool {
        matches!(self, Binary::Add | Binary::Mul | Binary::Max | Binary::Min)
    }
}

impl Comparison {
    pub const ALL: [Comparison; 6] =
        [Comparison::Eq, Comparison::Ne, Comparison::Lt, Comparison::Le, Comparison::Gt, Comparison::Ge];

    pub fn name(self) -> &'static str {
        match self {
            Comparison::Eq => "eq",
            Comparison::Ne => "ne",
            Comparison::Lt => "lt",
            Comparison::Le => "le",
            Comparison::Gt => "gt",
            Comparison::Ge => "ge",
        }
    }
}

impl Op {
    /// The word the text form starts with.
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Constant { .. } => "constant",
            Op::Iota { .. } => "iota",
            Op::Unary(u) => u.name(),
            Op::Binary(b) => b.name(),
            Op::Compare(c) => c.name(),
            Op::Select => "select",
            Op::Cast => "cast",
            Op::Broadcast { .. } => "broadcast",
            Op::Reshape => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::Reduce { kind: ReduceKind::Sum, .. } => "reduce_sum",
            Op::Reduce { kind: ReduceKind::Max, .. } => "reduce_max",
            Op::Dot { .. } => "dot",
            Op::Gather => "gather",
            Op::ScatterAdd { .. } => "scatter_add",
            Op::AllReduce { .. } => "all_reduce",
            Op::AllGather { .. } => "all_gather",
            Op::ReduceScatter { .. } => "reduce_scatter",
            Op::Fused { .. } => "fused",
            Op::Call(Library::RelAttention(_)) => "rel_attention",
            Op::Call(Library::RelAttentionGrad(_)) => "rel_attention_grad",
            Op::Call(Library::HeadLoss(_)) => "head_loss",
            Op::Call(Library::HeadLossGrad(_)) => "head_loss_grad",
        }
    }

    /// Operands and result have one shape, and result element i depends on operand elements i only.
    pub fn is_elementwise(&self) -> bool {
        matches!(self, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast)
    }
}

/// Two operations compute the same from the same operands. Inputs and fused regions equal only themselves.
impl Op {
    pub fn same_as(&self, other: &Op) -> bool {
        use Op::*;
        match (self, other) {
            (Constant { value: a }, Constant { value: b }) => a.to_bits() == b.to_bits(),
            (Iota { axis: a }, Iota { axis: b }) | (Concat { axis: a }, Concat { axis: b }) => a == b,
            (Unary(a), Unary(b)) => a == b,
            (Binary(a), Binary(b)) => a == b,
            (Compare(a), Compare(b)) => a == b,
            (Select, Select) | (Cast, Cast) | (Reshape, Reshape) | (Gather, Gather) => true,
            (Broadcast { dims: a }, Broadcast { dims: b }) => a == b,
            (Transpose { perm: a }, Transpose { perm: b }) => a == b,
            (Slice { starts: a, limits: b }, Slice { starts: c, limits: d }) => a == c && b == d,
            (Pad { low: a, high: b, value: v }, Pad { low: c, high: d, value: w }) => {
                a == c && b == d && v.to_bits() == w.to_bits()
            }
            (Reduce { kind: a, axes: b }, Reduce { kind: c, axes: d }) => a == c && b == d,
            (
                Dot { lhs_batch: a, rhs_batch: b, lhs_contract: c, rhs_contract: d },
                Dot { lhs_batch: e, rhs_batch: f, lhs_contract: g, rhs_contract: h },
            ) => a == e && b == f && c == g && d == h,
            (ScatterAdd { vocab: a }, ScatterAdd { vocab: b }) => a == b,
            (AllReduce { group: a }, AllReduce { group: b })
            | (AllGather { group: a }, AllGather { group: b })
            | (ReduceScatter { group: a }, ReduceScatter { group: b }) => a == b,
            (Call(a), Call(b)) => a == b,
            _ => false,
        }
    }

    /// Equal operations have equal keys; the reverse need not hold (a hash table's first look).
    pub fn key(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut h = rustc_hash::FxHasher::default();
        self.mnemonic().hash(&mut h);
        match self {
            Op::Constant { value } => value.to_bits().hash(&mut h),
            Op::Iota { axis } | Op::Concat { axis } => axis.hash(&mut h),
            Op::Broadcast { dims } => dims.hash(&mut h),
            Op::Transpose { perm } => perm.hash(&mut h),
            Op::Slice { starts, limits } => (starts, limits).hash(&mut h),
            Op::Pad { low, high, value } => (low, high, value.to_bits()).hash(&mut h),
            Op::Reduce { axes, .. } => axes.hash(&mut h),
            Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } => {
                (lhs_batch, rhs_batch, lhs_contract, rhs_contract).hash(&mut h)
            }
            Op::ScatterAdd { vocab } => vocab.hash(&mut h),
            _ => {}
        }
        h.finish()
    }
}
