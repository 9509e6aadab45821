//! A program made ready to run: checked once, every argument an address, every wave a list of phases.

use super::ExecError;
use super::chain::ReadyChain;
use super::memory::{Block, Placed, describe};
use super::native::{self, Entry, MAX_ARGS};
use isoflop_kernels::artifact::Artifact;
use isoflop_kernels::cpu::dispatch::{self, Share};
use isoflop_kernels::program::{ALIGN, Call, GeneratedKernel, Program, Space};
use libloading::Library;
use std::collections::HashMap;

/// A launch with its addresses.
pub struct Ready {
    pub call: Call,
    pub args: Vec<*mut u8>,
    pub code: Code,
    /// Tasks of each of its phases.
    pub phases: Vec<usize>,
}

/// Whose code a launch runs.
pub enum Code {
    Library,
    /// A generated kernel: its entry, its rows, and the rows of one task.
    Generated(Entry, i64, i64),
    /// One entry over several lists of arguments, each this long, and what its tasks take of each.
    Grouped {
        entry: Entry,
        arity: usize,
        tasks: Vec<Vec<Share>>,
    },
}

impl Ready {
    /// Runs one task.
    ///
    /// # Safety
    /// `phase` and `task` are within `phases`, and the launches that run meanwhile are those of one wave.
    pub unsafe fn run(&self, phase: usize, task: usize) {
        // SAFETY: the program was checked when it was loaded, launches of a wave are independent, and indices were
        // checked against the vocabulary when they were set.
        unsafe {
            match self.code {
                Code::Library => dispatch::run_library(&self.call, phase, task, &self.args),
                Code::Generated(entry, rows, rows_per_task) => {
                    let begin = task as i64 * rows_per_task;
                    entry.call(&self.args, begin, (begin + rows_per_task).min(rows));
                }
                Code::Grouped { entry, arity, ref tasks } => {
                    for &(member, begin, end) in &tasks[task] {
                        let args = &self.args[member * arity..(member + 1) * arity];
                        entry.call(args, begin as i64, end as i64);
                    }
                }
            }
        }
    }
}

/// What the tasks of a phase belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Launch { launch: usize, phase: usize },
    Chain(usize),
}

/// Tasks that may run side by side; a barrier stands after them.
pub struct Phase {
    /// Work, and the number of this phase's tasks before it.
    items: Vec<(Work, usize)>,
    pub tasks: usize,
}

impl Phase {
    /// The work and its task that number `index` stands for.
    pub fn locate(&self, index: usize) -> (Work, usize) {
        let item = self.items.partition_point(|&(_, before)| before <= index) - 1;
        let (work, before) = self.items[item];
        (work, index - before)
    }
}

/// A program made ready to run.
pub struct Prepared {
    pub launches: Vec<Ready>,
    pub chains: Vec<ReadyChain>,
    /// All phases of all waves in order.
    pub phases: Vec<Phase>,
}

impl Prepared {
    /// Runs one task.
    ///
    /// # Safety
    /// `work` and `task` are of one phase, and nothing but that phase's tasks runs meanwhile. `number` is another for
    /// every execution of a phase.
    pub unsafe fn run(&self, work: Work, task: usize, number: u64) {
        // SAFETY: the caller's.
        unsafe {
            match work {
                Work::Launch { launch, phase } => self.launches[launch].run(phase, task),
                Work::Chain(chain) => self.chains[chain].run(&self.launches, task, number),
            }
        }
    }
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
        let code = code(&launch.call, launch.args.len(), program, &entries).map_err(&wrong)?;
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
            code,
            phases: dispatch::phases(&launch.call, &program.kernels).to_vec(),
        });
    }
    let chains = program
        .chains
        .iter()
        .enumerate()
        .map(|(i, chain)| {
            ReadyChain::new(chain, program, &launches).map_err(|m| wrong(format!("chain {i}: {m}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let in_order = program.chains.windows(2).all(|w| w[0].members().end <= w[1].members().start);
    if !in_order {
        return Err(wrong("a launch is in two chains, or chains are out of order".into()));
    }
    let phases = phases_of(program, &launches);
    Ok(Prepared { launches, chains, phases })
}

/// The code of a call, whose generated kernels must exist and take as many arguments as there are.
fn code(call: &Call, args: usize, program: &Program, entries: &[(Entry, i64, i64)]) -> Result<Code, String> {
    let kernel = |k: u32| match (entries.get(k as usize), program.kernels.get(k as usize)) {
        (Some(&entry), Some(kernel)) => Ok((entry, kernel)),
        _ => Err(format!("kernel {k} of {}", entries.len())),
    };
    let takes = |n: usize, kernel: &GeneratedKernel| {
        if n == args {
            return Ok(());
        }
        Err(format!("{args} arguments for `{}`, which takes {n}", kernel.symbol))
    };
    match call {
        Call::Generated { kernel: k } => {
            let ((entry, rows, rows_per_task), kernel) = kernel(*k)?;
            takes(kernel.n_args as usize, kernel)?;
            Ok(Code::Generated(entry, rows, rows_per_task))
        }
        Call::Grouped { kernels: group } => {
            let members = group.iter().map(|&k| kernel(k)).collect::<Result<Vec<_>, String>>()?;
            let Some(&((entry, _, _), first)) = members.first() else {
                return Err("a group of no kernels".into());
            };
            if let Some((_, other)) = members.iter().find(|(_, k)| k.symbol != first.symbol) {
                return Err(format!("`{}` in a group of `{}`", other.symbol, first.symbol));
            }
            let arity = first.n_args as usize;
            takes(arity * members.len(), first)?;
            let tasks = dispatch::group_tasks(members.iter().map(|&(_, kernel)| kernel));
            Ok(Code::Grouped { entry, arity, tasks })
        }
        _ => Ok(Code::Library),
    }
}

/// Waves as phases: chains and the first phase of every other launch of the wave together, then the second, and so on.
fn phases_of(program: &Program, launches: &[Ready]) -> Vec<Phase> {
    let mut chain_of = vec![None; launches.len()];
    for (index, chain) in program.chains.iter().enumerate() {
        chain_of[chain.members()].fill(Some(index));
    }
    let mut all = Vec::new();
    let numbers: Vec<usize> = (0..launches.len()).collect();
    for wave in numbers.chunk_by(|&a, &b| program.launches[a].wave == program.launches[b].wave) {
        let depth = wave.iter().map(|&launch| launches[launch].phases.len()).max().unwrap_or(0);
        for phase in 0..depth {
            let mut members: Vec<(Work, usize, u64)> = Vec::new();
            for &launch in wave {
                let (work, tasks, launches_of) = match chain_of[launch] {
                    Some(index) => {
                        let chain = &program.chains[index];
                        if phase > 0 || chain.first as usize != launch {
                            continue;
                        }
                        (Work::Chain(index), chain.tasks(), chain.members())
                    }
                    None => match launches[launch].phases.get(phase) {
                        Some(&tasks) => (Work::Launch { launch, phase }, tasks, launch..launch + 1),
                        None => continue,
                    },
                };
                if tasks > 0 {
                    let cost: u64 =
                        program.launches[launches_of].iter().map(|l| l.flops / 16 + l.bytes).sum();
                    members.push((work, tasks, cost / tasks as u64));
                }
            }
            // Long tasks first, so that the barrier does not wait for one that began last. The order changes no bits.
            members.sort_by_key(|&(_, _, task_cost)| std::cmp::Reverse(task_cost));
            let mut tasks = 0;
            let items = members.into_iter().map(|(work, count, _)| {
                tasks += count;
                (work, tasks - count)
            });
            let items: Vec<_> = items.collect();
            if tasks > 0 {
                all.push(Phase { items, tasks });
            }
        }
    }
    all
}
