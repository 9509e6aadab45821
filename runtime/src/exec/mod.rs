//! Executes the programs of an artifact on the CPU.
//!
//! An executor owns all memory: state, inputs, outputs and tables by name, shared by the artifact's programs, and one
//! arena as large as the largest program needs. Everything about a program is checked when it is loaded, so that
//! running one is nothing but calls. Results are the same bits for any number of threads.

mod chain;
mod init;
mod memory;
mod native;
mod prepare;
#[cfg(test)]
mod tests;

use crate::pool::Pool;
use isoflop_kernels::DType;
use isoflop_kernels::artifact::Artifact;
use isoflop_kernels::cpu::dispatch;
use isoflop_kernels::footprint::ThreadScratch;
use isoflop_kernels::program::{Call, Init, Program, Space};
use libloading::Library;
use memory::{Block, Merged, Placed, shape_of};
use prepare::{Places, Prepared, Work};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Why a program cannot be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error(
        "cannot allocate {bytes} bytes for the program's buffers; use a smaller micro batch or a machine with more memory"
    )]
    Memory { bytes: u64 },
    #[error("cannot start {threads} threads: {message}; ask for fewer")]
    Threads { threads: usize, message: String },
    #[error(
        "the artifact is for {cpu} ({triple}), which this machine cannot run: {missing}; compile it for this machine"
    )]
    Target { triple: String, cpu: String, missing: String },
    #[error("cannot load {path}: {message}; compile the artifact again on or for this machine")]
    Load { path: PathBuf, message: String },
    #[error("{path} has no kernel `{symbol}`; delete the artifact and compile it again")]
    Symbol { symbol: String, path: PathBuf },
    #[error(
        "kernel `{symbol}` needs kernels.so, which artifact {dir} does not have; delete it and compile it again"
    )]
    NoKernels { symbol: String, dir: PathBuf },
    #[error("program `{program}` is not valid: {message}; delete the artifact and compile it again")]
    Program { program: String, message: String },
    #[error("no program `{name}`; the artifact has {known}")]
    UnknownProgram { name: String, known: String },
    #[error("no {what} `{name}`; the artifact has {known}")]
    UnknownBuffer { what: &'static str, name: String, known: String },
    #[error("buffer `{name}` is {expected}, but {found} values were given")]
    Length { name: String, expected: String, found: usize },
    #[error("buffer `{name}` is {expected}, not {found}")]
    Type { name: String, expected: DType, found: DType },
    #[error("value {value} at position {position} of `{name}` is outside 0..{limit}")]
    Index { name: String, position: usize, value: i32, limit: usize },
}

/// Numbers of executed phases, so that what a thread keeps for one phase is never taken for another's.
static PHASES: AtomicU64 = AtomicU64::new(1);

/// Wall time of one launch, all its tasks together.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LaunchTime {
    pub label: String,
    /// `generated <symbol>`, `gemm`, `rel-attention-forward`, ...
    pub kind: String,
    pub wave: u32,
    pub tasks: usize,
    pub nanoseconds: u64,
    pub flops: u64,
    pub bytes: u64,
}

/// The programs of an artifact, their memory and their threads.
pub struct Executor {
    programs: Vec<(Program, Prepared)>,
    placed: Vec<Placed>,
    by_name: HashMap<String, usize>,
    /// Least vocabulary of the gathers and scatters that read an index buffer.
    limits: HashMap<String, usize>,
    named: Block,
    arena: Block,
    pool: Pool,
    /// Holds the code that `programs` call: dropped after them.
    _library: Option<Library>,
}

// SAFETY: the raw pointers in `programs` point into `named` and `arena`, which the executor owns and hands out only
// through methods that borrow it.
unsafe impl Send for Executor {}

impl Executor {
    /// Loads every program of `artifact`, with `threads` threads. Tables are filled; state is zero until
    /// [`init_state`](Self::init_state).
    pub fn load(artifact: &Artifact, threads: usize) -> Result<Executor, ExecError> {
        let programs = &artifact.programs;
        for program in programs {
            program
                .check_sizes()
                .map_err(|message| ExecError::Program { program: program.name.clone(), message })?;
        }
        let library = native::open(artifact)?;
        let Merged { placed, by_name, bytes } = memory::merge(programs)?;
        let named = Block::zeroed(bytes)?;
        let arena = Block::zeroed(programs.iter().map(|p| p.arena_bytes).max().unwrap_or(0))?;
        let places = Places { placed: &placed, by_name: &by_name, named: &named, arena: &arena };
        let mut prepared = Vec::with_capacity(programs.len());
        for program in programs {
            prepared.push((program.clone(), prepare::prepare(program, artifact, library.as_ref(), &places)?));
        }
        // What threads keep between tasks gets its size once: vectors that grow would leave their old places behind.
        let scratch = ThreadScratch::of(programs);
        let reserve = move || {
            dispatch::reserve_scratch(scratch.kernels, scratch.packing);
            chain::reserve_transposed(&scratch.transposed);
        };
        reserve();
        let pool = Pool::starting_with(threads, reserve)
            .map_err(|error| ExecError::Threads { threads, message: error.to_string() })?;
        let limits = index_limits(programs);
        let mut executor =
            Executor { programs: prepared, placed, by_name, limits, named, arena, pool, _library: library };
        executor.fill(Space::Table, 0)?;
        Ok(executor)
    }

    /// Fills every state buffer as the program asks: normal numbers from a stream chosen by `seed` and the buffer's
    /// name, ones, or zeros (also where nothing is asked).
    pub fn init_state(&mut self, seed: u64) -> Result<(), ExecError> {
        self.fill(Space::State, seed)
    }

    fn fill(&mut self, space: Space, seed: u64) -> Result<(), ExecError> {
        for index in 0..self.placed.len() {
            let buffer = self.placed[index].buffer.clone();
            if buffer.space == space {
                let init = buffer.init.unwrap_or(Init::Zeros);
                let values = self.values_mut(index)?;
                init::fill(values, &buffer.shape, init, seed, &buffer.name);
            }
        }
        Ok(())
    }

    /// Fills the arena and the float outputs with NaN, so that a test sees a program that reads what it has not written,
    /// or does not write what it should.
    pub fn poison(&mut self) {
        let floats = self.arena.bytes() / size_of::<f32>();
        // SAFETY: the arena is ours and no program runs.
        unsafe { std::slice::from_raw_parts_mut(self.arena.ptr().cast::<f32>(), floats) }.fill(f32::NAN);
        for index in 0..self.placed.len() {
            if self.placed[index].buffer.space == Space::Output
                && let Ok(values) = self.values_mut(index)
            {
                values.fill(f32::NAN);
            }
        }
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Bytes allocated for state, inputs, outputs, tables and the arena.
    pub fn allocated_bytes(&self) -> u64 {
        (self.named.bytes() + self.arena.bytes()) as u64
    }

    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().map(|(program, _)| program).find(|program| program.name == name)
    }

    /// Writes a float input, such as `lr`.
    pub fn set_input_f32(&mut self, name: &str, values: &[f32]) -> Result<(), ExecError> {
        let index = self.find(Space::Input, "input", name)?;
        let place = self.values_mut(index)?;
        if place.len() != values.len() {
            return Err(self.length_error(index, values.len()));
        }
        place.copy_from_slice(values);
        Ok(())
    }

    /// Writes an index input, such as `tokens` or `targets`, whose values must lie in 0..vocab_size.
    pub fn set_input_i32(&mut self, name: &str, values: &[i32], vocab_size: usize) -> Result<(), ExecError> {
        let index = self.find(Space::Input, "input", name)?;
        self.check_type(index, DType::I32)?;
        if self.placed[index].buffer.elements() != values.len() {
            return Err(self.length_error(index, values.len()));
        }
        let limit = self.limits.get(name).map_or(vocab_size, |&limit| limit.min(vocab_size));
        let limit_i32 = i32::try_from(limit).unwrap_or(i32::MAX);
        if let Some(position) = values.iter().position(|value| !(0..limit_i32).contains(value)) {
            return Err(ExecError::Index {
                name: name.to_string(),
                position,
                value: values[position],
                limit,
            });
        }
        // SAFETY: the buffer holds this many i32, is aligned, and no program runs.
        unsafe { self.address(index).cast::<i32>().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Ok(())
    }

    /// An output of the last [`run`](Self::run), such as `loss`.
    pub fn read_f32(&self, name: &str) -> Result<&[f32], ExecError> {
        self.values(self.find(Space::Output, "output", name)?)
    }

    /// Names of state buffers, in the order in which programs name them.
    pub fn state_names(&self) -> Vec<&str> {
        self.names(Space::State)
    }

    pub fn output_names(&self) -> Vec<&str> {
        self.names(Space::Output)
    }

    /// Shape of a buffer outside the arena.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.by_name.get(name).map(|&index| &self.placed[index].buffer.shape[..])
    }

    pub fn state(&self, name: &str) -> Result<&[f32], ExecError> {
        self.values(self.find(Space::State, "state", name)?)
    }

    pub fn state_mut(&mut self, name: &str) -> Result<&mut [f32], ExecError> {
        let index = self.find(Space::State, "state", name)?;
        self.values_mut(index)
    }

    /// Runs a program once.
    pub fn run(&mut self, program: &str) -> Result<(), ExecError> {
        let prepared = &self.programs[self.position(program)?].1;
        for phase in &prepared.phases {
            let shared = Shared(prepared);
            let number = PHASES.fetch_add(1, Ordering::Relaxed);
            self.pool.run(phase.tasks, &|index| {
                let (work, task) = phase.locate(index);
                // SAFETY: the program was checked when it was loaded; launches of a wave are independent, tasks of a
                // phase too, and `pool.run` ends each phase before the next.
                unsafe { shared.get().run(work, task, number) }
            });
        }
        Ok(())
    }

    /// Runs a program once with each launch alone between barriers, and returns the time of each.
    pub fn profile(&mut self, program: &str) -> Result<Vec<LaunchTime>, ExecError> {
        let (program, prepared) = &self.programs[self.position(program)?];
        let mut times = Vec::with_capacity(prepared.launches.len());
        for (launch, ready) in prepared.launches.iter().enumerate() {
            let described = &program.launches[launch];
            let shared = Shared(prepared);
            let start = Instant::now();
            for (phase, &tasks) in ready.phases.iter().enumerate() {
                let work = Work::Launch { launch, phase };
                // SAFETY: as in `run`, with the launches of a wave one after another.
                self.pool.run(tasks, &|task| unsafe { shared.get().run(work, task, 0) });
            }
            times.push(LaunchTime {
                label: described.label.clone(),
                kind: kind(&described.call, program),
                wave: described.wave,
                tasks: ready.phases.iter().sum(),
                nanoseconds: start.elapsed().as_nanos() as u64,
                flops: described.flops,
                bytes: described.bytes,
            });
        }
        Ok(times)
    }

    fn position(&self, name: &str) -> Result<usize, ExecError> {
        self.programs.iter().position(|(program, _)| program.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.programs.iter().map(|(program, _)| program.name.as_str()).collect();
            ExecError::UnknownProgram { name: name.to_string(), known: known.join(", ") }
        })
    }

    fn names(&self, space: Space) -> Vec<&str> {
        self.placed.iter().filter(|p| p.buffer.space == space).map(|p| p.buffer.name.as_str()).collect()
    }

    fn find(&self, space: Space, what: &'static str, name: &str) -> Result<usize, ExecError> {
        match self.by_name.get(name) {
            Some(&index) if self.placed[index].buffer.space == space => Ok(index),
            _ => {
                let known = self.names(space);
                let some = known.iter().take(20).copied().collect::<Vec<_>>().join(", ");
                let known = match known.len() {
                    0 => "none".to_string(),
                    count if count > 20 => format!("{some} and {} more", count - 20),
                    _ => some,
                };
                Err(ExecError::UnknownBuffer { what, name: name.to_string(), known })
            }
        }
    }

    fn check_type(&self, index: usize, found: DType) -> Result<(), ExecError> {
        let buffer = &self.placed[index].buffer;
        if buffer.dtype == found {
            return Ok(());
        }
        Err(ExecError::Type { name: buffer.name.clone(), expected: buffer.dtype, found })
    }

    fn length_error(&self, index: usize, found: usize) -> ExecError {
        let buffer = &self.placed[index].buffer;
        ExecError::Length {
            name: buffer.name.clone(),
            expected: shape_of(buffer.dtype, &buffer.shape),
            found,
        }
    }

    fn address(&self, index: usize) -> *mut u8 {
        self.named.ptr().wrapping_add(self.placed[index].offset)
    }

    fn values(&self, index: usize) -> Result<&[f32], ExecError> {
        self.check_type(index, DType::F32)?;
        // SAFETY: the buffer is aligned and holds this many f32; programs write it only through `&mut self`.
        Ok(unsafe {
            std::slice::from_raw_parts(self.address(index).cast(), self.placed[index].buffer.elements())
        })
    }

    fn values_mut(&mut self, index: usize) -> Result<&mut [f32], ExecError> {
        self.check_type(index, DType::F32)?;
        // SAFETY: as in `values`, and we are borrowed mutably.
        Ok(unsafe {
            std::slice::from_raw_parts_mut(self.address(index).cast(), self.placed[index].buffer.elements())
        })
    }
}

/// A program as tasks on several threads see it.
#[derive(Clone, Copy)]
struct Shared<'a>(&'a Prepared);

// SAFETY: what the launches' pointers reach is shared by the rules that `Executor::run` keeps.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn get(&self) -> &'a Prepared {
        self.0
    }
}

fn kind(call: &Call, program: &Program) -> String {
    match *call {
        Call::Generated { kernel } => format!("generated {}", program.kernels[kernel as usize].symbol),
        Call::Grouped { ref kernels } => {
            let symbol = kernels.first().map_or("", |&k| &program.kernels[k as usize].symbol);
            format!("generated {symbol}")
        }
        Call::Gemm(_) => "gemm".to_string(),
        Call::GemmSquares(_) => "gemm with squares".to_string(),
        Call::RelAttentionForward(_) => "rel-attention-forward".to_string(),
        Call::RelAttentionBackward(_) => "rel-attention-backward".to_string(),
        Call::Head(_) => "head".to_string(),
        Call::Gather { .. } => "gather".to_string(),
        Call::ScatterAdd { .. } => "scatter-add".to_string(),
        Call::Copy { .. } => "copy".to_string(),
    }
}

fn index_limits(programs: &[Program]) -> HashMap<String, usize> {
    let mut limits: HashMap<String, usize> = HashMap::new();
    for program in programs {
        for launch in &program.launches {
            let (position, limit) = match launch.call {
                Call::Gather { vocab, .. } => (1, vocab),
                Call::ScatterAdd { vocab, .. } => (0, vocab),
                Call::Head(head) => (2, head.vocab),
                _ => continue,
            };
            let name = &program.buffers[launch.args[position] as usize].name;
            limits.entry(name.clone()).and_modify(|least| *least = limit.min(*least)).or_insert(limit);
        }
    }
    limits
}
