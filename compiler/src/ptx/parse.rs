//! PTX text to kernels that can be executed.

use super::op::{Op, Ty, decode};
use rustc_hash::FxHashMap;
use thiserror::Error;

/// What is wrong with a module's text.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    #[error("PTX line {line}: `{name}` is no instruction that generated kernels use")]
    Unknown { line: usize, name: String },
    #[error("PTX line {line}: {what} in `{text}`")]
    Syntax { line: usize, what: &'static str, text: String },
}

/// Numbers that every thread knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Thread,
    Threads,
    Block,
    Blocks,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Register(u32),
    /// Bits of a number.
    Immediate(u64),
    Special(Special),
    Vector(Vec<Operand>),
    /// `_`: a result that nobody wants.
    Sink,
    /// What a register holds, and so many bytes more.
    Address(u32, i64),
    /// Index of a kernel's argument.
    Param(usize),
    /// An instruction's index.
    Label(usize),
}

/// One instruction, to be done where the predicate is as said.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    pub line: usize,
    pub guard: Option<(u32, bool)>,
    pub op: Op,
    pub ty: Ty,
    /// Elements that it moves.
    pub elements: usize,
    pub operands: Vec<Operand>,
}

/// One entry of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    pub name: String,
    pub params: usize,
    /// Threads of a block, where the text requires a number.
    pub threads: Option<u32>,
    pub registers: usize,
    /// Bytes of shared memory from each address on.
    pub shared: Vec<(u64, u64)>,
    pub code: Vec<Instruction>,
    /// Every access moves words of 4 bytes or more.
    pub words: bool,
}

/// Free bytes before every array in shared memory, so that running past the end of one shows.
const GAP: u64 = 64;

struct Parser {
    kernels: Vec<Kernel>,
    shared: Vec<(u64, u64)>,
    symbols: FxHashMap<String, u64>,
    registers: FxHashMap<String, u32>,
    params: Vec<String>,
    labels: FxHashMap<String, usize>,
    /// Operands that name a label: instruction and name.
    jumps: Vec<(usize, usize, String)>,
}

/// The kernels of a module as LLVM prints it, a statement each line.
///
/// # Errors
/// For an instruction that is not known here, and for text that is not understood.
pub fn parse(text: &str) -> Result<Vec<Kernel>, ParseError> {
    let mut p = Parser {
        kernels: Vec::new(),
        shared: Vec::new(),
        symbols: FxHashMap::default(),
        registers: FxHashMap::default(),
        params: Vec::new(),
        labels: FxHashMap::default(),
        jumps: Vec::new(),
    };
    let mut inside = false;
    for (k, raw) in text.lines().enumerate() {
        let (line, statement) = (k + 1, raw.split("//").next().unwrap_or_default().trim());
        let syntax = |what| ParseError::Syntax { line, what, text: statement.to_owned() };
        if let Some(rest) = statement.strip_prefix(".visible .entry ") {
            p.begin(rest.trim_end_matches(['(', ')']));
        } else if statement.starts_with(".shared ") {
            p.array(statement).ok_or_else(|| syntax("an array in shared memory"))?;
        } else if statement.starts_with(".param ") {
            let name = statement.trim_end_matches(',').split_whitespace().last();
            p.params.push(name.ok_or_else(|| syntax("a parameter"))?.to_owned());
        } else if let Some(threads) = statement.strip_prefix(".reqntid ") {
            let threads = threads.split(',').next().and_then(|n| n.trim().parse().ok());
            let kernel = p.kernels.last_mut().ok_or_else(|| syntax("a number of threads"))?;
            kernel.threads = Some(threads.ok_or_else(|| syntax("a number of threads"))?);
        } else if statement == "{" {
            inside = true;
        } else if statement == "}" {
            p.end().ok_or_else(|| syntax("a jump to a label that is not there"))?;
            inside = false;
        } else if let Some(label) = statement.strip_suffix(':') {
            let at = p.kernels.last().map_or(0, |k| k.code.len());
            p.labels.insert(label.to_owned(), at);
        } else if inside && !statement.is_empty() && !statement.starts_with('.') {
            p.instruction(statement, line)?;
        } else if !inside && !["", ")"].contains(&statement) && !is_head(statement) {
            return Err(syntax("nothing that generated modules hold"));
        }
    }
    Ok(p.kernels)
}

fn is_head(statement: &str) -> bool {
    [".version ", ".target ", ".address_size "].iter().any(|d| statement.starts_with(d))
}

/// The parts of a list that commas separate, those in braces as one.
fn list(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|p| !p.is_empty());
    parts
}

/// Bits of a written number.
fn number(text: &str) -> Option<u64> {
    let text = text.strip_suffix('U').unwrap_or(text);
    if let Some(bits) = text.strip_prefix("0f").or(text.strip_prefix("0d")).or(text.strip_prefix("0x")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    text.parse::<i64>().map(|n| n as u64).or_else(|_| text.parse::<u64>()).ok()
}

impl Parser {
    fn begin(&mut self, name: &str) {
        self.registers.clear();
        self.params.clear();
        self.labels.clear();
        self.jumps.clear();
        self.kernels.push(Kernel {
            name: name.to_owned(),
            params: 0,
            threads: None,
            registers: 0,
            shared: Vec::new(),
            code: Vec::new(),
            words: true,
        });
    }

    /// `.shared .align 4 .b8 name[128];`
    fn array(&mut self, statement: &str) -> Option<()> {
        let (head, size) = statement.split_once('[')?;
        let name = head.split_whitespace().last()?;
        let bytes: u64 = size.trim_end_matches(';').trim_end_matches(']').parse().ok()?;
        let before = self.shared.last().map_or(0, |&(at, bytes)| at + bytes);
        let at = (before + GAP).next_multiple_of(16);
        self.shared.push((at, bytes));
        self.symbols.insert(name.to_owned(), at);
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        let kernel = self.kernels.last_mut()?;
        for (instruction, operand, label) in &self.jumps {
            kernel.code[*instruction].operands[*operand] = Operand::Label(*self.labels.get(label)?);
        }
        kernel.params = self.params.len();
        kernel.registers = self.registers.len();
        kernel.shared = self.shared.clone();
        Some(())
    }

    fn instruction(&mut self, statement: &str, line: usize) -> Result<(), ParseError> {
        let syntax = |what| ParseError::Syntax { line, what, text: statement.to_owned() };
        let mut rest = statement.strip_suffix(';').ok_or_else(|| syntax("no end of the statement"))?.trim();
        let mut guard = None;
        if let Some(after) = rest.strip_prefix('@') {
            let (predicate, after) =
                after.split_once(char::is_whitespace).ok_or_else(|| syntax("a guard alone"))?;
            let wanted = !predicate.starts_with('!');
            guard = Some((self.register(predicate.trim_start_matches('!')), wanted));
            rest = after.trim();
        }
        let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let (op, ty, elements) =
            decode(name).ok_or_else(|| ParseError::Unknown { line, name: name.to_owned() })?;
        let at = self.kernels.last().map_or(0, |k| k.code.len());
        let mut parsed = Vec::new();
        for (k, text) in list(operands).into_iter().enumerate() {
            if text.starts_with('$') {
                self.jumps.push((at, k, text.to_owned()));
            }
            parsed.push(self.operand(text).ok_or_else(|| syntax("an operand that is not understood"))?);
        }
        if let Some(kernel) = self.kernels.last_mut() {
            let moves = matches!(op, Op::Load(_) | Op::Store(_));
            kernel.words &= !(moves && ty.bytes() < 4);
            kernel.code.push(Instruction { line, guard, op, ty, elements, operands: parsed });
        }
        Ok(())
    }

    fn register(&mut self, name: &str) -> u32 {
        let next = self.registers.len() as u32;
        *self.registers.entry(name.to_owned()).or_insert(next)
    }

    fn operand(&mut self, text: &str) -> Option<Operand> {
        let special = match text {
            "%tid.x" => Some(Special::Thread),
            "%ntid.x" => Some(Special::Threads),
            "%ctaid.x" => Some(Special::Block),
            "%nctaid.x" => Some(Special::Blocks),
            _ => None,
        };
        if let Some(special) = special {
            return Some(Operand::Special(special));
        }
        if text == "_" {
            return Some(Operand::Sink);
        }
        if let Some(inner) = text.strip_prefix('{') {
            let parts = list(inner.strip_suffix('}')?);
            return parts.into_iter().map(|p| self.operand(p)).collect::<Option<_>>().map(Operand::Vector);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']')?;
            if let Some(k) = self.params.iter().position(|p| p == inner) {
                return Some(Operand::Param(k));
            }
            let (base, offset) = match inner.split_once('+') {
                Some((base, offset)) => (base, offset.parse().ok()?),
                None => (inner, 0),
            };
            if !base.starts_with('%') {
                return None;
            }
            return Some(Operand::Address(self.register(base), offset));
        }
        match text.as_bytes().first()? {
            b'%' => Some(Operand::Register(self.register(text))),
            // Which instruction it is follows when all labels are known.
            b'$' => Some(Operand::Label(0)),
            _ => number(text).or_else(|| self.symbols.get(text).copied()).map(Operand::Immediate),
        }
    }
}
