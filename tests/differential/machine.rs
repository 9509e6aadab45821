//! Cases as machine code: many in one artifact, each held to the interpreter, on one thread and on two.

use crate::case::{Case, Tensors, Variant, is_state};
use crate::generate::INDICES;
use isoflop_compiler::driver::{CompileOptions, compile_programs};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::interp::{Precision, Tensor, interpret_in};
use isoflop_compiler::lower::{Lowered, lower};
use isoflop_compiler::mlir::Target;
use isoflop_compiler::passes::{Pass, Registry};
use isoflop_kernels::DType;
use isoflop_kernels::program::Call;
use isoflop_runtime::exec::{ExecError, Executor};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Cases of one artifact.
const BATCH: usize = 25;
/// An output whose f32 rounding alone moves it this far, as a part of its size, says nothing.
const MEANINGFUL: f64 = 1e-3;

/// Who is at odds with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The compiler refuses the graph or panics.
    Compiler,
    /// The interpreter refuses it: the graph itself is wrong.
    Interpreter,
    Runtime,
    /// One and two threads give different bits.
    Threads,
    /// Machine code computes something else than the interpreter.
    Value,
}

/// What is wrong with one variant of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    pub variant: usize,
    pub kind: Kind,
    pub what: String,
}

/// What cases had in them and what came of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub cases: usize,
    pub kernels: usize,
    pub outputs: usize,
    /// Outputs that were not judged: not finite, or mostly rounding.
    pub vague: usize,
    pub chains: usize,
    pub grouped: usize,
    pub squares: usize,
    /// Time in passes and lowering, in code generation, in interpreting, and in running, all threads together.
    pub seconds: [f64; 4],
    pub operations: BTreeMap<&'static str, usize>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.cases += other.cases;
        self.kernels += other.kernels;
        self.outputs += other.outputs;
        self.vague += other.vague;
        self.chains += other.chains;
        self.grouped += other.grouped;
        self.squares += other.squares;
        self.seconds.iter_mut().zip(other.seconds).for_each(|(a, b)| *a += b);
        for (name, n) in other.operations {
            *self.operations.entry(name).or_default() += n;
        }
    }

    fn count(&mut self, lowered: &Lowered) {
        self.chains += lowered.program.chains.len();
        for launch in &lowered.program.launches {
            self.grouped += usize::from(matches!(launch.call, Call::Grouped { .. }));
            self.squares += usize::from(matches!(launch.call, Call::GemmSquares(_)));
        }
    }
}

/// A folder for artifacts, one cache of kernels for all cases, and the passes there are.
pub struct Workshop {
    folder: tempfile::TempDir,
    target: Target,
    registry: Registry,
}

impl Workshop {
    /// With the compiler's passes and `extra` ones.
    pub fn new(extra: &[Pass]) -> std::io::Result<Workshop> {
        let registry = Registry::with(extra);
        Ok(Workshop { folder: tempfile::tempdir()?, target: Target::host(), registry })
    }

    /// What is wrong with each of these cases, judged on `threads` threads.
    pub fn judge(&self, cases: &[Case], threads: usize) -> (Vec<Vec<Wrong>>, Tally) {
        let next = AtomicUsize::new(0);
        let batches: Vec<&[Case]> = cases.chunks(BATCH).collect();
        let found = Mutex::new((vec![vec![]; cases.len()], Tally::default()));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (wrong, tally) = self.judge_batch(batch);
                        let mut found = found.lock().unwrap_or_else(|e| e.into_inner());
                        // Batches are slices of `cases`: the distance of the first elements is the place.
                        let place = (batch.as_ptr() as usize - cases.as_ptr() as usize) / size_of::<Case>();
                        found.0[place..place + batch.len()].clone_from_slice(&wrong);
                        found.1.add(tally);
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    /// What is wrong with one case.
    pub fn judge_one(&self, case: &Case) -> Vec<Wrong> {
        self.judge_batch(std::slice::from_ref(case)).0.concat()
    }

    fn judge_batch(&self, cases: &[Case]) -> (Vec<Vec<Wrong>>, Tally) {
        let mut tally = Tally { cases: cases.len(), ..Tally::default() };
        let mut wrong = vec![vec![]; cases.len()];
        let mut programs: Vec<Lowered> = vec![];
        let start = Instant::now();
        for (k, case) in cases.iter().enumerate() {
            for n in case.graph.nodes().node_weights() {
                *tally.operations.entry(n.op.mnemonic()).or_default() += 1;
            }
            for (variant, how) in case.variants.iter().enumerate() {
                match program(case, variant, how, &self.registry) {
                    Ok(lowered) => {
                        tally.count(&lowered);
                        programs.push(lowered);
                    }
                    Err(what) => wrong[k].push(Wrong { variant, kind: Kind::Compiler, what }),
                }
            }
        }
        tally.seconds[0] += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let [mut one, mut two] = match self.load(&programs, &mut tally) {
            Ok(both) => both,
            // Which of them it is shows when each is compiled alone.
            Err(_) if cases.len() > 1 => {
                let (mut each, mut sum) = (vec![], Tally::default());
                for case in cases.chunks(1) {
                    let (found, tally) = self.judge_batch(case);
                    each.extend(found);
                    sum.add(tally);
                }
                return (each, sum);
            }
            Err(what) => {
                wrong[0].push(Wrong { variant: 0, kind: Kind::Compiler, what });
                return (wrong, tally);
            }
        };
        tally.seconds[1] += start.elapsed().as_secs_f64();
        for (case, wrong) in cases.iter().zip(&mut wrong) {
            if wrong.is_empty() {
                match judge(case, [&mut one, &mut two], &mut tally) {
                    Ok(found) => wrong.extend(found),
                    Err(one) => wrong.push(one),
                }
            }
        }
        (wrong, tally)
    }

    fn load(&self, programs: &[Lowered], tally: &mut Tally) -> Result<[Executor; 2], String> {
        let artifacts = tempfile::tempdir_in(self.folder.path()).map_err(|e| e.to_string())?;
        let options = CompileOptions {
            target: self.target.clone(),
            artifacts: artifacts.path().to_path_buf(),
            cache: self.folder.path().join("cache"),
            threads: 1,
        };
        let all: Vec<&Lowered> = programs.iter().collect();
        let compiled =
            compile_programs(&all, &serde_json::Value::Null, &options).map_err(|e| e.to_string())?;
        tally.kernels += compiled.kernels_compiled;
        let load = |threads| Executor::load(&compiled.artifact, threads).map_err(|e| e.to_string());
        // The library stays mapped when its file is gone.
        Ok([load(1)?, load(2)?])
    }
}

fn name(case: &Case, variant: usize) -> String {
    format!("{}.v{variant}", case.graph.name)
}

/// A panic of the compiler is something wrong with the case, like an error.
fn program(case: &Case, variant: usize, how: &Variant, registry: &Registry) -> Result<Lowered, String> {
    let made = catch_unwind(AssertUnwindSafe(|| {
        let mut g = case.graph.clone();
        g.name = name(case, variant);
        lower(&how.optimize(&g, registry)?).map_err(|e| e.to_string())
    }));
    made.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Err(format!("the compiler panics: {}", text.unwrap_or("without a message")))
    })
}

fn set(exec: &mut Executor, g: &Graph, name: &str, t: &Tensor) -> Result<(), ExecError> {
    let floats: Vec<f32> = t.data.iter().map(|&x| x as f32).collect();
    if t.dtype == DType::I32 {
        let ids: Vec<i32> = t.data.iter().map(|&x| x as i32).collect();
        return exec.set_input_i32(name, &ids, INDICES);
    }
    if is_state(g, name) {
        exec.state_mut(name)?.copy_from_slice(&floats);
        return Ok(());
    }
    exec.set_input_f32(name, &floats)
}

/// The outputs of one program. The arena and the outputs hold NaN before it runs.
fn run(exec: &mut Executor, case: &Case, variant: usize) -> Result<BTreeMap<String, Vec<f32>>, ExecError> {
    let g = &case.graph;
    for (name, t) in &case.given {
        set(exec, g, name, t)?;
    }
    exec.poison();
    exec.run(&name(case, variant))?;
    let read = |name: &String| {
        let values = if is_state(g, name) { exec.state(name)? } else { exec.read_f32(name)? };
        Ok((name.clone(), values.to_vec()))
    };
    g.outputs.iter().map(|o| read(&o.name)).collect()
}

/// Largest distance from the truth, NaN where one is NaN.
fn distance(found: impl Iterator<Item = f64>, truth: &[f64]) -> f64 {
    let each = found.zip(truth).map(|(f, &t)| (f - t).abs());
    each.fold(0.0, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
}

fn interpreted(case: &Case, precision: Precision) -> Result<Tensors, Wrong> {
    let wrong = |what| Wrong { variant: 0, kind: Kind::Interpreter, what };
    interpret_in(&case.graph, &case.given, precision).map_err(|e| wrong(e.to_string()))
}

/// How far f32 may be from the truth: for what sums in another order lose, and for what rounding every operation loses.
/// None where rounding is nearly all there is.
fn allowed(truth: &[f64], rounded: &[f64]) -> Option<f64> {
    let size = 1.0 + truth.iter().fold(0.0f64, |a, &x| a.max(x.abs()));
    let lost = distance(rounded.iter().copied(), truth);
    (size.is_finite() && lost < MEANINGFUL * size).then_some(2e-5 * size + 8.0 * lost)
}

fn judge(case: &Case, [one, two]: [&mut Executor; 2], tally: &mut Tally) -> Result<Vec<Wrong>, Wrong> {
    let start = Instant::now();
    let (truth, rounded) = (interpreted(case, Precision::F64)?, interpreted(case, Precision::F32)?);
    tally.seconds[2] += start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut wrong = vec![];
    for variant in 0..case.variants.len() {
        let failed = |e: ExecError| Wrong { variant, kind: Kind::Runtime, what: e.to_string() };
        let found = run(one, case, variant).map_err(failed)?;
        let again = match variant {
            0 => Some(run(two, case, variant).map_err(failed)?),
            _ => None,
        };
        for (name, t) in &truth {
            tally.outputs += 1;
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if again.as_ref().is_some_and(|again| bits(&again[name]) != bits(&found[name])) {
                let what = format!("{name}: one and two threads give different bits");
                wrong.push(Wrong { variant, kind: Kind::Threads, what });
            }
            let Some(allowed) = allowed(&t.data, &rounded[name].data) else {
                tally.vague += 1;
                continue;
            };
            let off = distance(found[name].iter().map(|&x| f64::from(x)), &t.data);
            if off.is_nan() || off > allowed {
                let what = format!("{name}: off by {off:e}, and {allowed:e} may be rounding");
                wrong.push(Wrong { variant, kind: Kind::Value, what });
            }
        }
    }
    tally.seconds[3] += start.elapsed().as_secs_f64();
    Ok(wrong)
}
