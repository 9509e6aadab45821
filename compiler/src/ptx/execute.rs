//! Executes a kernel of PTX, thread by thread, without a GPU: for tests of the instructions that would really run.
//!
//! It is strict. A thread runs until it waits for others; lanes that exchange values, and threads at a barrier, must all
//! arrive at the same instruction. Memory is checked as [`memory`](super::memory) says.

use super::arithmetic::{compute, mask};
use super::memory::{Memory, Who};
use super::op::{Op, Space, Ty};
use super::parse::{Instruction, Kernel, Operand, Special};
use thiserror::Error;

/// What a kernel must not do, and where.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Fault {
    #[error("{kernel}, PTX line {line}, thread {thread} of block {block}: {what}")]
    Instruction { kernel: String, line: usize, block: u32, thread: u32, what: String },
    #[error("{kernel}, block {block}: threads wait for others that never come: {what}")]
    Stuck { kernel: String, block: u32, what: String },
    #[error("{kernel} cannot be launched so: {what}")]
    Launch { kernel: String, what: String },
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Index of a buffer.
    Buffer(usize),
    Number(i64),
}

/// Instructions of one thread, at most: more is a loop without end.
const MOST_STEPS: usize = 1 << 28;
const WARP: usize = 32;
/// Addresses between two buffers.
const DISTANCE: u64 = 1 << 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// At an exchange or a barrier of the warp, with these lanes.
    Lanes(u32),
    Block,
    Done,
}

struct Thread {
    at: usize,
    state: State,
    registers: Vec<u64>,
    who: Who,
    steps: usize,
}

struct Block<'k, 'm, 'b> {
    kernel: &'k Kernel,
    params: &'k [u64],
    launch: [u32; 2],
    global: &'m mut Memory<'b>,
    shared: Memory<'m>,
    threads: Vec<Thread>,
}

impl Kernel {
    /// Runs `blocks` blocks of `threads` threads over these buffers, each of which starts at a multiple of 64 bytes.
    ///
    /// # Errors
    /// For whatever a GPU would do something undefined at: an access outside a buffer or not aligned, a race, lanes that do
    /// not meet, a barrier that not all threads reach; and for arguments or threads that do not fit the kernel.
    pub fn launch(
        &self,
        blocks: u32,
        threads: u32,
        buffers: &mut [Vec<u8>],
        args: &[Arg],
    ) -> Result<(), Fault> {
        let refused = |what: String| Err(Fault::Launch { kernel: self.name.clone(), what });
        if args.len() != self.params {
            return refused(format!("{} arguments for {} parameters", args.len(), self.params));
        }
        if threads == 0 || threads > 1024 || self.threads.is_some_and(|t| t != threads) {
            return refused(format!("{threads} threads; it requires {:?}", self.threads));
        }
        if let Some(Arg::Buffer(k)) = args.iter().find(|a| matches!(a, Arg::Buffer(k) if *k >= buffers.len()))
        {
            return refused(format!("buffer {k} of {}", buffers.len()));
        }
        let address = |k: usize| (k as u64 + 1) * DISTANCE;
        let params: Vec<u64> = args
            .iter()
            .map(|a| match *a {
                Arg::Buffer(k) => address(k),
                Arg::Number(n) => n as u64,
            })
            .collect();
        let arrays = buffers.iter_mut().enumerate().map(|(k, b)| (address(k), b.as_mut_slice()));
        let mut global = Memory::new(arrays, self.words);
        for block in 0..blocks {
            // What shared memory holds before it is written is nobody's: NaN, if it is a float.
            let mut shared: Vec<Vec<u8>> = self.shared.iter().map(|&(_, n)| vec![0xff; n as usize]).collect();
            let arrays = self.shared.iter().zip(&mut shared).map(|(&(at, _), b)| (at, b.as_mut_slice()));
            let who = |thread| Who { block, thread, barriers: 0, warp_barriers: 0 };
            let thread = |t| Thread {
                at: 0,
                state: State::Running,
                registers: vec![0; self.registers],
                who: who(t),
                steps: 0,
            };
            let mut block = Block {
                kernel: self,
                params: &params,
                launch: [blocks, threads],
                global: &mut global,
                shared: Memory::new(arrays, self.words),
                threads: (0..threads).map(thread).collect(),
            };
            block.run()?;
        }
        Ok(())
    }
}

impl Block<'_, '_, '_> {
    fn run(&mut self) -> Result<(), Fault> {
        loop {
            for t in 0..self.threads.len() {
                while self.threads[t].state == State::Running {
                    self.step(t).map_err(|what| self.fault(t, what))?;
                }
            }
            if self.threads.iter().all(|t| t.state == State::Done) {
                return Ok(());
            }
            let mut released = self.release_block();
            for warp in 0..self.threads.len().div_ceil(WARP) {
                released |= self.release_lanes(warp)?;
            }
            if !released {
                return Err(self.stuck());
            }
        }
    }

    fn fault(&self, t: usize, what: String) -> Fault {
        let Thread { at, who, .. } = self.threads[t];
        let line = self.kernel.code.get(at).map_or(0, |i| i.line);
        Fault::Instruction {
            kernel: self.kernel.name.clone(),
            line,
            block: who.block,
            thread: who.thread,
            what,
        }
    }

    fn stuck(&self) -> Fault {
        let waiting = self.threads.iter().find(|t| t.state != State::Done);
        let what = waiting.map_or(String::new(), |t| {
            let line = self.kernel.code[t.at].line;
            let others = self.threads.iter().filter(|o| o.at != t.at || o.state != t.state).count();
            format!("thread {} at line {line}, {others} of {} elsewhere", t.who.thread, self.threads.len())
        });
        let block = self.threads.first().map_or(0, |t| t.who.block);
        Fault::Stuck { kernel: self.kernel.name.clone(), block, what }
    }

    /// Lets all threads pass the barrier that all wait at.
    fn release_block(&mut self) -> bool {
        let at = self.threads[0].at;
        if !self.threads.iter().all(|t| t.state == State::Block && t.at == at) {
            return false;
        }
        for t in &mut self.threads {
            t.who.barriers += 1;
            t.at += 1;
            t.state = State::Running;
        }
        true
    }

    /// Lets groups of lanes pass that are all where they meet.
    fn release_lanes(&mut self, warp: usize) -> Result<bool, Fault> {
        let first = warp * WARP;
        let mut released = false;
        for t in first..self.threads.len().min(first + WARP) {
            let State::Lanes(lanes) = self.threads[t].state else { continue };
            let at = self.threads[t].at;
            let members: Vec<usize> = (0..WARP).filter(|l| lanes >> l & 1 == 1).map(|l| first + l).collect();
            let meets = |&m: &usize| {
                self.threads.get(m).is_some_and(|o| o.at == at && o.state == State::Lanes(lanes))
            };
            if !members.contains(&t) {
                return Err(self.fault(t, format!("it is not among the lanes {lanes:#x} that it waits for")));
            }
            if !members.iter().all(meets) {
                continue;
            }
            self.meet(&members).map_err(|what| self.fault(t, what))?;
            released = true;
        }
        Ok(released)
    }

    /// The exchange or barrier that these lanes stand at.
    fn meet(&mut self, members: &[usize]) -> Result<(), String> {
        let kernel = self.kernel;
        let instruction = &kernel.code[self.threads[members[0]].at];
        let operands = &instruction.operands;
        let mut received = Vec::new();
        if instruction.op == Op::Butterfly {
            for &m in members {
                let (distance, clamp) = (self.value(m, &operands[2])?, self.value(m, &operands[3])?);
                if clamp != 31 || distance > 31 {
                    return Err(format!("an exchange over {distance} lanes with clamp {clamp}"));
                }
                let from = m ^ distance as usize;
                if !members.contains(&from) {
                    return Err(format!("lane {} takes the value of a lane that is not there", m % WARP));
                }
                received.push(self.value(from, &operands[1])?);
            }
        }
        for (k, &m) in members.iter().enumerate() {
            if let Some(&bits) = received.get(k) {
                self.set(m, &operands[0], mask(bits, 4))?;
            } else {
                self.threads[m].who.warp_barriers += 1;
            }
            self.threads[m].at += 1;
            self.threads[m].state = State::Running;
        }
        Ok(())
    }

    /// One instruction of one thread, up to where it waits.
    fn step(&mut self, t: usize) -> Result<(), String> {
        let kernel = self.kernel;
        let thread = &mut self.threads[t];
        thread.steps += 1;
        if thread.steps > MOST_STEPS {
            return Err("a loop without end".into());
        }
        let instruction = kernel.code.get(thread.at).ok_or("the kernel ends without `ret`")?;
        let Instruction { guard, op, ty, elements, operands, .. } = instruction;
        if guard.is_some_and(|(register, wanted)| (thread.registers[register as usize] & 1 == 1) != wanted) {
            thread.at += 1;
            return Ok(());
        }
        let operand = |k: usize| operands.get(k).ok_or("an operand is missing");
        match op {
            Op::Return => thread.state = State::Done,
            Op::Branch => {
                let Operand::Label(target) = *operand(0)? else { return Err("a jump to no label".into()) };
                thread.at = target;
            }
            Op::Barrier => {
                thread.state = State::Block;
            }
            Op::Butterfly | Op::WarpBarrier => {
                let lanes = self.value(t, operand(if *op == Op::Butterfly { 4 } else { 0 })?)?;
                self.threads[t].state = State::Lanes(lanes as u32);
            }
            _ => {
                self.compute(t, *op, *ty, *elements, operands)?;
                self.threads[t].at += 1;
            }
        }
        Ok(())
    }

    fn compute(
        &mut self,
        t: usize,
        op: Op,
        ty: Ty,
        elements: usize,
        operands: &[Operand],
    ) -> Result<(), String> {
        let (to, from) = operands.split_first().ok_or("an instruction without operands")?;
        let who = self.threads[t].who;
        match op {
            Op::Load(space) => {
                let source = from.first().ok_or("a load from nowhere")?;
                let values = match (space, source) {
                    (Space::Param, &Operand::Param(k)) => vec![mask(self.params[k], ty.bytes())],
                    (Space::Param, _) => return Err("a load of no parameter".into()),
                    _ => {
                        let address = self.address(t, source)?;
                        match space {
                            Space::Shared => self.shared.load(address, ty.bytes(), elements, who)?,
                            _ => self.global.load(address, ty.bytes(), elements, who)?,
                        }
                    }
                };
                match to {
                    Operand::Vector(parts) if parts.len() == values.len() => {
                        parts.iter().zip(values).try_for_each(|(p, v)| self.set(t, p, v))
                    }
                    _ if elements == 1 => self.set(t, to, values[0]),
                    _ => Err("as many registers as elements".into()),
                }
            }
            Op::Store(space) => {
                let address = self.address(t, to)?;
                let values: Vec<u64> = match from.first() {
                    Some(Operand::Vector(parts)) => {
                        parts.iter().map(|p| self.value(t, p)).collect::<Result<_, _>>()?
                    }
                    Some(one) => vec![self.value(t, one)?],
                    None => return Err("a store of nothing".into()),
                };
                if values.len() != elements {
                    return Err("as many registers as elements".into());
                }
                match space {
                    Space::Shared => self.shared.store(address, ty.bytes(), &values, who),
                    _ => self.global.store(address, ty.bytes(), &values, who),
                }
            }
            // Parts of a register, or a register of parts.
            Op::Mov if matches!((to, from), (Operand::Vector(_), _) | (_, [Operand::Vector(_)])) => {
                self.pack(t, ty, to, from)
            }
            _ => {
                let args: Vec<u64> = from.iter().map(|o| self.value(t, o)).collect::<Result<_, _>>()?;
                let result = compute(op, ty, &args)?;
                self.set(t, to, result)
            }
        }
    }

    fn pack(&mut self, t: usize, ty: Ty, to: &Operand, from: &[Operand]) -> Result<(), String> {
        match (to, from) {
            (Operand::Vector(parts), [whole]) => {
                let (bits, width) = (self.value(t, whole)?, ty.bytes() / parts.len());
                for (k, part) in parts.iter().enumerate() {
                    self.set(t, part, mask(bits >> (8 * width * k), width))?;
                }
                Ok(())
            }
            (_, [Operand::Vector(parts)]) => {
                let width = ty.bytes() / parts.len();
                let mut bits = 0;
                for (k, part) in parts.iter().enumerate() {
                    bits |= mask(self.value(t, part)?, width) << (8 * width * k);
                }
                self.set(t, to, bits)
            }
            _ => Err("a move of more than one value".into()),
        }
    }

    fn address(&self, t: usize, operand: &Operand) -> Result<u64, String> {
        match *operand {
            Operand::Address(register, offset) => {
                Ok(self.threads[t].registers[register as usize].wrapping_add_signed(offset))
            }
            _ => Err("an address that is none".into()),
        }
    }

    fn value(&self, t: usize, operand: &Operand) -> Result<u64, String> {
        let thread = &self.threads[t];
        Ok(match *operand {
            Operand::Register(r) => thread.registers[r as usize],
            Operand::Immediate(bits) => bits,
            Operand::Special(Special::Thread) => thread.who.thread.into(),
            Operand::Special(Special::Block) => thread.who.block.into(),
            Operand::Special(Special::Blocks) => self.launch[0].into(),
            Operand::Special(Special::Threads) => self.launch[1].into(),
            _ => return Err("an operand that is no value".into()),
        })
    }

    fn set(&mut self, t: usize, operand: &Operand, bits: u64) -> Result<(), String> {
        match *operand {
            Operand::Register(r) => {
                self.threads[t].registers[r as usize] = bits;
                Ok(())
            }
            Operand::Sink => Ok(()),
            _ => Err("a result without a register".into()),
        }
    }
}
