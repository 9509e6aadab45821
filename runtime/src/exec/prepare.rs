//! A program made ready to run: checked once, every argument an address, every wave a list of phases.

use super::ExecError;
use super::memory::{Block, Placed, describe};
use super::native::{self, Entry, MAX_ARGS};
use isoflop_kernels::artifact::Artifact;
use isoflop_kernels::cpu::dispatch;
use isoflop_kernels::program::{ALIGN, Call, Program, Space};
use libloading::Library;
use std::collections::HashMap;

/// A launch with its addresses.
pub struct Ready {
    pub call: Call,
    pub args: Vec<*mut u8>,
    /// For a generated kernel: its entry, its rows, and the rows of one task.
    pub generated: Option<(Entry, i64, i64)>,
    /// Tasks of each of its phases.
    pub phases: Vec<usize>,
}

impl Ready {
    /// Runs one task.
    ///
    /// # Safety
    /// `phase` and `task` are within `phases`, and the launches that run meanwhile are those of one wave.
    pub unsafe fn run(&self, phase: usize, task: usize) {
        match self.generated {
            Some((entry, rows, rows_per_task)) => {
                let begin = task as i64 * rows_per_task;
                // SAFETY: the program was checked when it was loaded, and launches of a wave are independent.
                unsafe { entry.call(&self.args, begin, (begin + rows_per_task).min(rows)) }
            }
            // SAFETY: as above; indices were checked against the vocabulary when they were set.
            None => unsafe { dispatch::run_library(&self.call, phase, task, &self.args) },
        }
    }
}

/// Tasks of several launches that may run side by side; a barrier stands after them.
pub struct Phase {
    /// Launch, its phase, and the number of this phase's tasks before it.
    items: Vec<(usize, usize, usize)>,
    pub tasks: usize,
}

impl Phase {
    /// The launch, phase and task that number `index` stands for.
    pub fn locate(&self, index: usize) -> (usize, usize, usize) {
        let item = self.items.partition_point(|&(_, _, before)| before <= index) - 1;
        let (launch, phase, before) = self.items[item];
        (launch, phase, index - before)
    }
}

/// A program made ready to run.
pub struct Prepared {
    pub launches: Vec<Ready>,
    /// All phases of all waves in order.
    pub phases: Vec<Phase>,
}

/// The places that programs run in.
pub struct Places<'a> {
    pub placed: &'a [Placed],
    pub by_name: &'a HashMap<String, usize>,
    pub named: &'a Block,
    pub arena: &'a Block,
}

/// Checks `program` and resolves its kernels and addresses.
pub fn prepare(
    program: &Program,
    artifact: &Artifact,
    library: Option<&Library>,
    places: &Places<'_>,
) -> Result<Prepared, ExecError> {
    let wrong = |message: String| ExecError::Program { program: program.name.clone(), message };
    let mut addresses = Vec::with_capacity(program.buffers.len());
    for buffer in &program.buffers {
        addresses.push(match buffer.space {
            Space::Arena => {
                let end = buffer.offset.checked_add(buffer.bytes());
                if buffer.offset % ALIGN != 0 || end.is_none_or(|end| end > program.arena_bytes) {
                    return Err(wrong(format!(
                        "buffer `{}` is {} at offset {} of an arena of {} bytes",
                        buffer.name,
                        describe(buffer),
                        buffer.offset,
                        program.arena_bytes
                    )));
                }
                places.arena.ptr().wrapping_add(buffer.offset as usize)
            }
            _ => places.named.ptr().wrapping_add(places.placed[places.by_name[&buffer.name]].offset),
        });
    }
    let mut entries = Vec::with_capacity(program.kernels.len());
    for kernel in &program.kernels {
        if kernel.n_args as usize > MAX_ARGS {
            return Err(wrong(format!(
                "kernel `{}` has {} arguments; at most {MAX_ARGS} are allowed",
                kernel.symbol, kernel.n_args
            )));
        }
        let (Ok(rows), Ok(rows_per_task)) =
            (i64::try_from(kernel.rows), i64::try_from(kernel.rows_per_task.max(1)))
        else {
            return Err(wrong(format!("kernel `{}` has {} rows", kernel.symbol, kernel.rows)));
        };
        let library = library.ok_or_else(|| ExecError::NoKernels {
            symbol: kernel.symbol.clone(),
            dir: artifact.dir.clone(),
        })?;
        entries.push((native::entry(library, artifact, &kernel.symbol)?, rows, rows_per_task));
    }
    let mut launches = Vec::with_capacity(program.launches.len());
    for (index, launch) in program.launches.iter().enumerate() {
        let wrong = |message: String| wrong(format!("launch {index} `{}`: {message}", launch.label));
        if index > 0 && launch.wave < program.launches[index - 1].wave {
            return Err(wrong(format!(
                "wave {} after wave {}",
                launch.wave,
                program.launches[index - 1].wave
            )));
        }
        if let Some(&id) = launch.args.iter().find(|&&id| id as usize >= addresses.len()) {
            return Err(wrong(format!("argument {id} of {} buffers", addresses.len())));
        }
        let generated = match launch.call {
            Call::Generated { kernel } => {
                match (entries.get(kernel as usize), program.kernels.get(kernel as usize)) {
                    (Some(&entry), Some(kernel)) if kernel.n_args as usize == launch.args.len() => {
                        Some(entry)
                    }
                    (Some(_), Some(kernel)) => {
                        return Err(wrong(format!(
                            "{} arguments for `{}`, which takes {}",
                            launch.args.len(),
                            kernel.symbol,
                            kernel.n_args
                        )));
                    }
                    _ => return Err(wrong(format!("kernel {kernel} of {}", entries.len()))),
                }
            }
            _ => None,
        };
        if let Some(expected) = dispatch::arguments(&launch.call) {
            if expected.len() != launch.args.len() {
                return Err(wrong(format!(
                    "{} arguments, its call takes {}",
                    launch.args.len(),
                    expected.len()
                )));
            }
            let copies = matches!(launch.call, Call::Copy { .. });
            for (position, (&id, (dtype, elements))) in launch.args.iter().zip(expected).enumerate() {
                let buffer = &program.buffers[id as usize];
                if buffer.bytes() < (elements * dtype.bytes()) as u64 || (buffer.dtype != dtype && !copies) {
                    return Err(wrong(format!(
                        "argument {position} is `{}`, {}; it must be {dtype} of at least {elements} elements",
                        buffer.name,
                        describe(buffer)
                    )));
                }
            }
        }
        launches.push(Ready {
            call: launch.call.clone(),
            args: launch.args.iter().map(|&id| addresses[id as usize]).collect(),
            generated,
            phases: dispatch::phases(&launch.call, &program.kernels).to_vec(),
        });
    }
    let phases = phases_of(program, &launches);
    Ok(Prepared { launches, phases })
}

/// Waves as phases: the first phase of every launch of the wave together, then the second, and so on.
fn phases_of(program: &Program, launches: &[Ready]) -> Vec<Phase> {
    let mut all = Vec::new();
    let numbers: Vec<usize> = (0..launches.len()).collect();
    for wave in numbers.chunk_by(|&a, &b| program.launches[a].wave == program.launches[b].wave) {
        let depth = wave.iter().map(|&launch| launches[launch].phases.len()).max().unwrap_or(0);
        for phase in 0..depth {
            let mut members: Vec<(usize, usize)> = wave
                .iter()
                .filter_map(|&launch| launches[launch].phases.get(phase).map(|&tasks| (launch, tasks)))
                .filter(|&(_, tasks)| tasks > 0)
                .collect();
            // Long tasks first, so that the barrier does not wait for one that began last. The order changes no bits.
            let task_cost = |&(launch, tasks): &(usize, usize)| {
                let launch = &program.launches[launch];
                (launch.flops / 16 + launch.bytes) / tasks as u64
            };
            members.sort_by_key(|member| std::cmp::Reverse(task_cost(member)));
            let mut tasks = 0;
            let items = members.into_iter().map(|(launch, count)| {
                tasks += count;
                (launch, phase, tasks - count)
            });
            let items: Vec<_> = items.collect();
            if tasks > 0 {
                all.push(Phase { items, tasks });
            }
        }
    }
    all
}
