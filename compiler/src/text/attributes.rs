//! The attributes of each operation in the text form, both ways: what is printed in braces, and what braces mean.

use crate::graph::{
    Axes, Binary, Comparison, HeadCall, Library, Op, ReduceKind, RelAttentionCall, Role, Unary,
};
use isoflop_kernels::program::Init;

/// The word of every operation that can stand in a body: all but `input`.
pub const MNEMONICS: [&str; 46] = [
    "constant",
    "iota",
    "neg",
    "abs",
    "exp",
    "log",
    "tanh",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "stop_gradient",
    "add",
    "sub",
    "mul",
    "div",
    "max",
    "min",
    "pow",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "select",
    "cast",
    "broadcast",
    "reshape",
    "transpose",
    "slice",
    "pad",
    "concat",
    "reduce_sum",
    "reduce_max",
    "dot",
    "gather",
    "scatter_add",
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "fused",
    "rel_attention",
    "rel_attention_grad",
    "head_loss",
    "head_loss_grad",
];

/// The value of one attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Integer(usize),
    Number(f64),
    Word(String),
    List(Axes),
}

/// What stands in the braces of a node, in order.
pub(super) fn attributes(op: &Op) -> Vec<(&'static str, Attribute)> {
    use Attribute::*;
    let list = |a: &Axes| List(a.clone());
    match op {
        Op::Constant { value } => vec![("value", Number(*value))],
        Op::Iota { axis } | Op::Concat { axis } => vec![("axis", Integer(*axis))],
        Op::Broadcast { dims } => vec![("dims", list(dims))],
        Op::Transpose { perm } => vec![("perm", list(perm))],
        Op::Slice { starts, limits } => vec![("starts", list(starts)), ("limits", list(limits))],
        Op::Pad { low, high, value } => {
            vec![("low", list(low)), ("high", list(high)), ("value", Number(*value))]
        }
        Op::Reduce { axes, .. } => vec![("axes", list(axes))],
        Op::Dot { lhs_batch, rhs_batch, lhs_contract, rhs_contract } => vec![
            ("lhs_batch", list(lhs_batch)),
            ("rhs_batch", list(rhs_batch)),
            ("lhs_contract", list(lhs_contract)),
            ("rhs_contract", list(rhs_contract)),
        ],
        Op::ScatterAdd { vocab } => vec![("vocab", Integer(*vocab))],
        Op::AllReduce { group } | Op::AllGather { group } | Op::ReduceScatter { group } => {
            vec![("group", Word(group.clone()))]
        }
        Op::Call(Library::RelAttention(c) | Library::RelAttentionGrad(c)) => vec![
            ("batch", Integer(c.batch)),
            ("seq", Integer(c.seq)),
            ("heads", Integer(c.heads)),
            ("d_head", Integer(c.d_head)),
        ],
        Op::Call(Library::HeadLoss(c) | Library::HeadLossGrad(c)) => vec![
            ("rows", Integer(c.rows)),
            ("width", Integer(c.width)),
            ("vocab", Integer(c.vocab)),
            ("chunk", Integer(c.chunk)),
        ],
        Op::Input { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast
        | Op::Reshape
        | Op::Gather
        | Op::Fused { .. } => vec![],
    }
}

/// What stands in the braces of an input; `id` only where it is not the input's place in the signature.
pub(super) fn input_attributes(id: Option<u32>, role: &Role) -> Vec<(&'static str, Attribute)> {
    let mut out: Vec<(&'static str, Attribute)> = vec![];
    if let Some(id) = id {
        out.push(("id", Attribute::Integer(id as usize)));
    }
    let (role, init) = match role {
        Role::Data => return out,
        Role::State(init) => ("state", init),
        Role::Table(init) => ("table", init),
    };
    out.push(("role", Attribute::Word(role.into())));
    let name = match init {
        Init::Zeros => "zeros",
        Init::Ones => "ones",
        Init::Normal { .. } => "normal",
        Init::RelativeSinusoid => "relative-sinusoid",
    };
    out.push(("init", Attribute::Word(name.into())));
    if let Init::Normal { std } = init {
        out.push(("std", Attribute::Number(*std)));
    }
    out
}

/// Gives out attributes by name. Errors are in words; the parser adds the place.
pub(super) trait Source {
    fn integer(&mut self, key: &'static str) -> Result<usize, super::ParseError>;
    fn number(&mut self, key: &'static str) -> Result<f64, super::ParseError>;
    fn word(&mut self, key: &'static str) -> Result<String, super::ParseError>;
    fn axes(&mut self, key: &'static str) -> Result<Axes, super::ParseError>;
}

/// The operation a mnemonic and its attributes say; none for a word that is no operation. Fused regions are read by
/// the parser itself.
pub(super) fn operation(mnemonic: &str, a: &mut impl Source) -> Result<Option<Op>, super::ParseError> {
    if let Some(&u) = Unary::ALL.iter().find(|u| u.name() == mnemonic) {
        return Ok(Some(Op::Unary(u)));
    }
    if let Some(&b) = Binary::ALL.iter().find(|b| b.name() == mnemonic) {
        return Ok(Some(Op::Binary(b)));
    }
    if let Some(&c) = Comparison::ALL.iter().find(|c| c.name() == mnemonic) {
        return Ok(Some(Op::Compare(c)));
    }
    Ok(Some(match mnemonic {
        "constant" => Op::Constant { value: a.number("value")? },
        "iota" => Op::Iota { axis: a.integer("axis")? },
        "select" => Op::Select,
        "cast" => Op::Cast,
        "broadcast" => Op::Broadcast { dims: a.axes("dims")? },
        "reshape" => Op::Reshape,
        "transpose" => Op::Transpose { perm: a.axes("perm")? },
        "slice" => Op::Slice { starts: a.axes("starts")?, limits: a.axes("limits")? },
        "pad" => Op::Pad { low: a.axes("low")?, high: a.axes("high")?, value: a.number("value")? },
        "concat" => Op::Concat { axis: a.integer("axis")? },
        "reduce_sum" => Op::Reduce { kind: ReduceKind::Sum, axes: a.axes("axes")? },
        "reduce_max" => Op::Reduce { kind: ReduceKind::Max, axes: a.axes("axes")? },
        "dot" => Op::Dot {
            lhs_batch: a.axes("lhs_batch")?,
            rhs_batch: a.axes("rhs_batch")?,
            lhs_contract: a.axes("lhs_contract")?,
            rhs_contract: a.axes("rhs_contract")?,
        },
        "gather" => Op::Gather,
        "scatter_add" => Op::ScatterAdd { vocab: a.integer("vocab")? },
        "all_reduce" => Op::AllReduce { group: a.word("group")? },
        "all_gather" => Op::AllGather { group: a.word("group")? },
        "reduce_scatter" => Op::ReduceScatter { group: a.word("group")? },
        "rel_attention" => Op::Call(Library::RelAttention(attention(a)?)),
        "rel_attention_grad" => Op::Call(Library::RelAttentionGrad(attention(a)?)),
        "head_loss" => Op::Call(Library::HeadLoss(head(a)?)),
        "head_loss_grad" => Op::Call(Library::HeadLossGrad(head(a)?)),
        _ => return Ok(None),
    }))
}

fn attention(a: &mut impl Source) -> Result<RelAttentionCall, super::ParseError> {
    Ok(RelAttentionCall {
        batch: a.integer("batch")?,
        seq: a.integer("seq")?,
        heads: a.integer("heads")?,
        d_head: a.integer("d_head")?,
    })
}

fn head(a: &mut impl Source) -> Result<HeadCall, super::ParseError> {
    Ok(HeadCall {
        rows: a.integer("rows")?,
        width: a.integer("width")?,
        vocab: a.integer("vocab")?,
        chunk: a.integer("chunk")?,
    })
}
