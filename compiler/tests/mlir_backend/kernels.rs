//! Kernel texts in the form that the region emitter writes: 1-D memrefs with index arithmetic, a row range, scalar loops.

use isoflop_compiler::mlir::UNBOUNDED;

/// A function of `args` f32 pointers named `%p0`, `%p1`, ... and a row range `%lo`, `%hi`.
///
/// In `body`, MEM stands for the memref type and FAST for the flags of accumulations.
fn kernel(name: &str, args: usize, body: &str) -> String {
    let memref = format!("memref<{UNBOUNDED}xf32>");
    let pointers: Vec<String> =
        (0..args).map(|i| format!("%p{i}: {memref} {{llvm.noalias, llvm.align = 64 : i64}}")).collect();
    let pointers = pointers.join(", ");
    let body = body.replace("MEM", &memref).replace("FAST", "fastmath<contract,reassoc,nsz>");
    format!(
        "func.func @{name}({pointers}, %lo: index, %hi: index)
    attributes {{passthrough = [[\"prefer-vector-width\", \"512\"]]}} {{
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
{body}
  return
}}
"
    )
}

/// p2[i] = p0[i] + p1[i] for i in lo..hi
pub fn vector_add(name: &str) -> String {
    let body = "  scf.for %i = %lo to %hi step %c1 {
    %a = memref.load %p0[%i] : MEM
    %b = memref.load %p1[%i] : MEM
    %s = arith.addf %a, %b : f32
    memref.store %s, %p2[%i] : MEM
  }";
    kernel(name, 3, body)
}

/// Rows lo..hi of p2 = p0 / rms(p0) * p1, each of `d_model` elements; eps = 1e-5.
pub fn rms_norm(d_model: usize) -> String {
    let inv_d = 1.0 / d_model as f64;
    let body = format!(
        "  %d = arith.constant {d_model} : index
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %eps = arith.constant 1.0e-5 : f32
  %inv_d = arith.constant {inv_d:.12} : f32
  scf.for %row = %lo to %hi step %c1 {{
    %base = arith.muli %row, %d : index
    %sum = scf.for %j = %c0 to %d step %c1 iter_args(%acc = %zero) -> (f32) {{
      %at = arith.addi %base, %j : index
      %x = memref.load %p0[%at] : MEM
      %sq = arith.mulf %x, %x FAST : f32
      %next = arith.addf %acc, %sq FAST : f32
      scf.yield %next : f32
    }}
    %mean = arith.mulf %sum, %inv_d : f32
    %shifted = arith.addf %mean, %eps : f32
    %root = math.sqrt %shifted : f32
    %scale = arith.divf %one, %root : f32
    scf.for %j = %c0 to %d step %c1 {{
      %at = arith.addi %base, %j : index
      %x = memref.load %p0[%at] : MEM
      %g = memref.load %p1[%j] : MEM
      %n = arith.mulf %x, %scale : f32
      %y = arith.mulf %n, %g : f32
      memref.store %y, %p2[%at] : MEM
    }}
  }}"
    );
    kernel("rms_norm", 3, &body)
}

/// `%e = exp(%v)` for one f32: 2^n by shifting n into the exponent bits, times a polynomial of degree 5 (Cephes expf).
const EXP: &str = "      %lowest = arith.constant -87.3 : f32
      %clamped = arith.maxnumf %v, %lowest : f32
      %log2e = arith.constant 1.44269504 : f32
      %ln2_hi = arith.constant -0.693359375 : f32
      %ln2_lo = arith.constant 2.12194440e-4 : f32
      %scaled = arith.mulf %clamped, %log2e : f32
      %n = math.roundeven %scaled : f32
      %r0 = math.fma %n, %ln2_hi, %clamped : f32
      %r = math.fma %n, %ln2_lo, %r0 : f32
      %k5 = arith.constant 1.9875691500e-4 : f32
      %k4 = arith.constant 1.3981999507e-3 : f32
      %k3 = arith.constant 8.3334519073e-3 : f32
      %k2 = arith.constant 4.1665795894e-2 : f32
      %k1 = arith.constant 1.6666665459e-1 : f32
      %k0 = arith.constant 5.0000001201e-1 : f32
      %h4 = math.fma %k5, %r, %k4 : f32
      %h3 = math.fma %h4, %r, %k3 : f32
      %h2 = math.fma %h3, %r, %k2 : f32
      %h1 = math.fma %h2, %r, %k1 : f32
      %h0 = math.fma %h1, %r, %k0 : f32
      %rr = arith.mulf %r, %r : f32
      %t = math.fma %h0, %rr, %r : f32
      %unit = arith.constant 1.0 : f32
      %poly = arith.addf %t, %unit : f32
      %ni = arith.fptosi %n : f32 to i32
      %bias = arith.constant 127 : i32
      %biased = arith.addi %ni, %bias : i32
      %mantissa = arith.constant 23 : i32
      %bits = arith.shli %biased, %mantissa : i32
      %pow2 = arith.bitcast %bits : i32 to f32
      %e = arith.mulf %poly, %pow2 : f32";

/// Rows lo..hi of p1 = softmax(p0), each of `cols` elements, with the elements right of the diagonal masked out.
pub fn causal_softmax(cols: usize) -> String {
    let body = format!(
        "  %d = arith.constant {cols} : index
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %masked = arith.constant -1.0e30 : f32
  scf.for %row = %lo to %hi step %c1 {{
    %base = arith.muli %row, %d : index
    %max = scf.for %j = %c0 to %d step %c1 iter_args(%acc = %masked) -> (f32) {{
      %at = arith.addi %base, %j : index
      %raw = memref.load %p0[%at] : MEM
      %keep = arith.cmpi ule, %j, %row : index
      %x = arith.select %keep, %raw, %masked : f32
      %next = arith.maxnumf %acc, %x fastmath<nnan,nsz> : f32
      scf.yield %next : f32
    }}
    %sum = scf.for %j = %c0 to %d step %c1 iter_args(%acc = %zero) -> (f32) {{
      %at = arith.addi %base, %j : index
      %raw = memref.load %p0[%at] : MEM
      %keep = arith.cmpi ule, %j, %row : index
      %v = arith.subf %raw, %max : f32
{EXP}
      %kept = arith.select %keep, %e, %zero : f32
      memref.store %kept, %p1[%at] : MEM
      %next = arith.addf %acc, %kept FAST : f32
      scf.yield %next : f32
    }}
    %scale = arith.divf %one, %sum : f32
    scf.for %j = %c0 to %d step %c1 {{
      %at = arith.addi %base, %j : index
      %x = memref.load %p1[%at] : MEM
      %y = arith.mulf %x, %scale : f32
      memref.store %y, %p1[%at] : MEM
    }}
  }}"
    );
    kernel("causal_softmax", 2, &body)
}

/// p1[i] = op(p0[i]) for i in lo..hi, such as `math.log`
pub fn elementwise(name: &str, op: &str) -> String {
    let body = format!(
        "  scf.for %i = %lo to %hi step %c1 {{
    %v = memref.load %p0[%i] : MEM
    %e = {op} %v : f32
    memref.store %e, %p1[%i] : MEM
  }}"
    );
    kernel(name, 2, &body)
}

/// p1[i] = exp(p0[i]) for i in lo..hi, by the polynomial
pub fn exp(name: &str) -> String {
    let body = format!(
        "  scf.for %i = %lo to %hi step %c1 {{
      %v = memref.load %p0[%i] : MEM
{EXP}
      memref.store %e, %p1[%i] : MEM
  }}"
    );
    kernel(name, 2, &body)
}

/// p1[i] = p0[i] where positive; where not, only if the row's first element is: `scf.if` with and without results
pub fn branches(name: &str) -> String {
    let body = "  %zero = arith.constant 0.0 : f32
  %first = memref.load %p0[%lo] : MEM
  %open = arith.cmpf ogt, %first, %zero : f32
  scf.for %i = %lo to %hi step %c1 {
    %v = memref.load %p0[%i] : MEM
    %positive = arith.cmpf ogt, %v, %zero : f32
    %chosen = scf.if %positive -> (f32) {
      scf.yield %v : f32
    } else {
      scf.yield %zero : f32
    }
    %either = arith.ori %positive, %open : i1
    scf.if %either {
      memref.store %chosen, %p1[%i] : MEM
    }
  }";
    kernel(name, 2, body)
}
