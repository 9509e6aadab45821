//! What one instruction computes: registers hold bits, and the instruction says what they mean.
//!
//! Approximate instructions give a result as far off as the PTX manual allows, up or down by a bit of the argument, so that
//! a kernel that agrees with the truth here does so with any GPU's.

use super::op::{Compare, Op, Rounding, Ty};

/// The lowest `bytes` bytes.
pub fn mask(bits: u64, bytes: usize) -> u64 {
    if bytes >= 8 { bits } else { bits & ((1 << (8 * bytes)) - 1) }
}

/// A whole number of this type, with its sign.
fn signed(bits: u64, ty: Ty) -> i128 {
    match ty {
        Ty::S(bytes) => {
            let shift = 64 - 8 * u32::from(bytes);
            i128::from(((bits << shift) as i64) >> shift)
        }
        _ => i128::from(mask(bits, ty.bytes())),
    }
}

fn float(bits: u64, ty: Ty) -> f64 {
    match ty {
        Ty::Bf16 => f32::from_bits((bits as u32) << 16).into(),
        Ty::F64 => f64::from_bits(bits),
        _ => f32::from_bits(bits as u32).into(),
    }
}

/// Bits of the nearest number of this type, ties to even.
fn nearest(x: f64, ty: Ty) -> u64 {
    match ty {
        Ty::F64 => x.to_bits(),
        Ty::Bf16 => bf16(x),
        _ => u64::from((x as f32).to_bits()),
    }
}

fn bf16(x: f64) -> u64 {
    if x.is_nan() {
        return 0x7fff;
    }
    // Through an odd rounding to f32, so that nothing is rounded twice to nearest.
    let near = x as f32;
    let inexact = f64::from(near) != x;
    let mut bits = near.to_bits();
    if inexact && bits & 1 == 0 {
        let outward = f64::from(near).abs() < x.abs();
        bits = if outward { bits + 1 } else { bits - 1 };
    }
    let odd = (bits >> 16) & 1;
    u64::from((bits.wrapping_add(0x7fff + odd)) >> 16)
}

/// As far from `x` as `relative` and `absolute` allow.
fn approximate(x: f64, argument: u64, relative: f64, absolute: f64) -> u64 {
    let sign = if argument & 1 == 0 { 1.0 } else { -1.0 };
    let moved = if x.is_finite() { x * (1.0 + sign * relative) + sign * absolute } else { x };
    u64::from((moved as f32).to_bits())
}

/// The result of an instruction on these operands, or why it has none.
pub fn compute(op: Op, ty: Ty, args: &[u64]) -> Result<u64, String> {
    let (a, b, c) = (arg(args, 0), arg(args, 1), arg(args, 2));
    if let Op::Convert { from, rounding } = op {
        return convert(a, from, ty, rounding);
    }
    let bits = match op {
        Op::Mov => a,
        Op::And => a & b,
        Op::Or => a | b,
        Op::Xor => a ^ b,
        Op::Not if ty == Ty::Pred => a ^ 1,
        Op::Not => !a,
        // The amount is a 32-bit number of its own.
        Op::Shl if mask(b, 4) >= 8 * ty.bytes() as u64 => 0,
        Op::Shl => a << mask(b, 4),
        Op::Shr => (signed(a, ty) >> mask(b, 4).min(127)) as u64,
        Op::Selp => {
            if c & 1 == 1 {
                a
            } else {
                b
            }
        }
        Op::PackBf16 => nearest(float(a, Ty::F32), Ty::Bf16) << 16 | nearest(float(b, Ty::F32), Ty::Bf16),
        Op::Extract => extract(signed(a, ty), mask(b, 4), mask(c, 4), ty),
        Op::Insert => {
            let (position, length) = (mask(c, 4).min(64), mask(arg(args, 3), 4).min(64));
            let field = ((1u128 << length) - 1) << position;
            (u128::from(b) & !field | (u128::from(a) << position) & field) as u64
        }
        Op::Permute => permute(a, b, c)?,
        Op::Setp { compare, unordered } => u64::from(holds(compare, unordered, ty, a, b)),
        Op::SetpNan { nan } => u64::from((float(a, ty).is_nan() || float(b, ty).is_nan()) == nan),
        _ if ty.is_float() => return float_op(op, ty, [a, b, c]),
        _ => return integer_op(op, ty, [a, b, c]),
    };
    Ok(mask(bits, if matches!(op, Op::Setp { .. } | Op::SetpNan { .. }) { 1 } else { ty.bytes() }))
}

fn arg(args: &[u64], k: usize) -> u64 {
    args.get(k).copied().unwrap_or(0)
}

/// `length` bits of `a` from `position` on, with their sign where the type has one.
fn extract(a: i128, position: u64, length: u64, ty: Ty) -> u64 {
    let (position, length) = (position.min(127), length.min(64));
    let above = 128 - length as u32;
    if length == 0 {
        return 0;
    }
    match ty {
        Ty::S(_) => ((a >> position) << above >> above) as u64,
        _ => ((a as u128 >> position) << above >> above) as u64,
    }
}

/// Byte k of the result is that of `b:a` which digit k of the selector names.
fn permute(a: u64, b: u64, selector: u64) -> Result<u64, String> {
    let both = mask(a, 4) | mask(b, 4) << 32;
    let mut bits = 0;
    for k in 0..4 {
        let digit = selector >> (4 * k) & 0xf;
        if digit > 7 {
            return Err("a permutation that repeats a sign".into());
        }
        bits |= (both >> (8 * digit) & 0xff) << (8 * k);
    }
    Ok(bits)
}

fn integer_op(op: Op, ty: Ty, args: [u64; 3]) -> Result<u64, String> {
    let [a, b, _] = args.map(|x| signed(x, ty));
    let width = 8 * ty.bytes();
    let bits = match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul | Op::MulWide => a * b,
        Op::MulHigh => (a * b) >> width,
        Op::Mad => a * b + signed(args[2], ty),
        // What is added has twice the width.
        Op::MadWide => a * b + i128::from(args[2] as i64),
        Op::Div | Op::Rem if b == 0 => return Err("a division by zero".into()),
        Op::Div => a / b,
        Op::Rem => a % b,
        Op::Min { .. } => a.min(b),
        Op::Max { .. } => a.max(b),
        Op::Abs => a.abs(),
        Op::Neg => -a,
        _ => return Err(format!("{op:?} of whole numbers")),
    };
    let wide = matches!(op, Op::MulWide | Op::MadWide);
    Ok(mask(bits as u64, if wide { 2 * ty.bytes() } else { ty.bytes() }))
}

fn float_op(op: Op, ty: Ty, bits: [u64; 3]) -> Result<u64, String> {
    let [a, b, c] = bits.map(|x| float(x, ty));
    // Sums and products of f32 in f64 round twice, which is once more than the hardware does.
    if ty == Ty::F32 {
        let [a, b, c] = bits.map(|x| f32::from_bits(x as u32));
        let exact = match op {
            Op::Add => Some(a + b),
            Op::Sub => Some(a - b),
            Op::Mul => Some(a * b),
            Op::Div => Some(a / b),
            Op::Fma => Some(a.mul_add(b, c)),
            Op::Sqrt => Some(a.sqrt()),
            Op::Reciprocal => Some(1.0 / a),
            _ => None,
        };
        if let Some(x) = exact {
            return Ok(x.to_bits().into());
        }
    }
    let least = |nan: bool, x: f64, y: f64, first: bool| match (nan, x.is_nan() || y.is_nan()) {
        (true, true) => f64::NAN,
        (false, true) => {
            if x.is_nan() {
                y
            } else {
                x
            }
        }
        _ if x == y && x == 0.0 => {
            if x.is_sign_negative() == first {
                x
            } else {
                y
            }
        }
        _ => {
            if (x < y) == first {
                x
            } else {
                y
            }
        }
    };
    let x = match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div => a / b,
        Op::Fma => a.mul_add(b, c),
        Op::Sqrt => a.sqrt(),
        Op::Reciprocal => 1.0 / a,
        Op::Abs => a.abs(),
        Op::Neg => -a,
        Op::Min { nan } => least(nan, a, b, true),
        Op::Max { nan } => least(nan, a, b, false),
        Op::Rsqrt => return Ok(approximate(1.0 / a.sqrt(), bits[0], 2f64.powf(-22.9), 0.0)),
        Op::Ex2 => return Ok(approximate(a.exp2(), bits[0], 2f64.powi(-22), 0.0)),
        Op::Lg2 => return Ok(approximate(a.log2(), bits[0], 2f64.powi(-22), 2f64.powi(-22))),
        Op::Sin => return Ok(approximate(a.sin(), bits[0], 0.0, 2f64.powf(-20.5))),
        Op::Cos => return Ok(approximate(a.cos(), bits[0], 0.0, 2f64.powf(-20.5))),
        _ => return Err(format!("{op:?} of floating-point numbers")),
    };
    Ok(nearest(x, ty))
}

fn holds(compare: Compare, unordered: bool, ty: Ty, a: u64, b: u64) -> bool {
    let order = if ty.is_float() {
        float(a, ty).partial_cmp(&float(b, ty))
    } else {
        Some(signed(a, ty).cmp(&signed(b, ty)))
    };
    let Some(order) = order else { return unordered };
    match compare {
        Compare::Eq => order.is_eq(),
        Compare::Ne => order.is_ne(),
        Compare::Lt => order.is_lt(),
        Compare::Le => order.is_le(),
        Compare::Gt => order.is_gt(),
        Compare::Ge => order.is_ge(),
    }
}

fn convert(bits: u64, from: Ty, to: Ty, rounding: Rounding) -> Result<u64, String> {
    let integral = |x: f64| match rounding {
        Rounding::ToNearestInteger => Some(x.round_ties_even()),
        Rounding::TowardZero => Some(x.trunc()),
        _ => None,
    };
    match (from.is_float(), to.is_float()) {
        (false, false) => Ok(mask(signed(bits, from) as u64, to.bytes())),
        (false, true) => {
            let x = signed(bits, from);
            Ok(match to {
                Ty::F32 => u64::from((x as f32).to_bits()),
                _ => nearest(x as f64, to),
            })
        }
        (true, true) => {
            let x = float(bits, from);
            Ok(nearest(integral(x).unwrap_or(x), to))
        }
        (true, false) => {
            let x =
                integral(float(bits, from)).ok_or("a conversion to a whole number that does not say how")?;
            // Casts of Rust stop at the ends of a type, as the hardware's do.
            let whole = match to {
                Ty::S(4) => x as i32 as u64,
                Ty::S(8) => x as i64 as u64,
                Ty::U(4) => u64::from(x as u32),
                Ty::U(8) => x as u64,
                _ => return Err(format!("a conversion to {to:?}")),
            };
            Ok(mask(whole, to.bytes()))
        }
    }
}
