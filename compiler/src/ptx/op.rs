//! The instructions of PTX that generated kernels use, by their full names. Any other is an error: nothing is guessed.

/// Element type of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Pred,
    /// Bits, by width in bytes.
    B(u8),
    U(u8),
    S(u8),
    Bf16,
    F32,
    F64,
}

impl Ty {
    pub fn parse(name: &str) -> Option<Ty> {
        let bytes = |bits: &str| match bits {
            "8" => Some(1),
            "16" => Some(2),
            "32" => Some(4),
            "64" => Some(8),
            _ => None,
        };
        match name {
            "pred" => Some(Ty::Pred),
            "bf16" => Some(Ty::Bf16),
            "f32" => Some(Ty::F32),
            "f64" => Some(Ty::F64),
            _ => match name.split_at_checked(1)? {
                ("b", bits) => bytes(bits).map(Ty::B),
                ("u", bits) => bytes(bits).map(Ty::U),
                ("s", bits) => bytes(bits).map(Ty::S),
                _ => None,
            },
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Ty::Pred => 1,
            Ty::B(n) | Ty::U(n) | Ty::S(n) => n.into(),
            Ty::Bf16 => 2,
            Ty::F32 => 4,
            Ty::F64 => 8,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Ty::Bf16 | Ty::F32 | Ty::F64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Param,
    Global,
    Shared,
}

/// How a conversion rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// None is needed, or it is exact.
    None,
    /// To the nearest number of the result's type, ties to even.
    Nearest,
    /// To a whole number: nearest, ties to even.
    ToNearestInteger,
    /// To a whole number, toward zero.
    TowardZero,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Mov,
    Load(Space),
    Store(Space),
    Convert {
        from: Ty,
        rounding: Rounding,
    },
    Add,
    Sub,
    Mul,
    /// The upper half of the product.
    MulHigh,
    /// The product in twice the width.
    MulWide,
    Mad,
    MadWide,
    Fma,
    Div,
    Rem,
    Min {
        nan: bool,
    },
    Max {
        nan: bool,
    },
    Abs,
    Neg,
    Not,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Sqrt,
    Reciprocal,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    /// True where an operand is NaN, if `unordered`.
    Setp {
        compare: Compare,
        unordered: bool,
    },
    /// Whether one of two numbers is NaN, or neither is.
    SetpNan {
        nan: bool,
    },
    Selp,
    /// Four bytes chosen out of eight.
    Permute,
    /// So many bits from a position on.
    Extract,
    /// The first number's lowest bits in place of so many of the second's.
    Insert,
    /// Two f32 as two bf16 in one register, the first in its upper half.
    PackBf16,
    Branch,
    Return,
    /// Exchange with the lane whose number differs in some bits.
    Butterfly,
    Barrier,
    WarpBarrier,
}

/// The operation, its type and how many elements it moves, by the name of the instruction.
pub fn decode(name: &str) -> Option<(Op, Ty, usize)> {
    let parts: Vec<&str> = name.split('.').collect();
    let one = |op: Op, ty: &str| Some((op, Ty::parse(ty)?, 1));
    let float = |op: Op, ty: &str| one(op, ty).filter(|d| d.1.is_float());
    let integer = |op: Op, ty: &str| one(op, ty).filter(|d| matches!(d.1, Ty::U(_) | Ty::S(_)));
    match parts[..] {
        ["mov", ty] => one(Op::Mov, ty),
        ["ld", space, ref rest @ ..] => memory(space, rest, true),
        ["st", space, ref rest @ ..] => memory(space, rest, false),
        ["cvt", "rn", "bf16x2", "f32"] => one(Op::PackBf16, "b32"),
        ["cvt", ref rest @ ..] => convert(rest),
        ["add", ty] | ["add", "rn", ty] => one(Op::Add, ty),
        ["sub", ty] | ["sub", "rn", ty] => one(Op::Sub, ty),
        ["mul", ty] | ["mul", "rn", ty] => float(Op::Mul, ty),
        ["mul", "lo", ty] => integer(Op::Mul, ty),
        ["mul", "hi", ty] => integer(Op::MulHigh, ty),
        ["mul", "wide", ty] => integer(Op::MulWide, ty),
        ["mad", "lo", ty] => integer(Op::Mad, ty),
        ["mad", "wide", ty] => integer(Op::MadWide, ty),
        ["fma", "rn", ty] => float(Op::Fma, ty),
        ["div", "rn", ty] => float(Op::Div, ty),
        ["div", ty] => integer(Op::Div, ty),
        ["rem", ty] => integer(Op::Rem, ty),
        ["min", ty] => one(Op::Min { nan: false }, ty),
        ["max", ty] => one(Op::Max { nan: false }, ty),
        ["min", "NaN", ty] => float(Op::Min { nan: true }, ty),
        ["max", "NaN", ty] => float(Op::Max { nan: true }, ty),
        ["abs", ty] => one(Op::Abs, ty),
        ["neg", ty] => one(Op::Neg, ty),
        ["not", ty] => one(Op::Not, ty),
        ["and", ty] => one(Op::And, ty),
        ["or", ty] => one(Op::Or, ty),
        ["xor", ty] => one(Op::Xor, ty),
        ["shl", ty] => one(Op::Shl, ty),
        ["shr", ty] => one(Op::Shr, ty),
        ["sqrt", "rn", ty] => float(Op::Sqrt, ty),
        ["rcp", "rn", ty] => float(Op::Reciprocal, ty),
        ["rsqrt", "approx", "f32"] => one(Op::Rsqrt, "f32"),
        ["ex2", "approx", "f32"] => one(Op::Ex2, "f32"),
        ["lg2", "approx", "f32"] => one(Op::Lg2, "f32"),
        ["sin", "approx", "f32"] => one(Op::Sin, "f32"),
        ["cos", "approx", "f32"] => one(Op::Cos, "f32"),
        ["setp", compare, ty] => setp(compare, Ty::parse(ty)?),
        ["selp", ty] => one(Op::Selp, ty),
        ["prmt", "b32"] => one(Op::Permute, "b32"),
        ["bfe", ty] => integer(Op::Extract, ty),
        ["bfi", ty @ ("b32" | "b64")] => one(Op::Insert, ty),
        ["bra"] | ["bra", "uni"] => one(Op::Branch, "pred"),
        ["ret"] => one(Op::Return, "pred"),
        ["shfl", "sync", "bfly", "b32"] => one(Op::Butterfly, "b32"),
        ["bar", "sync"] => one(Op::Barrier, "pred"),
        ["bar", "warp", "sync"] => one(Op::WarpBarrier, "b32"),
        _ => None,
    }
}

fn memory(space: &str, rest: &[&str], load: bool) -> Option<(Op, Ty, usize)> {
    let space = match space {
        "param" if load => Space::Param,
        "global" => Space::Global,
        "shared" => Space::Shared,
        _ => return None,
    };
    // What is never written while the kernel runs may come through another cache.
    let rest = match rest {
        ["nc", rest @ ..] if load && space == Space::Global => rest,
        rest => rest,
    };
    let (elements, ty) = match *rest {
        [ty] => (1, ty),
        ["v2", ty] => (2, ty),
        ["v4", ty] => (4, ty),
        _ => return None,
    };
    Some((if load { Op::Load(space) } else { Op::Store(space) }, Ty::parse(ty)?, elements))
}

fn convert(rest: &[&str]) -> Option<(Op, Ty, usize)> {
    let (rounding, to, from) = match *rest {
        [to, from] => (Rounding::None, to, from),
        ["rn", to, from] => (Rounding::Nearest, to, from),
        ["rni", to, from] => (Rounding::ToNearestInteger, to, from),
        ["rzi", to, from] => (Rounding::TowardZero, to, from),
        _ => return None,
    };
    Some((Op::Convert { from: Ty::parse(from)?, rounding }, Ty::parse(to)?, 1))
}

fn setp(compare: &str, ty: Ty) -> Option<(Op, Ty, usize)> {
    let unordered = ty.is_float() && compare.len() == 3 && compare.ends_with('u');
    let compare = match if unordered { &compare[..2] } else { compare } {
        "eq" => Compare::Eq,
        "ne" => Compare::Ne,
        "lt" => Compare::Lt,
        "le" => Compare::Le,
        "gt" => Compare::Gt,
        "ge" => Compare::Ge,
        // Of unsigned numbers.
        "lo" if matches!(ty, Ty::U(_)) => Compare::Lt,
        "ls" if matches!(ty, Ty::U(_)) => Compare::Le,
        "hi" if matches!(ty, Ty::U(_)) => Compare::Gt,
        "hs" if matches!(ty, Ty::U(_)) => Compare::Ge,
        "num" if ty.is_float() => return Some((Op::SetpNan { nan: false }, ty, 1)),
        "nan" if ty.is_float() => return Some((Op::SetpNan { nan: true }, ty, 1)),
        _ => return None,
    };
    Some((Op::Setp { compare, unordered }, ty, 1))
}
