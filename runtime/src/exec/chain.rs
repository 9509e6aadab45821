//! Chains of launches made ready to run: which rows of each member a task takes.

use super::prepare::{Code, Ready};
use isoflop_kernels::cpu::gemm::Gemm;
use isoflop_kernels::cpu::transpose::transpose;
use isoflop_kernels::program::{Call, Chain, Program};
use std::cell::RefCell;
use std::ops::Range;

thread_local! {
    /// Transposed operands of the products of the chain this thread works on, by member, with the phase they are of and
    /// their address: a phase may have several chains.
    static TRANSPOSED: RefCell<Vec<(u64, usize, Vec<f32>)>> = const { RefCell::new(Vec::new()) };
}

/// Makes room on this thread for transposed operands of so many bytes, by member.
pub fn reserve_transposed(bytes: &[usize]) {
    TRANSPOSED.with_borrow_mut(|slots| {
        if slots.len() < bytes.len() {
            slots.resize_with(bytes.len(), Default::default);
        }
        for ((_, _, values), bytes) in slots.iter_mut().zip(bytes) {
            values.reserve_exact((bytes / size_of::<f32>()).saturating_sub(values.len()));
        }
    });
}

/// A member's own rows for each row of the chain, and how many of them one call takes.
struct Member {
    launch: usize,
    factor: u64,
    rows_per_call: u64,
}

/// A chain that has been checked.
pub struct ReadyChain {
    rows: u64,
    rows_per_task: u64,
    members: Vec<Member>,
}

impl ReadyChain {
    /// Checks that `chain` names launches of one wave that can be cut as it says.
    pub fn new(chain: &Chain, program: &Program, launches: &[Ready]) -> Result<ReadyChain, String> {
        let range = chain.members();
        if range.is_empty() || range.end > program.launches.len() {
            return Err(format!("launches {range:?} of {}", program.launches.len()));
        }
        if chain.rows == 0 || chain.rows_per_task == 0 {
            return Err(format!("{} rows, {} for each task", chain.rows, chain.rows_per_task));
        }
        let wave = program.launches[range.start].wave;
        let mut members = Vec::with_capacity(range.len());
        for launch in range {
            if program.launches[launch].wave != wave {
                return Err(format!(
                    "launch {launch} is in wave {}, not {wave}",
                    program.launches[launch].wave
                ));
            }
            let (own, rows_per_call) = match (&launches[launch].call, &launches[launch].code) {
                (_, &Code::Generated(_, rows, rows_per_task)) => (rows as u64, rows_per_task as u64),
                (Call::Gemm(g), _) if g.batch == 1 => (g.m as u64, u64::MAX),
                _ => return Err(format!("launch {launch} cannot be cut by rows")),
            };
            if own == 0 || own % chain.rows != 0 {
                return Err(format!("launch {launch} has {own} rows, no multiple of {}", chain.rows));
            }
            let factor = own / chain.rows;
            let task = factor.saturating_mul(chain.rows_per_task);
            // Kernels with partial results get the rows of their own tasks; the compiler sees to it that these divide.
            let rows_per_call = if task.is_multiple_of(rows_per_call) { rows_per_call } else { task };
            members.push(Member { launch, factor, rows_per_call });
        }
        Ok(ReadyChain { rows: chain.rows, rows_per_task: chain.rows_per_task, members })
    }

    /// Runs one task: its rows of every member in turn.
    ///
    /// # Safety
    /// `launches` are those the chain was made with, nothing but tasks of its phase runs meanwhile, and `phase` is a
    /// number that no other execution of a phase has had.
    pub unsafe fn run(&self, launches: &[Ready], task: usize, phase: u64) {
        let first = task as u64 * self.rows_per_task;
        let last = (first + self.rows_per_task).min(self.rows);
        for (index, member) in self.members.iter().enumerate() {
            let ready = &launches[member.launch];
            let rows = first * member.factor..last * member.factor;
            // SAFETY: the rows lie within the launch's, which was checked when it was loaded; the compiler made a chain
            // only of launches that read of each other what the same task wrote.
            unsafe {
                match (&ready.call, &ready.code) {
                    (Call::Gemm(gemm), _) => product(gemm, rows, &ready.args, index, phase),
                    (_, Code::Generated(entry, ..)) => {
                        let mut begin = rows.start;
                        while begin < rows.end {
                            let end = (begin + member.rows_per_call).min(rows.end);
                            entry.call(&ready.args, begin as i64, end as i64);
                            begin = end;
                        }
                    }
                    _ => unreachable!("checked in `new`"),
                }
            }
        }
    }
}

/// Rows of a product, over its transposed operand where that pays ([`Gemm::over_transposed_b`]): each thread transposes
/// it once in a phase.
///
/// # Safety
/// As [`Gemm::run_rows`]; `phase` as for [`ReadyChain::run`].
unsafe fn product(gemm: &Gemm, rows: Range<u64>, args: &[*mut u8], member: usize, phase: u64) {
    let rows = rows.start as usize..rows.end as usize;
    let (a, b, c): (*const f32, *const f32, *mut f32) = (args[0].cast(), args[1].cast(), args[2].cast());
    let (k, n) = (gemm.k, gemm.n);
    let Some(direct) = gemm.over_transposed_b() else {
        // SAFETY: the caller's.
        return unsafe { gemm.run_rows(rows, a, b, c) };
    };
    TRANSPOSED.with_borrow_mut(|slots| {
        if slots.len() <= member {
            slots.resize_with(member + 1, Default::default);
        }
        let (of, from, values) = &mut slots[member];
        if (*of, *from) != (phase, b as usize) {
            values.resize(n * k, 0.0);
            // SAFETY: b has n rows of k elements.
            transpose(unsafe { std::slice::from_raw_parts(b, n * k) }, n, k, values);
            (*of, *from) = (phase, b as usize);
        }
        // SAFETY: the caller's, for a and c; the transposed b has k rows of n elements.
        unsafe { direct.run_rows(rows, a, values.as_ptr(), c) }
    });
}
