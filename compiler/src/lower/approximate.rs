//! Functions of one number by the approximate instructions of an NVIDIA GPU. There is no mathematics library to call: its
//! bitcode would have to be shipped and costs several times a kernel's compile time.
//!
//! Errors are those of the PTX manual: `ex2` and `rsqrt` within 2 units in the last place, `lg2` 2^-22 absolute for numbers
//! near 1, `sin` and `cos` 2^-20.5 absolute within one period.

use super::scalar::{Names, assign, constant};
use crate::graph::Unary;
use isoflop_kernels::DType;

/// The function, where a GPU computes it another way than a CPU does.
pub fn unary(out: &mut String, names: &mut Names, u: Unary, x: &str, d: DType) -> Option<String> {
    let same = matches!(u, Unary::StopGradient | Unary::Neg | Unary::Abs);
    match d {
        _ if same => None,
        DType::Bf16 => {
            let wide = assign(out, names, &format!("arith.extf {x} : bf16 to f32"));
            let v = super::scalar::unary(out, names, u, &wide, DType::F32);
            Some(assign(out, names, &format!("arith.truncf {v} : f32 to bf16")))
        }
        DType::F32 => match u {
            Unary::Rsqrt => Some(call(out, names, "rsqrt", x)),
            Unary::Log => {
                let log2 = call(out, names, "lg2", x);
                let ln2 = constant(out, names, std::f64::consts::LN_2, d);
                Some(assign(out, names, &format!("arith.mulf {log2}, {ln2} fastmath<contract> : f32")))
            }
            Unary::Sin | Unary::Cos => {
                let r = within_a_period(out, names, x);
                Some(call(out, names, if u == Unary::Sin { "sin" } else { "cos" }, &r))
            }
            _ => None,
        },
        _ => None,
    }
}

/// One approximate instruction of f32.
pub fn call(out: &mut String, names: &mut Names, name: &str, x: &str) -> String {
    let function = match name {
        "ex2" => "llvm.nvvm.ex2.approx.f32",
        "lg2" => "llvm.nvvm.lg2.approx.f",
        "sin" => "llvm.nvvm.sin.approx.f",
        "cos" => "llvm.nvvm.cos.approx.f",
        _ => "llvm.nvvm.rsqrt.approx.f",
    };
    assign(out, names, &format!("llvm.call_intrinsic \"{function}\"({x}) : (f32) -> f32"))
}

/// x less the nearest multiple of 2 pi, which is taken in two parts so that it loses little for x up to 10,000.
fn within_a_period(out: &mut String, names: &mut Names, x: &str) -> String {
    let mut c = |value: f64, out: &mut String| constant(out, names, value, DType::F32);
    let period = 2.0 * std::f64::consts::PI;
    let high = f64::from(6.28125f32);
    let (inverse, minus_high, minus_low) = (c(1.0 / period, out), c(-high, out), c(high - period, out));
    let mut f = |text: String, out: &mut String| assign(out, names, &format!("{text} : f32"));
    let turns = f(format!("arith.mulf {x}, {inverse}"), out);
    let turns = f(format!("math.roundeven {turns}"), out);
    let part = f(format!("math.fma {turns}, {minus_high}, {x}"), out);
    f(format!("math.fma {turns}, {minus_low}, {part}"), out)
}
