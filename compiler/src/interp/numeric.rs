//! Arithmetic on single elements: the one place that says what it is, for the interpreter and for constant folding.

use crate::graph::{Binary, Comparison, Unary};
use isoflop_kernels::DType;

/// Of a float, or of an i32 that wraps.
pub(crate) fn unary(u: Unary, x: f64, dtype: DType) -> f64 {
    let y = match u {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::StopGradient => x,
    };
    whole(y, dtype)
}

/// An i32 wraps around; a bool is whether the number is not zero; a float is itself.
pub(crate) fn whole(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::I32 => x as i64 as i32 as f64,
        other => convert(x, other),
    }
}

/// Max and min of a NaN and anything are NaN.
pub(crate) fn float(b: Binary, x: f64, y: f64) -> f64 {
    match b {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Max if x.is_nan() || y.is_nan() => f64::NAN,
        Binary::Min if x.is_nan() || y.is_nan() => f64::NAN,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Pow => x.powf(y),
    }
}

/// On i32: wraps around, division truncates toward zero; none for a division by zero.
pub(crate) fn integer(b: Binary, x: i64, y: i64) -> Option<f64> {
    let exact = match b {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Div => x.checked_div(y)?,
        Binary::Pow if y >= 0 => (x as i32).wrapping_pow(y as u32) as i64,
        // 1 / x^-y, truncated.
        Binary::Pow => match x {
            0 => return None,
            1 => 1,
            -1 => 1 - 2 * (y.rem_euclid(2)),
            _ => 0,
        },
    };
    Some(exact as i32 as f64)
}

pub(crate) fn compare(c: Comparison, x: f64, y: f64) -> bool {
    match c {
        Comparison::Eq => x == y,
        Comparison::Ne => x != y,
        Comparison::Lt => x < y,
        Comparison::Le => x <= y,
        Comparison::Gt => x > y,
        Comparison::Ge => x >= y,
    }
}

/// A number as an element of this type: what `cast`, `constant`, `iota` and the fill of `pad` do. Toward zero to i32,
/// the nearest i32 if it is out of range, 0 for NaN; to bool, whether it is not zero.
pub(crate) fn convert(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::F64 | DType::Bf16 => x,
        DType::I32 => x as i32 as f64,
        DType::Bool => f64::from(x != 0.0),
    }
}

/// The number a memory cell of this type keeps: floats rounded to nearest.
pub(crate) fn stored(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => x as f32 as f64,
        DType::Bf16 => to_bf16(x),
        DType::F64 | DType::I32 | DType::Bool => convert(x, dtype),
    }
}

/// Nearest bf16, ties to even, by way of f32.
fn to_bf16(x: f64) -> f64 {
    let f = x as f32;
    if !f.is_finite() {
        return f as f64;
    }
    let bits = f.to_bits();
    let up = 0x7fff + ((bits >> 16) & 1);
    f32::from_bits(bits.wrapping_add(up) & 0xffff_0000) as f64
}
