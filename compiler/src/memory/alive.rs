//! What is alive at the peak of a program, and why.

use super::units;
use crate::lower::Lowered;
use crate::lower::kernel::{KernelSpec, Kind as KernelKind};
use isoflop_kernels::program::{ALIGN, Call, Launch, Program, Space};
use serde::Serialize;
use std::fmt;

/// What a value is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Weights,
    Optimiser,
    /// Read by the optimiser.
    Gradients,
    /// Made by the forward pass and read by the backward pass.
    Activations,
    Temporaries,
    /// Belongs to one launch.
    Workspace,
    /// Inputs, outputs and tables.
    Interface,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Weights,
        Kind::Optimiser,
        Kind::Gradients,
        Kind::Activations,
        Kind::Temporaries,
        Kind::Workspace,
        Kind::Interface,
    ];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Weights => "weights",
            Kind::Optimiser => "optimiser moments",
            Kind::Gradients => "gradients of weights",
            Kind::Activations => "activations kept",
            Kind::Temporaries => "temporaries",
            Kind::Workspace => "workspace",
            Kind::Interface => "inputs, outputs, tables",
        }
    }
}

/// A place in the list of launches, with its label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct At {
    pub launch: usize,
    pub label: String,
}

/// A value in memory at the peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alive {
    /// Operation and scope, as `mul layers.3.gelu`; the name of a buffer outside the arena.
    pub source: String,
    pub kind: Kind,
    pub bytes: u64,
    /// The launch that makes it; none outside the arena, where buffers live always.
    pub made: Option<At>,
    /// The last launch that reads it.
    pub last_read: Option<At>,
}

/// The moment of a program at which most is alive.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// The launch that runs then.
    pub during: At,
    /// Of the whole program: `Program::total_bytes`.
    pub bytes: u64,
    /// Bytes of the arena in which nothing lives then: the price of fixed places.
    pub unused: u64,
    /// The largest first.
    pub alive: Vec<Alive>,
}

impl Peak {
    pub fn of_kind(&self, kind: Kind) -> u64 {
        self.alive.iter().filter(|a| a.kind == kind).map(|a| a.bytes).sum()
    }
}

/// `in layers.3.attention: weights 1.2 GB, ...; largest: dot layers.0.ff1 (2.1 MB), ...`
impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = Kind::ALL
            .into_iter()
            .filter(|&k| self.of_kind(k) > 0)
            .map(|k| format!("{} {}", k.words(), units::bytes(self.of_kind(k))))
            .collect();
        let in_arena = self.alive.iter().filter(|a| a.made.is_some());
        let largest: Vec<String> =
            in_arena.take(5).map(|a| format!("{} ({})", a.source, units::bytes(a.bytes))).collect();
        write!(f, "in {}: {}; largest: {}", self.during.label, kinds.join(", "), largest.join(", "))
    }
}

/// The peak of a program.
pub fn peak(lowered: &Lowered) -> Peak {
    let p = &lowered.program;
    let view = View::of(lowered);
    let mut change = vec![0i128; p.launches.len() + 1];
    for (buffer, span) in p.buffers.iter().zip(&view.spans) {
        if let (Space::Arena, Some((first, last))) = (buffer.space, span) {
            change[*first] += size(buffer.bytes()) as i128;
            change[*last + 1] -= size(buffer.bytes()) as i128;
        }
    }
    let (mut alive, mut most, mut during) = (0, 0, 0);
    for (launch, change) in change.iter().enumerate() {
        alive += change;
        if alive > most {
            (most, during) = (alive, launch);
        }
    }
    let unused = p.arena_bytes - most as u64;
    Peak { during: view.at(during), bytes: p.total_bytes(), unused, alive: view.alive(during) }
}

/// Bytes of activations, and of temporaries and workspace, when these together are most: what a step needs beside weights,
/// optimiser and gradients, which a device may hold elsewhere.
pub fn working_peak(lowered: &Lowered) -> (u64, u64) {
    let view = View::of(lowered);
    let at = |launch| {
        let (mut activations, mut others) = (0, 0);
        for a in view.alive(launch) {
            match a.kind {
                Kind::Activations => activations += a.bytes,
                Kind::Temporaries | Kind::Workspace => others += a.bytes,
                Kind::Weights | Kind::Optimiser | Kind::Gradients | Kind::Interface => {}
            }
        }
        (activations, others)
    };
    (0..lowered.program.launches.len()).map(at).max_by_key(|(a, o)| a + o).unwrap_or_default()
}

/// When each buffer of a program is touched and alive.
struct View<'a> {
    lowered: &'a Lowered,
    touched: Vec<Vec<(usize, usize)>>,
    spans: Vec<Option<(usize, usize)>>,
    /// First launch of the backward pass.
    backward: usize,
}

impl<'a> View<'a> {
    fn of(lowered: &'a Lowered) -> Self {
        let p = &lowered.program;
        let touched = touches(p);
        let spans = spans(p, &touched);
        let loss = p.buffers.iter().position(|b| b.space == Space::Output && b.name == "loss");
        let loss = loss.and_then(|b| touched[b].last()).map_or(usize::MAX, |t| t.0);
        // The backward pass begins with the loss, or earlier: nothing in it needs the loss itself.
        let backward = p.launches.iter().position(|l| l.label.ends_with("/grad")).unwrap_or(loss).min(loss);
        View { lowered, touched, spans, backward }
    }

    fn at(&self, launch: usize) -> At {
        At { launch, label: label(&self.lowered.program.launches, launch) }
    }

    /// Does the launch write to the optimiser's state?
    fn updates(&self, launch: usize) -> bool {
        let p = &self.lowered.program;
        let l = &p.launches[launch];
        (0..l.args.len())
            .any(|a| p.buffers[l.args[a] as usize].space == Space::State && is_written(self.lowered, l, a))
    }

    /// What is in memory during a launch, the largest first.
    fn alive(&self, during: usize) -> Vec<Alive> {
        let (lowered, backward) = (self.lowered, self.backward);
        let p = &lowered.program;
        let mut list = Vec::new();
        for ((buffer, t), span) in p.buffers.iter().zip(&self.touched).zip(&self.spans) {
            if buffer.space != Space::Arena {
                let kind = match buffer.space {
                    Space::State if buffer.name.starts_with("param.") => Kind::Weights,
                    Space::State => Kind::Optimiser,
                    _ => Kind::Interface,
                };
                let (source, bytes) = (buffer.name.clone(), size(buffer.bytes()));
                list.push(Alive { source, kind, bytes, made: None, last_read: None });
                continue;
            }
            let (Some(touch), Some(_)) = (t.first(), span.filter(|s| (s.0..=s.1).contains(&during))) else {
                continue;
            };
            // The value that is there now: from the last write until now to the last touch before the next write.
            let writes = |&&(launch, arg): &&(usize, usize)| is_written(lowered, &p.launches[launch], arg);
            let made = t.iter().filter(|t| t.0 <= during).rfind(writes).unwrap_or(touch);
            let next = t.iter().filter(|t| t.0 > during).find(writes).map_or(usize::MAX, |t| t.0);
            let read = t.iter().rfind(|t| t.0 <= next).unwrap_or(made).0;
            let kind = if buffer.name.starts_with('w') {
                Kind::Workspace
            } else if made.0 < backward && read >= backward {
                Kind::Activations
            } else if made.0 >= backward && buffer.elements() > 1 && self.updates(read) {
                Kind::Gradients
            } else {
                Kind::Temporaries
            };
            let source = format!("{} {}", operation(lowered, *made), label(&p.launches, made.0));
            let bytes = size(buffer.bytes());
            list.push(Alive {
                source,
                kind,
                bytes,
                made: Some(self.at(made.0)),
                last_read: Some(self.at(read)),
            });
        }
        list.sort_by_key(|a| std::cmp::Reverse(a.bytes));
        list
    }
}

fn size(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

fn label(launches: &[Launch], launch: usize) -> String {
    launches.get(launch).map_or(String::new(), |l| l.label.clone())
}

/// For each buffer the launches that touch it, in order, and as which argument.
fn touches(p: &Program) -> Vec<Vec<(usize, usize)>> {
    let mut touches = vec![Vec::new(); p.buffers.len()];
    for (i, launch) in p.launches.iter().enumerate() {
        for (a, &buffer) in launch.args.iter().enumerate() {
            touches[buffer as usize].push((i, a));
        }
    }
    touches
}

/// First and last launch at which each buffer is alive. All that a chain touches is alive as long as it runs.
fn spans(p: &Program, touched: &[Vec<(usize, usize)>]) -> Vec<Option<(usize, usize)>> {
    let mut runs: Vec<(usize, usize)> = (0..p.launches.len()).map(|i| (i, i)).collect();
    for chain in &p.chains {
        let members = chain.members();
        let whole = (members.start, members.end - 1);
        runs[members].fill(whole);
    }
    let of = |t: &Vec<(usize, usize)>| {
        let first = t.iter().map(|t| runs[t.0].0).min();
        first.zip(t.iter().map(|t| runs[t.0].1).max())
    };
    touched.iter().map(of).collect()
}

/// The generated kernel that takes this argument of a launch, and as which of its own.
fn kernel<'a>(l: &'a Lowered, call: &Call, arg: usize) -> Option<(&'a KernelSpec, usize)> {
    match call {
        Call::Generated { kernel } => l.kernels.get(*kernel as usize).map(|k| (k, arg)),
        Call::Grouped { kernels } => {
            // All are of one symbol and take as many arguments.
            let each = l.program.kernels.get(*kernels.first()? as usize)?.n_args.max(1) as usize;
            let kernel = kernels.get(arg / each)?;
            l.kernels.get(*kernel as usize).map(|k| (k, arg % each))
        }
        _ => None,
    }
}

/// Does the launch write this argument?
fn is_written(l: &Lowered, launch: &Launch, arg: usize) -> bool {
    if let Some((k, arg)) = kernel(l, &launch.call, arg) {
        return match &k.kind {
            KernelKind::Region(body) => {
                arg >= body.inputs.len() || k.outputs.iter().any(|o| o.in_place == Some(arg))
            }
            KernelKind::Move { operands, .. } => arg >= operands.len(),
            KernelKind::Finish { .. } => arg == 1,
        };
    }
    launch.call.writes(arg, launch.args.len()).unwrap_or_default()
}

/// The operation that makes an argument of a launch.
fn operation(l: &Lowered, (launch, arg): (usize, usize)) -> &'static str {
    let launch = &l.program.launches[launch];
    let Some((spec, arg)) = kernel(l, &launch.call, arg) else {
        return match launch.call {
            Call::GemmSquares(_) if arg == 3 => "sum of squares",
            Call::Gemm(_) | Call::GemmSquares(_) => "dot",
            Call::Gather { .. } => "gather",
            Call::ScatterAdd { .. } => "scatter_add",
            Call::Copy { .. } => "copy",
            Call::Head(_) => "head",
            _ => "attention",
        };
    };
    match &spec.kind {
        KernelKind::Region(body) => {
            let mut new = spec.outputs.iter().filter(|o| o.in_place.is_none());
            let output = match arg.checked_sub(body.inputs.len()) {
                Some(k) => new.nth(k),
                None => spec.outputs.iter().find(|o| o.in_place == Some(arg)),
            };
            output.map_or("fused", |o| body.items[o.item].op.mnemonic())
        }
        KernelKind::Move { op, .. } => op.mnemonic(),
        KernelKind::Finish { .. } => "sum",
    }
}
