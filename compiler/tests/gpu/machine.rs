//! Programs for a GPU without one: generated kernels by the executor of PTX, products and the like by plain loops.

use isoflop_compiler::driver::{PtxKernel, compile_ptx};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::interp::{Precision, Tensor, interpret_in};
use isoflop_compiler::lower::{Lowered, lower_for};
use isoflop_compiler::machine::{Cuda, Machine};
use isoflop_compiler::ptx::{Arg, Kernel, parse};
use isoflop_kernels::DType;
use isoflop_kernels::program::{Buffer, BufferId, Call, Program, Space};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub type Tensors = BTreeMap<String, Tensor>;

/// Bytes of a value that is in no memory yet: NaN, in every floating-point type.
const POISON: u8 = 0xff;

fn to_bytes(x: f64, d: DType) -> Vec<u8> {
    match d {
        DType::F32 => (x as f32).to_le_bytes().to_vec(),
        DType::F64 => x.to_le_bytes().to_vec(),
        DType::I32 => (x as i32).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(x != 0.0)],
        // Inputs here are numbers of few bits.
        DType::Bf16 => (x as f32).to_le_bytes()[2..].to_vec(),
    }
}

fn from_bytes(b: &[u8], d: DType) -> f64 {
    match d {
        DType::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        DType::F64 => f64::from_le_bytes(b.try_into().expect("8 bytes")),
        DType::I32 => i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into(),
        DType::Bool => b[0].into(),
        DType::Bf16 => f32::from_le_bytes([0, 0, b[0], b[1]]).into(),
    }
}

/// A graph's program with its kernels, ready to run.
pub struct Ready {
    lowered: Lowered,
    kernels: HashMap<String, Kernel>,
}

impl Ready {
    /// Lowers a graph that has gone through its passes, and compiles its kernels.
    pub fn new(g: &Graph, gpu: Cuda, cache: &Path) -> Result<Ready, String> {
        let lowered = lower_for(g, &Machine::Cuda(gpu)).map_err(|e| e.to_string())?;
        let modules = compile_ptx(&[&lowered], gpu.arch, cache, 1).map_err(|e| e.to_string())?;
        let mut kernels = HashMap::new();
        for PtxKernel { symbol, ptx } in modules {
            let mut found = parse(&ptx).map_err(|e| format!("{e}\n{ptx}"))?;
            assert_eq!((found.len(), &found[0].name), (1, &symbol));
            kernels.insert(symbol, found.swap_remove(0));
        }
        Ok(Ready { lowered, kernels })
    }

    pub fn program(&self) -> &Program {
        &self.lowered.program
    }

    /// The outputs by name.
    pub fn run(&self, g: &Graph, given: &Tensors) -> Result<Tensors, String> {
        let p = &self.lowered.program;
        let size = |b: &Buffer| if b.space == Space::Arena { 0 } else { b.bytes() as usize };
        let mut named: Vec<Vec<u8>> = p.buffers.iter().map(|b| vec![POISON; size(b)]).collect();
        let mut arena = vec![POISON; p.arena_bytes as usize];
        for (b, bytes) in p.buffers.iter().zip(&mut named).filter(|(b, _)| b.space != Space::Arena) {
            if let Some(t) = given.get(&b.name) {
                *bytes = t.data.iter().flat_map(|&x| to_bytes(x, b.dtype)).collect();
            }
        }
        for launch in &p.launches {
            // Every argument is a buffer of its own, so that no kernel reaches another's.
            let mut ids: Vec<BufferId> = launch.args.clone();
            ids.sort_unstable();
            ids.dedup();
            let range = |b: &Buffer| b.offset as usize..(b.offset + b.bytes()) as usize;
            let mut own: Vec<Vec<u8>> = ids
                .iter()
                .map(|&id| match &p.buffers[id as usize] {
                    b if b.space == Space::Arena => arena[range(b)].to_vec(),
                    _ => named[id as usize].clone(),
                })
                .collect();
            let place = |id: &BufferId| ids.binary_search(id).expect("an argument");
            let args: Vec<usize> = launch.args.iter().map(place).collect();
            let types: Vec<DType> = launch.args.iter().map(|&id| p.buffers[id as usize].dtype).collect();
            self.call(&launch.call, &args, &types, &mut own).map_err(|e| format!("{}: {e}", launch.label))?;
            for (&id, bytes) in ids.iter().zip(own) {
                match &p.buffers[id as usize] {
                    b if b.space == Space::Arena => arena[range(b)].copy_from_slice(&bytes),
                    _ => named[id as usize] = bytes,
                }
            }
        }
        let read = |name: &String| -> Result<(String, Tensor), String> {
            let (id, b) = p.buffer(name).ok_or_else(|| format!("no buffer `{name}`"))?;
            let data = named[id as usize].chunks(b.dtype.bytes()).map(|c| from_bytes(c, b.dtype)).collect();
            let output = g.outputs.iter().find(|o| o.name == *name).expect("an output");
            Ok((name.clone(), Tensor::new(g.ty(output.value), data)))
        };
        g.outputs.iter().map(|o| read(&o.name)).collect()
    }

    fn call(&self, call: &Call, args: &[usize], types: &[DType], own: &mut [Vec<u8>]) -> Result<(), String> {
        let f32s = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks(4).map(|c| from_bytes(c, DType::F32) as f32).collect()
        };
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
        match call {
            Call::Generated { kernel } => self.generated(*kernel, args, own)?,
            Call::Grouped { kernels } => {
                let mut rest = args;
                for &k in kernels {
                    let n = self.lowered.kernels[k as usize].n_args();
                    self.generated(k, &rest[..n], own)?;
                    rest = &rest[n..];
                }
            }
            Call::Gemm(g) => {
                let (a, b, mut c) = (f32s(&own[args[0]]), f32s(&own[args[1]]), f32s(&own[args[2]]));
                for (batch, i, j) in
                    (0..g.batch).flat_map(|b| (0..g.m * g.n).map(move |k| (b, k / g.n, k % g.n)))
                {
                    let at =
                        |s: [usize; 3], row: usize, column: usize| batch * s[0] + row * s[1] + column * s[2];
                    let sum: f64 =
                        (0..g.k).map(|k| f64::from(a[at(g.a, i, k)]) * f64::from(b[at(g.b, k, j)])).sum();
                    let place = &mut c[at(g.c, i, j)];
                    *place = (sum + if g.accumulate { f64::from(*place) } else { 0.0 }) as f32;
                }
                own[args[2]] = bytes(&c);
            }
            Call::Gather { rows, width, vocab } => {
                let table = own[args[0]].clone();
                for r in 0..*rows {
                    let v = from_bytes(&own[args[1]][4 * r..], types[1]) as usize;
                    assert!(v < *vocab, "index {v} of {vocab}");
                    own[args[2]][4 * r * width..4 * (r + 1) * width]
                        .copy_from_slice(&table[4 * v * width..4 * (v + 1) * width]);
                }
            }
            Call::ScatterAdd { rows, width, vocab, accumulate } => {
                let updates = f32s(&own[args[1]]);
                let mut out = if *accumulate { f32s(&own[args[2]]) } else { vec![0.0; vocab * width] };
                for r in 0..*rows {
                    let v = from_bytes(&own[args[0]][4 * r..], types[0]) as usize;
                    (0..*width).for_each(|k| out[v * width + k] += updates[r * width + k]);
                }
                own[args[2]] = bytes(&out);
            }
            Call::Copy { .. } => own[args[1]] = own[args[0]].clone(),
            other => return Err(format!("{other:?} is not run here")),
        }
        Ok(())
    }

    fn generated(&self, kernel: u32, args: &[usize], own: &mut [Vec<u8>]) -> Result<(), String> {
        let spec = &self.lowered.kernels[kernel as usize];
        let declared = &self.lowered.program.kernels[kernel as usize];
        let launch = declared.cuda.ok_or("a kernel without a grid")?;
        let mut list: Vec<Arg> = args.iter().map(|&k| Arg::Buffer(k)).collect();
        list.push(Arg::Number(declared.rows as i64));
        let before: Vec<Vec<u8>> = own.to_vec();
        let code = &self.kernels[&declared.symbol];
        code.launch(launch.blocks, launch.threads, own, &list).map_err(|e| e.to_string())?;
        let written: Vec<usize> = args
            .iter()
            .zip(spec.reads_and_writes())
            .filter(|(_, (_, writes))| *writes)
            .map(|(&k, _)| k)
            .collect();
        let changed = (0..own.len()).find(|k| own[*k] != before[*k] && !written.contains(k));
        changed.map_or(Ok(()), |k| Err(format!("argument {k} was changed by {}", declared.symbol)))
    }
}

/// Largest distance from the truth, NaN where one is NaN.
fn distance(found: &[f64], truth: &[f64]) -> f64 {
    let each = found.iter().zip(truth).map(|(f, t)| if f == t { 0.0 } else { (f - t).abs() });
    each.fold(0.0, |a: f64, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) })
}

/// What is wrong with what the GPU would compute: more than rounding away from the interpreter. None where rounding is
/// nearly all there is, so that nothing can be said.
pub fn wrong(g: &Graph, given: &Tensors, found: &Tensors) -> Vec<String> {
    let truth = interpret_in(g, given, Precision::F64).expect("the interpreter");
    let rounded = interpret_in(g, given, Precision::F32).expect("the interpreter");
    let mut wrong = vec![];
    for (name, t) in &truth {
        let size = 1.0 + t.data.iter().fold(0.0f64, |a, x| a.max(x.abs()));
        let lost = distance(&rounded[name].data, &t.data);
        if !size.is_finite() || lost.is_nan() || lost > 1e-3 * size {
            continue;
        }
        let (allowed, off) = (2e-5 * size + 8.0 * lost, distance(&found[name].data, &t.data));
        if off.is_nan() || off > allowed {
            wrong.push(format!("{name}: off by {off:e}, and {allowed:e} may be rounding"));
        }
    }
    wrong
}
