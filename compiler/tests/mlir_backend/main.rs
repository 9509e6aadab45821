//! The back half of lowering from end to end: kernels in MLIR text become shared objects that give the numbers Rust gives.
#![cfg(feature = "mlir")]

mod kernels;

use isoflop_compiler::mlir::{
    Emit, MlirError, Severity, Target, UNBOUNDED, compile, compile_all, link_shared, version,
};
use std::path::Path;

/// A fixed sequence of floats in -4..4 (a linear congruential generator: the same on every machine).
fn floats(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 8.0 - 4.0
    };
    (0..len).map(|_| next()).collect()
}

/// A buffer that starts at a multiple of 64 bytes, as the kernels' `llvm.align` promises.
struct Aligned {
    storage: Vec<f32>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(values: &[f32]) -> Aligned {
        let mut storage = vec![0.0; values.len() + 16];
        let start = storage.as_ptr().align_offset(64);
        storage[start..start + values.len()].copy_from_slice(values);
        Aligned { storage, start, len: values.len() }
    }

    fn values(&self) -> &[f32] {
        &self.storage[self.start..self.start + self.len]
    }

    fn pointer(&mut self) -> *mut f32 {
        self.storage[self.start..].as_mut_ptr()
    }
}

fn object(text: &str) -> Vec<u8> {
    compile(text, &Target::host(), Emit::Object).unwrap().bytes
}

/// Compiles `text` for this machine, links it, and opens the result.
fn load(text: &str) -> libloading::Library {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernels.so");
    link_shared(&[&object(text)], &path).unwrap();
    // SAFETY: the library has no initialisers; it was made from the text above.
    unsafe { libloading::Library::new(&path).unwrap() }
}

/// Calls `name(buffers..., lo, hi)`.
fn call(library: &libloading::Library, name: &str, buffers: &mut [&mut Aligned], lo: i64, hi: i64) {
    type Two = unsafe extern "C" fn(*mut f32, *mut f32, i64, i64);
    type Three = unsafe extern "C" fn(*mut f32, *mut f32, *mut f32, i64, i64);
    // SAFETY: `kernels` writes every kernel with these signatures, and the buffers hold the rows up to `hi`.
    unsafe {
        match buffers {
            [a, b] => library.get::<Two>(name).unwrap()(a.pointer(), b.pointer(), lo, hi),
            [a, b, c] => library.get::<Three>(name).unwrap()(a.pointer(), b.pointer(), c.pointer(), lo, hi),
            _ => panic!("kernels here have two or three buffers"),
        }
    }
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs();
        assert!(error <= tolerance * e.abs().max(1e-3), "element {i}: found {f}, expected {e}");
    }
}

#[test]
fn vector_add_gives_the_sums_of_its_range_only() {
    let library = load(&kernels::vector_add("add"));
    let (a, b) = (floats(1, 1000), floats(2, 1000));
    let mut out = Aligned::new(&vec![-7.0; 1000]);
    call(&library, "add", &mut [&mut Aligned::new(&a), &mut Aligned::new(&b), &mut out], 3, 997);
    for (i, &found) in out.values().iter().enumerate() {
        let expected = if (3..997).contains(&i) { a[i] + b[i] } else { -7.0 };
        assert_eq!(found, expected, "element {i}");
    }
}

#[test]
fn rms_norm_agrees_with_rust() {
    let (rows, d_model) = (13, 200);
    let library = load(&kernels::rms_norm(d_model));
    let (x, gain) = (floats(3, rows * d_model), floats(4, d_model));
    let mut out = Aligned::new(&vec![0.0; rows * d_model]);
    let mut buffers = [&mut Aligned::new(&x), &mut Aligned::new(&gain), &mut out];
    call(&library, "rms_norm", &mut buffers, 0, rows as i64);
    let mut expected = Vec::new();
    for row in x.chunks(d_model) {
        let mean = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / d_model as f64;
        let scale = 1.0 / (mean + 1e-5).sqrt();
        expected.extend(row.iter().zip(&gain).map(|(&v, &g)| f64::from(v) * scale * f64::from(g)));
    }
    assert_close(out.values(), &expected, 1e-6);
}

#[test]
fn causal_softmax_with_polynomial_exp_agrees_with_rust() {
    let cols = 77;
    let library = load(&kernels::causal_softmax(cols));
    let x = floats(5, cols * cols);
    let mut out = Aligned::new(&vec![0.0; cols * cols]);
    call(&library, "causal_softmax", &mut [&mut Aligned::new(&x), &mut out], 0, cols as i64);
    let mut expected = Vec::new();
    for (row, values) in x.chunks(cols).enumerate() {
        let max = values[..=row].iter().copied().fold(f32::MIN, f32::max);
        let exps: Vec<f64> = values[..=row].iter().map(|&v| (f64::from(v) - f64::from(max)).exp()).collect();
        let sum: f64 = exps.iter().sum();
        expected.extend((0..cols).map(|j| exps.get(j).map_or(0.0, |e| e / sum)));
    }
    assert_close(out.values(), &expected, 1e-6);
}

#[test]
fn branches_agree_with_rust() {
    let library = load(&kernels::branches("branches"));
    let x = floats(8, 100);
    for lo in 0..10 {
        let mut out = Aligned::new(&[-7.0; 100]);
        call(&library, "branches", &mut [&mut Aligned::new(&x), &mut out], lo as i64, 100);
        for (i, &found) in out.values().iter().enumerate() {
            let stored = i >= lo && (x[i] > 0.0 || x[lo] > 0.0);
            assert_eq!(found, if stored { x[i].max(0.0) } else { -7.0 }, "element {i} from {lo}");
        }
    }
}

#[test]
fn library_functions_agree_with_rust() {
    type Reference = fn(f64) -> f64;
    let functions: [(&str, &str, Reference); 8] = [
        ("f_log", "math.log", f64::ln),
        ("f_sqrt", "math.sqrt", f64::sqrt),
        ("f_sin", "math.sin", f64::sin),
        ("f_cos", "math.cos", f64::cos),
        ("f_exp", "math.exp", f64::exp),
        ("f_tanh", "math.tanh", f64::tanh),
        ("f_rsqrt", "math.rsqrt", |x| 1.0 / x.sqrt()),
        ("f_atan", "math.atan", f64::atan),
    ];
    let text: String = functions.iter().map(|(name, op, _)| kernels::elementwise(name, op)).collect();
    let library = load(&text);
    let x: Vec<f32> = floats(6, 100).into_iter().map(|v| v.abs() + 0.1).collect();
    for (name, _, reference) in functions {
        let mut out = Aligned::new(&[0.0; 100]);
        call(&library, name, &mut [&mut Aligned::new(&x), &mut out], 0, 100);
        let expected: Vec<f64> = x.iter().map(|&v| reference(f64::from(v))).collect();
        assert_close(out.values(), &expected, 3e-6);
    }
}

#[test]
fn error_function_lowers_to_libm() {
    let library = load(&kernels::elementwise("f_erf", "math.erf"));
    let mut out = Aligned::new(&[0.0; 3]);
    call(&library, "f_erf", &mut [&mut Aligned::new(&[0.0, 0.5, -1.0]), &mut out], 0, 3);
    // Abramowitz and Stegun, table 7.1.
    assert_close(out.values(), &[0.0, 0.520_499_877_8, -0.842_700_792_9], 1e-6);
}

#[test]
fn one_module_may_hold_many_kernels() {
    let text: String = (0..20).map(|i| kernels::vector_add(&format!("k{i}"))).collect();
    let library = load(&text);
    for name in ["k0", "k7", "k19"] {
        let mut out = Aligned::new(&[0.0; 4]);
        let (mut a, mut b) = (Aligned::new(&[1.0, 2.0, 3.0, 4.0]), Aligned::new(&[10.0; 4]));
        call(&library, name, &mut [&mut a, &mut b, &mut out], 0, 4);
        assert_eq!(out.values(), [11.0, 12.0, 13.0, 14.0], "{name}");
    }
}

#[test]
fn results_come_in_the_order_of_the_texts() {
    let mut texts: Vec<String> = (0..12).map(|i| kernels::vector_add(&format!("k{i}_"))).collect();
    texts[5] = "no module".into();
    for threads in [0, 1, 5, 50] {
        let results = compile_all(&texts, &Target::x86_64_v3(), Emit::Mlir, threads);
        assert_eq!(results.len(), texts.len());
        for (i, result) in results.into_iter().enumerate() {
            match result {
                Ok(output) => assert!(output.text().unwrap().contains(&format!("@k{i}_(")), "{i}"),
                Err(found) => assert!(i == 5 && matches!(found, MlirError::Parse { .. }), "{i}: {found}"),
            }
        }
    }
    let none: [&str; 0] = [];
    assert!(compile_all(&none, &Target::x86_64_v3(), Emit::Mlir, 2).is_empty());
}

/// How many lines of the assembly of `text` contain all of `needles`.
fn count(text: &str, target: &Target, needles: &[&str]) -> usize {
    let asm = compile(text, target, Emit::Asm).unwrap();
    let lines = asm.text().unwrap().lines();
    lines.filter(|line| needles.iter().all(|needle| line.contains(needle))).count()
}

#[test]
fn inner_loops_use_the_widest_registers() {
    let (v3, v4, arm) = (Target::x86_64_v3(), Target::x86_64_v4(), Target::aarch64());
    for (name, text) in [
        ("vector_add", kernels::vector_add("k")),
        ("rms_norm", kernels::rms_norm(1024)),
        ("causal_softmax", kernels::causal_softmax(1024)),
        ("exp", kernels::exp("k")),
        ("sqrt", kernels::elementwise("k", "math.sqrt")),
    ] {
        assert!(count(&text, &v4, &["ps\t", "%zmm"]) > 0, "{name}: no packed operation on zmm registers");
        assert!(count(&text, &v3, &["ps\t", "%ymm"]) > 0, "{name}: no packed operation on ymm registers");
        assert_eq!(count(&text, &v3, &["%zmm"]), 0, "{name}: AVX-512 in code for x86-64-v3");
        assert!(count(&text, &arm, &["\tf", ".4s"]) > 0, "{name}: no packed operation on NEON registers");
    }
    // Sums of squares are FMAs on whole registers; the polynomial has its conversions and shifts packed.
    assert!(count(&kernels::rms_norm(1024), &v4, &["vfmadd", "ps\t", "%zmm"]) > 0);
    assert!(
        count(&kernels::rms_norm(32), &v4, &["vfmadd", "ps\t", "%zmm"]) > 0,
        "short rows are vectors too"
    );
    for needle in ["vfmadd", "vcvttps2dq", "vpslld", "vrndscaleps"] {
        assert!(count(&kernels::causal_softmax(1024), &v4, &[needle, "%zmm"]) > 0, "{needle} is not packed");
    }
}

#[test]
fn equal_input_gives_equal_bytes_on_any_thread() {
    let text =
        kernels::rms_norm(64) + &kernels::causal_softmax(64) + &kernels::elementwise("f_log", "math.log");
    let target = Target::x86_64_v3();
    let first = compile(&text, &target, Emit::Object).unwrap();
    for other in compile_all(&[&text; 6], &target, Emit::Object, 3) {
        assert_eq!(other.unwrap(), first);
    }
    assert_ne!(first, compile(&text, &Target::x86_64_v4(), Emit::Object).unwrap());
}

#[test]
fn equal_input_gives_equal_bytes_in_another_process() {
    const OUT: &str = "ISOFLOP_TEST_OBJECT";
    let text = kernels::causal_softmax(64) + &kernels::rms_norm(64);
    let bytes = object(&text);
    if let Some(path) = std::env::var_os(OUT) {
        // We are the other process.
        std::fs::write(path, bytes).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.o");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "equal_input_gives_equal_bytes_in_another_process"])
        .env(OUT, &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(bytes, std::fs::read(&path).unwrap());
}

#[test]
fn equal_objects_link_to_equal_bytes_anywhere() {
    let objects = [object(&kernels::vector_add("one")), object(&kernels::exp("two"))];
    let objects: Vec<&[u8]> = objects.iter().map(Vec::as_slice).collect();
    let folder = tempfile::tempdir().unwrap();
    let deeper = folder.path().join("a longer folder name");
    std::fs::create_dir(&deeper).unwrap();
    let (a, b) = (folder.path().join("a.so"), deeper.join("other name.so"));
    link_shared(&objects, &a).unwrap();
    link_shared(&objects, &b).unwrap();
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_eq!(std::fs::read_dir(&deeper).unwrap().count(), 1, "no scratch folder stays behind");
    // SAFETY: the library has no initialisers; it was made from the texts above.
    let library = unsafe { libloading::Library::new(&b).unwrap() };
    let mut out = Aligned::new(&[0.0; 3]);
    call(&library, "two", &mut [&mut Aligned::new(&[0.0, 1.0, -2.0]), &mut out], 0, 3);
    assert_close(out.values(), &[1.0, 1f64.exp(), (-2f64).exp()], 1e-6);
}

#[test]
fn each_stage_can_be_seen() {
    let text = kernels::vector_add("k");
    let target = Target::x86_64_v3();
    let stage = |emit| compile(&text, &target, emit).unwrap().text().map(str::to_owned);
    let mlir = stage(Emit::Mlir).unwrap();
    assert!(mlir.contains("scf.for") && mlir.contains("func.func @k"), "{mlir}");
    let again = compile(&mlir, &target, Emit::Mlir).unwrap();
    assert_eq!(again.text(), Some(mlir.as_str()), "printing is a fixed point");
    let dialect = stage(Emit::LlvmDialect).unwrap();
    assert!(dialect.contains("llvm.func @k(%arg0: !llvm.ptr") && !dialect.contains("memref"), "{dialect}");
    let ir = stage(Emit::LlvmIr).unwrap();
    assert!(ir.contains("x86_64-unknown-linux-gnu") && ir.contains("fadd <8 x float>"), "{ir}");
    let asm = stage(Emit::Asm).unwrap();
    assert!(asm.contains("vaddps"), "{asm}");
    assert_eq!(stage(Emit::Object), None);
    assert_eq!(&compile(&text, &target, Emit::Object).unwrap().bytes[..4], b"\x7fELF");
}

fn error(text: &str, emit: Emit) -> MlirError {
    compile(text, &Target::x86_64_v3(), emit).unwrap_err()
}

#[test]
fn a_fault_in_the_text_is_quoted() {
    let text = kernels::vector_add("k").replace("arith.addf %a, %b : f32", "arith.addf %a, %i : f32");
    let line = text.lines().position(|l| l.contains("arith.addf")).unwrap() + 1;
    let found = error(&text, Emit::Object);
    let MlirError::Parse { diagnostics, rendered } = &found else { panic!("{found}") };
    assert_eq!(diagnostics[0].severity, Severity::Error);
    assert_eq!(diagnostics[0].position.unwrap().0, line);
    assert!(
        rendered.contains("expects different type") && rendered.contains("arith.addf %a, %i"),
        "{rendered}"
    );
    assert!(!diagnostics[0].notes.is_empty(), "the note about the other use is kept");
}

#[test]
fn faults_at_every_stage_are_errors() {
    assert!(matches!(error("func.func @k( {", Emit::Mlir), MlirError::Parse { .. }));
    assert!(matches!(error("func.func @k() {\0 return }", Emit::Mlir), MlirError::Parse { .. }));
    assert!(matches!(error("nowhere.op", Emit::Mlir), MlirError::Parse { .. }));
    let twice = kernels::vector_add("k") + &kernels::vector_add("k");
    let found = error(&twice, Emit::Mlir).to_string();
    assert!(found.contains("redefinition of symbol named 'k'"), "{found}");

    let dynamic = kernels::vector_add("k").replace(&UNBOUNDED.to_string(), "?");
    assert!(compile(&dynamic, &Target::x86_64_v3(), Emit::Mlir).is_ok());
    let found = error(&dynamic, Emit::Object);
    assert!(matches!(found, MlirError::Lower { .. }), "{found}");
    assert!(found.to_string().contains(&format!("memref<{UNBOUNDED}xf32>")), "{found}");

    let mut odd = Target::x86_64_v3();
    odd.triple = "z80-unknown-none".into();
    let found = compile(&kernels::vector_add("k"), &odd, Emit::Object).unwrap_err();
    assert!(matches!(found, MlirError::Target { .. }), "{found}");
}

#[test]
fn faults_in_linking_name_the_symbol() {
    let folder = tempfile::tempdir().unwrap();
    let lacking = "func.func private @missing_symbol()
        func.func @k() { call @missing_symbol() : () -> () return }";
    let found = link_shared(&[&object(lacking)], &folder.path().join("a.so")).unwrap_err();
    assert!(matches!(found, MlirError::Link { .. }), "{found}");
    assert!(found.to_string().contains("missing_symbol"), "{found}");
    let add = object(&kernels::vector_add("twice"));
    let found = link_shared(&[&add, &add], &folder.path().join("b.so")).unwrap_err();
    assert!(found.to_string().contains("twice"), "{found}");
    let found = link_shared(&[&add], Path::new("/nonexistent/folder/c.so")).unwrap_err();
    assert!(matches!(found, MlirError::Io { .. }), "{found}");
    assert!(found.to_string().contains("/nonexistent/folder"), "{found}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half-made stays");
}

#[test]
fn targets_are_named() {
    for name in Target::NAMES {
        let target: Target = name.parse().unwrap();
        assert!(!target.triple.is_empty() && !target.cpu.is_empty(), "{name}");
    }
    assert_eq!("native".parse::<Target>().unwrap(), Target::host());
    let found = "x86-64-v5".parse::<Target>().unwrap_err().to_string();
    assert!(found.contains("x86-64-v5") && found.contains("x86-64-v4"), "{found}");
    assert!(version().starts_with("22."));
}
