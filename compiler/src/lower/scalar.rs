//! MLIR text of one scalar operation of a kernel's body. Transcendental functions are polynomials, because the
//! library's stay scalar calls inside loops; they vectorise like any other arithmetic.

use crate::graph::{Binary, Comparison, Op, ReduceKind, Unary};
use isoflop_kernels::DType;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Hands out SSA names, and knows whose functions a kernel may call.
#[derive(Default)]
pub struct Names {
    next: usize,
    /// The kernel is for a GPU, which has approximate functions in hardware and no library.
    pub cuda: bool,
    /// Arrays in a block's shared memory, by element type: elements of each.
    pub shared: BTreeMap<DType, usize>,
}

impl Names {
    pub fn new(cuda: bool) -> Names {
        Names { next: 0, cuda, shared: BTreeMap::new() }
    }

    /// The array of this type in shared memory, with so many elements at least.
    pub fn shared(&mut self, d: DType, elements: usize) -> String {
        let size = self.shared.entry(d).or_default();
        *size = elements.max(*size);
        format!("%shared_{}", d.name())
    }

    pub fn fresh(&mut self) -> String {
        self.next += 1;
        format!("%v{}", self.next)
    }
}

/// Element type inside a kernel: bool is one bit there and one byte in memory.
pub fn register(d: DType) -> &'static str {
    match d {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::Bf16 => "bf16",
        DType::I32 => "i32",
        DType::Bool => "i1",
    }
}

pub fn memory(d: DType) -> &'static str {
    match d {
        DType::Bool => "i8",
        _ => register(d),
    }
}

/// A constant of this type.
pub fn constant(out: &mut String, names: &mut Names, value: f64, d: DType) -> String {
    let v = names.fresh();
    let ty = register(d);
    let _ = match d {
        DType::Bool => writeln!(out, "{v} = arith.constant {}", value != 0.0),
        DType::I32 => writeln!(out, "{v} = arith.constant {} : i32", value as i32),
        DType::F64 => writeln!(out, "{v} = arith.constant 0x{:016X} : {ty}", value.to_bits()),
        DType::Bf16 => writeln!(out, "{v} = arith.constant 0x{:04X} : {ty}", (value as f32).to_bits() >> 16),
        DType::F32 => writeln!(out, "{v} = arith.constant 0x{:08X} : {ty}", (value as f32).to_bits()),
    };
    v
}

/// Writes `op` on operands of type `from`; the result has type `to`.
pub fn operation(
    out: &mut String,
    names: &mut Names,
    op: &Op,
    args: &[String],
    from: DType,
    to: DType,
) -> String {
    match op {
        Op::Unary(u) => unary(out, names, *u, &args[0], from),
        Op::Binary(b) => {
            let float = from.is_float();
            let name = match (b, float) {
                (Binary::Add, true) => "arith.addf",
                (Binary::Sub, true) => "arith.subf",
                (Binary::Mul, true) => "arith.mulf",
                (Binary::Div, true) => "arith.divf",
                (Binary::Max, true) => "arith.maximumf",
                (Binary::Min, true) => "arith.minimumf",
                (Binary::Pow, true) => "math.powf",
                (Binary::Add, false) => "arith.addi",
                (Binary::Sub, false) => "arith.subi",
                (Binary::Mul, false) => "arith.muli",
                (Binary::Div, false) => "arith.divsi",
                (Binary::Max, false) => "arith.maxsi",
                (Binary::Min, false) => "arith.minsi",
                (Binary::Pow, false) => "math.ipowi",
            };
            // One rounding instead of two where a product is added: allowed, and the same for every thread.
            let flags = if float && !matches!(b, Binary::Pow) { " fastmath<contract>" } else { "" };
            assign(out, names, &format!("{name} {}, {}{flags} : {}", args[0], args[1], register(from)))
        }
        Op::Compare(c) => {
            let (name, predicate) = match (c, from.is_float()) {
                (Comparison::Eq, true) => ("cmpf", "oeq"),
                (Comparison::Ne, true) => ("cmpf", "une"),
                (Comparison::Lt, true) => ("cmpf", "olt"),
                (Comparison::Le, true) => ("cmpf", "ole"),
                (Comparison::Gt, true) => ("cmpf", "ogt"),
                (Comparison::Ge, true) => ("cmpf", "oge"),
                (Comparison::Eq, false) => ("cmpi", "eq"),
                (Comparison::Ne, false) => ("cmpi", "ne"),
                // A bool's one bit would be a sign.
                (Comparison::Lt, false) if from == DType::Bool => ("cmpi", "ult"),
                (Comparison::Le, false) if from == DType::Bool => ("cmpi", "ule"),
                (Comparison::Gt, false) if from == DType::Bool => ("cmpi", "ugt"),
                (Comparison::Ge, false) if from == DType::Bool => ("cmpi", "uge"),
                (Comparison::Lt, false) => ("cmpi", "slt"),
                (Comparison::Le, false) => ("cmpi", "sle"),
                (Comparison::Gt, false) => ("cmpi", "sgt"),
                (Comparison::Ge, false) => ("cmpi", "sge"),
            };
            assign(
                out,
                names,
                &format!("arith.{name} {predicate}, {}, {} : {}", args[0], args[1], register(from)),
            )
        }
        Op::Select => assign(
            out,
            names,
            &format!("arith.select {}, {}, {} : {}", args[0], args[1], args[2], register(to)),
        ),
        Op::Cast => cast(out, names, &args[0], from, to),
        _ => unreachable!("{} is not elementwise", op.mnemonic()),
    }
}

/// Combines two partial results of a reduction.
pub fn combine(out: &mut String, names: &mut Names, kind: ReduceKind, a: &str, b: &str, d: DType) -> String {
    let ty = register(d);
    let name = match (kind, d.is_float()) {
        (ReduceKind::Sum, true) => "arith.addf",
        (ReduceKind::Sum, false) => "arith.addi",
        (ReduceKind::Max, true) => "arith.maximumf",
        (ReduceKind::Max, false) => "arith.maxsi",
    };
    let flags = match (kind, d.is_float()) {
        (ReduceKind::Sum, true) => " fastmath<reassoc,contract,nsz>",
        (ReduceKind::Max, true) => " fastmath<nsz>",
        _ => "",
    };
    assign(out, names, &format!("{name} {a}, {b}{flags} : {ty}"))
}

pub fn assign(out: &mut String, names: &mut Names, text: &str) -> String {
    let v = names.fresh();
    let _ = writeln!(out, "{v} = {text}");
    v
}

fn cast(out: &mut String, names: &mut Names, x: &str, from: DType, to: DType) -> String {
    let (a, b) = (register(from), register(to));
    if from == to {
        return x.to_string();
    }
    let name = match (from, to) {
        (DType::Bool, t) if t.is_float() => "arith.uitofp",
        (DType::Bool, _) => "arith.extui",
        (f, DType::Bool) => {
            let zero = constant(out, names, 0.0, f);
            let test = if f.is_float() { "arith.cmpf une" } else { "arith.cmpi ne" };
            return assign(out, names, &format!("{test}, {x}, {zero} : {a}"));
        }
        (DType::I32, _) => "arith.sitofp",
        (_, DType::I32) => return to_integer(out, names, x, from),
        (f, t) if f.bytes() < t.bytes() => "arith.extf",
        _ => "arith.truncf",
    };
    assign(out, names, &format!("{name} {x} : {a} to {b}"))
}

/// Toward zero, the nearest integer where out of range, 0 for NaN; what `fptosi` makes of those is not defined.
fn to_integer(out: &mut String, names: &mut Names, x: &str, from: DType) -> String {
    if from.bytes() < 4 {
        let wide = assign(out, names, &format!("arith.extf {x} : {} to f32", register(from)));
        return to_integer(out, names, &wide, DType::F32);
    }
    let ty = register(from);
    let (low, above) =
        (constant(out, names, -2f64.powi(31), from), constant(out, names, 2f64.powi(31), from));
    let zero = constant(out, names, 0.0, from);
    let (least, most) = (
        constant(out, names, i32::MIN.into(), DType::I32),
        constant(out, names, i32::MAX.into(), DType::I32),
    );
    let mut test = |p: &str, bound: &str| assign(out, names, &format!("arith.cmpf {p}, {x}, {bound} : {ty}"));
    let (under, over) = (test("olt", &low), test("oge", &above));
    let (at_least, at_most) = (test("oge", &low), test("olt", &above));
    let inside = assign(out, names, &format!("arith.andi {at_least}, {at_most} : i1"));
    let safe = assign(out, names, &format!("arith.select {inside}, {x}, {zero} : {ty}"));
    let whole = assign(out, names, &format!("arith.fptosi {safe} : {ty} to i32"));
    let whole = assign(out, names, &format!("arith.select {over}, {most}, {whole} : i32"));
    assign(out, names, &format!("arith.select {under}, {least}, {whole} : i32"))
}

pub fn unary(out: &mut String, names: &mut Names, u: Unary, x: &str, d: DType) -> String {
    if names.cuda
        && let Some(v) = super::approximate::unary(out, names, u, x, d)
    {
        return v;
    }
    let ty = register(d);
    let mut simple = |text: String| assign(out, names, &format!("{text} : {ty}"));
    match u {
        Unary::StopGradient => x.to_string(),
        Unary::Neg if d == DType::I32 => {
            let zero = constant(out, names, 0.0, d);
            assign(out, names, &format!("arith.subi {zero}, {x} : i32"))
        }
        Unary::Abs if d == DType::I32 => simple(format!("math.absi {x}")),
        Unary::Neg => simple(format!("arith.negf {x}")),
        Unary::Abs => simple(format!("math.absf {x}")),
        Unary::Log => simple(format!("math.log {x}")),
        Unary::Sqrt => simple(format!("math.sqrt {x}")),
        Unary::Sin => simple(format!("math.sin {x}")),
        Unary::Cos => simple(format!("math.cos {x}")),
        Unary::Rsqrt => {
            let root = simple(format!("math.sqrt {x}"));
            let one = constant(out, names, 1.0, d);
            assign(out, names, &format!("arith.divf {one}, {root} : {ty}"))
        }
        Unary::Exp if d == DType::F32 => Poly { out, names }.exp(x),
        Unary::Tanh if d == DType::F32 => Poly { out, names }.tanh(x),
        Unary::Exp => simple(format!("math.exp {x}")),
        Unary::Tanh => simple(format!("math.tanh {x}")),
    }
}

/// f32 polynomials; the coefficients of exp are those of the Cephes library's expf (Moshier 1992).
struct Poly<'a> {
    out: &'a mut String,
    names: &'a mut Names,
}

impl Poly<'_> {
    fn c(&mut self, value: f64) -> String {
        constant(self.out, self.names, value, DType::F32)
    }

    fn f(&mut self, name: &str, a: &str, b: &str) -> String {
        assign(self.out, self.names, &format!("arith.{name} {a}, {b} fastmath<contract> : f32"))
    }

    /// No contraction: the rounding trick below must round.
    fn exact(&mut self, name: &str, a: &str, b: &str) -> String {
        assign(self.out, self.names, &format!("arith.{name} {a}, {b} : f32"))
    }

    /// a * b + c, in one rounding.
    fn fma(&mut self, a: &str, b: &str, c: &str) -> String {
        let product = self.f("mulf", a, b);
        self.f("addf", &product, c)
    }

    fn horner(&mut self, x: &str, coefficients: &[f64]) -> String {
        let mut p = self.c(coefficients[0]);
        for &c in &coefficients[1..] {
            let c = self.c(c);
            p = self.fma(&p, x, &c);
        }
        p
    }

    fn select(&mut self, predicate: &str, a: &str, b: &str, on_true: &str, on_false: &str) -> String {
        let hit = assign(self.out, self.names, &format!("arith.cmpf {predicate}, {a}, {b} : f32"));
        assign(self.out, self.names, &format!("arith.select {hit}, {on_true}, {on_false} : f32"))
    }

    /// exp(x): 0 below -87.3, infinity above 88.7, NaN for NaN; relative error below 2e-7 between.
    fn exp(&mut self, x: &str) -> String {
        let (low, high) = (self.c(-87.33), self.c(88.72));
        let above = self.select("ogt", x, &low, x, &low);
        let within = self.select("olt", &above, &high, &above, &high);
        let log2e = self.c(std::f64::consts::LOG2_E);
        let scaled = self.exact("mulf", &within, &log2e);
        // Adding 1.5 * 2^23 rounds to an integer.
        let magic = self.c(12_582_912.0);
        let shifted = self.exact("addf", &scaled, &magic);
        let n = self.exact("subf", &shifted, &magic);
        let (hi, lo) = (self.c(-0.693_359_375), self.c(2.121_944_4e-4));
        let r = self.fma(&n, &hi, &within);
        let r = self.fma(&n, &lo, &r);
        let p = if self.names.cuda { self.power_of_two(&r, &log2e) } else { self.exp_near_zero(&r) };
        let n = assign(self.out, self.names, &format!("arith.fptosi {n} : f32 to i32"));
        // 2^n in two factors, so that n = 128 does not overflow before the product does.
        let half = constant(self.out, self.names, 1.0, DType::I32);
        let n1 = assign(self.out, self.names, &format!("arith.shrsi {n}, {half} : i32"));
        let n2 = assign(self.out, self.names, &format!("arith.subi {n}, {n1} : i32"));
        let p = self.times_power(&p, &n1);
        let p = self.times_power(&p, &n2);
        let zero = self.c(0.0);
        let p = self.select("olt", x, &low, &zero, &p);
        let infinity = self.c(f64::INFINITY);
        let p = self.select("ogt", x, &high, &infinity, &p);
        self.select("uno", x, x, x, &p)
    }

    /// exp(r) for r within half of ln 2.
    fn exp_near_zero(&mut self, r: &str) -> String {
        let p =
            self.horner(r, &[1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
        let r2 = self.f("mulf", r, r);
        let one = self.c(1.0);
        let r1 = self.f("addf", r, &one);
        self.fma(&p, &r2, &r1)
    }

    /// 2^(r log2e) by the GPU's own instruction, relative error below 2^-22.
    fn power_of_two(&mut self, r: &str, log2e: &str) -> String {
        let scaled = self.f("mulf", r, log2e);
        super::approximate::call(self.out, self.names, "ex2", &scaled)
    }

    fn times_power(&mut self, p: &str, n: &str) -> String {
        let bias = constant(self.out, self.names, 127.0, DType::I32);
        let shift = constant(self.out, self.names, 23.0, DType::I32);
        let e = assign(self.out, self.names, &format!("arith.addi {n}, {bias} : i32"));
        let bits = assign(self.out, self.names, &format!("arith.shli {e}, {shift} : i32"));
        let power = assign(self.out, self.names, &format!("arith.bitcast {bits} : i32 to f32"));
        self.f("mulf", p, &power)
    }

    /// tanh(x) = x P(x^2) / Q(x^2), no larger than 1; NaN for NaN; relative error below 4e-7. The two polynomials are the
    /// minimax ones for tanh(x) / x up to 9, where it is off by 2.1e-8 (linearised, with Lawson's weights); beyond, and
    /// from there on in f32, tanh is 1.
    fn tanh(&mut self, x: &str) -> String {
        let x = self.within(x, 9.0);
        let x2 = self.f("mulf", &x, &x);
        let p = self.horner(&x2, &[1.335_470_1e-8, 2.060_911_4e-5, 3.495_590_1e-3, 1.338_102_67e-1, 1.0]);
        let q = self.horner(&x2, &[7.776_574_8e-7, 3.285_638e-4, 2.587_699e-2, 4.671_434_2e-1, 1.0]);
        let xp = self.f("mulf", &x, &p);
        let ratio = self.f("divf", &xp, &q);
        self.within(&ratio, 1.0)
    }

    /// `x` between `-limit` and `limit`; NaN stays. In the form that is one instruction for each end.
    fn within(&mut self, x: &str, limit: f64) -> String {
        let (high, low) = (self.c(limit), self.c(-limit));
        let x = self.select("olt", &high, x, &high, x);
        self.select("ogt", &low, &x, &low, &x)
    }
}
