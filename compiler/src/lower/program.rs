//! From a fused graph to a program: storage for every value, an order, a place in memory, and a list of launches in
//! waves. No machine code is made here; the kernels it needs come out as specs.

use super::chains;
use super::kernel::{KernelSpec, Output, may_overwrite};
use super::launches;
use super::product::gemm_of;
use super::schedule::{Policy, Update, schedule};
use super::step::{Cut, Step, partial_width};
use super::storage::Storages;
use crate::fuse::body::{Access, Body, Reduction, Source, is_free, is_item};
use crate::graph::{Binary, Graph, HeadCall, Library, Op, ReduceKind, RelAttentionCall, TensorType, Value};
use crate::machine::Machine;
use crate::memory;
use isoflop_kernels::DType;
use isoflop_kernels::cpu::attention::RelAttention;
use isoflop_kernels::cpu::head::Head;
use isoflop_kernels::program::{BufferId, Call, GeneratedKernel, Program};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum LowerError {
    #[error("{op} (node %{id}) has no {machine} code: {why}")]
    Unsupported { op: &'static str, id: u32, machine: &'static str, why: String },
}

/// A program and the kernels that its `Generated` launches need, in the order of `Program::kernels`.
#[derive(Clone, Debug)]
pub struct Lowered {
    pub program: Program,
    pub kernels: Vec<KernelSpec>,
    /// The buffer of every value that has one, by node id and result; values that share bytes share it.
    pub buffers: BTreeMap<(u32, u16), BufferId>,
    /// The kernel of every `fused` node, by node id: an index into `kernels`.
    pub kernel_of: BTreeMap<u32, u32>,
}

/// A fused or single-node region as the program sees it.
struct Region {
    body: Body,
    /// Operand position of each input of the body.
    operands: Vec<usize>,
    outputs: Vec<Output>,
}

/// The program of `g` for a CPU in whichever of the two orders needs less memory.
pub fn lower(g: &Graph) -> Result<Lowered, LowerError> {
    lower_for(g, &Machine::Cpu)
}

/// The program of `g` for this machine in whichever of the two orders needs less memory. A GPU's program has kernels with
/// grids, and neither chains nor products that sum squares: its launches follow one another on one stream.
pub fn lower_for(g: &Graph, machine: &Machine) -> Result<Lowered, LowerError> {
    let regions = regions(g, machine)?;
    let updates = in_place_updates(g, &regions);
    let least = steps(g, &regions, &updates, Policy::LeastMemory, machine)?.finish();
    let by_id = steps(g, &regions, &updates, Policy::Id, machine)?;
    if by_id.least_arena() >= least.program.arena_bytes {
        return Ok(least);
    }
    let by_id = by_id.finish();
    Ok(if by_id.program.arena_bytes < least.program.arena_bytes { by_id } else { least })
}

/// The least arena of `g` in the order that saves memory: what is alive at once, before anything has a place.
pub fn least_arena(g: &Graph) -> Result<u64, LowerError> {
    let machine = &Machine::Cpu;
    let regions = regions(g, machine)?;
    let updates = in_place_updates(g, &regions);
    Ok(steps(g, &regions, &updates, Policy::LeastMemory, machine)?.least_arena())
}

/// The program of `g` in one order.
#[cfg(test)]
pub(super) fn lower_by(g: &Graph, policy: Policy) -> Result<Lowered, LowerError> {
    let regions = regions(g, &Machine::Cpu)?;
    Ok(steps(g, &regions, &in_place_updates(g, &regions), policy, &Machine::Cpu)?.finish())
}

fn steps<'a>(
    g: &'a Graph,
    regions: &'a FxHashMap<NodeIndex, Region>,
    updates: &[InPlaceUpdate],
    policy: Policy,
    machine: &'a Machine,
) -> Result<Steps<'a>, LowerError> {
    let pairs: Vec<Update> = updates.iter().map(|u| u.update).collect();
    let (order, dropped) = schedule(g, &pairs, policy);
    let mut storages = Storages::of(g, &order);
    let mut in_place: FxHashMap<(NodeIndex, usize), usize> = FxHashMap::default();
    for u in updates {
        if !dropped.contains(&u.update) {
            storages.alias_state(u.value, u.update.input);
            in_place.insert((u.update.writer, u.output), u.input_of_body);
        }
    }
    storages.assign_outputs(g);
    let mut steps = Steps {
        g,
        machine,
        regions,
        storages,
        in_place,
        kernels: Vec::new(),
        symbols: Vec::new(),
        kernel_at: FxHashMap::default(),
        kernel_of: BTreeMap::new(),
        list: Vec::new(),
    };
    for &n in &order {
        steps.node(n)?;
    }
    steps.copy_outputs();
    Ok(steps)
}

/// Bodies of all fused nodes.
fn regions(g: &Graph, machine: &Machine) -> Result<FxHashMap<NodeIndex, Region>, LowerError> {
    let mut out = FxHashMap::default();
    for n in g.nodes().node_indices() {
        let Op::Fused { region } = g.op(n) else { continue };
        let items: Vec<NodeIndex> =
            region.topological().into_iter().filter(|&m| is_item(region.op(m))).collect();
        let (id, name) = (g.node(n).id, machine.name());
        let unsupported = |why: String| LowerError::Unsupported { op: "fused", id, machine: name, why };
        let other = region
            .nodes()
            .node_weights()
            .find(|m| !is_item(&m.op) && !is_free(&m.op) && !matches!(m.op, Op::Input { .. }));
        if let Some(m) = other {
            return Err(unsupported(format!("a region cannot hold {}", m.op.mnemonic())));
        }
        let powers = |m: &NodeIndex| {
            matches!(region.op(*m), Op::Binary(Binary::Pow)) && !region.ty((*m).into()).dtype.is_float()
        };
        if items.iter().any(powers) {
            return Err(unsupported("powers of integers have no machine code; cast to f32 first".into()));
        }
        if let Some(m) = items.iter().find(|&&m| !machine.has(region.op(m), region.ty(m.into()).dtype)) {
            let (op, ty) = (region.op(*m).mnemonic(), region.ty((*m).into()));
            return Err(unsupported(format!("{op} of {ty} has no instruction; cast to f32 first")));
        }
        let body = Body::of(region, &items).map_err(|r| unsupported(r.sentence().to_string()))?;
        let operands = body
            .inputs
            .iter()
            .map(|v| region.inputs.iter().position(|&i| i == v.node).ok_or(v))
            .collect::<Result<Vec<usize>, _>>()
            .map_err(|_| unsupported("it reads a value that is not one of its inputs".into()))?;
        let mut outputs = Vec::new();
        for o in &region.outputs {
            let item = body.items.iter().position(|i| i.node == o.value.node);
            let item = item.ok_or_else(|| unsupported("an output is not computed in the region".into()))?;
            outputs.push(Output { item, ty: body.items[item].result.clone(), in_place: None });
        }
        out.insert(n, Region { body, operands, outputs });
    }
    Ok(out)
}

struct InPlaceUpdate {
    update: Update,
    value: Value,
    output: usize,
    input_of_body: usize,
}

/// Graph outputs that are the next value of a state input and may be written over it. A state whose old value is
/// itself an output, or that the writer also reads in another shape, is not: it is copied at the end.
fn in_place_updates(g: &Graph, regions: &FxHashMap<NodeIndex, Region>) -> Vec<InPlaceUpdate> {
    let mut out: Vec<InPlaceUpdate> = Vec::new();
    let shown: FxHashSet<Value> = g.outputs.iter().map(|o| g.behind_views(o.value)).collect();
    for o in &g.outputs {
        let Some(old) = g.input(&o.name) else { continue };
        let Some(region) = regions.get(&o.value.node) else { continue };
        let operands = g.operands(o.value.node);
        let k = o.value.result as usize;
        let views = operands.iter().filter(|&&v| g.behind_views(v) == old).count();
        if views > 1 || shown.contains(&old) {
            continue;
        }
        let Some(input) = region.operands.iter().position(|&p| operands[p] == old) else { continue };
        let taken = out
            .iter()
            .any(|u| u.update.writer == o.value.node && (u.input_of_body == input || u.output == k));
        if !taken && may_overwrite(&region.body, &region.outputs, region.outputs[k].item, input) {
            out.push(InPlaceUpdate {
                update: Update { input: old.node, writer: o.value.node },
                value: o.value,
                output: k,
                input_of_body: input,
            });
        }
    }
    out
}

struct Steps<'a> {
    g: &'a Graph,
    machine: &'a Machine,
    regions: &'a FxHashMap<NodeIndex, Region>,
    storages: Storages,
    in_place: FxHashMap<(NodeIndex, usize), usize>,
    kernels: Vec<KernelSpec>,
    /// Of `kernels`.
    symbols: Vec<String>,
    /// By symbol, rows and rows of a task: one machine code serves any number of rows, but a launch has its own.
    kernel_at: FxHashMap<(String, usize, usize), u32>,
    kernel_of: BTreeMap<u32, u32>,
    list: Vec<Step>,
}

impl Steps<'_> {
    fn kernel(&mut self, spec: KernelSpec) -> Call {
        let spec = spec.on(self.machine);
        let symbol = spec.symbol();
        let key = (symbol.clone(), spec.rows, spec.rows_per_task);
        let next = self.kernels.len() as u32;
        let kernel = *self.kernel_at.entry(key).or_insert(next);
        if kernel == next {
            self.kernels.push(spec);
            self.symbols.push(symbol);
        }
        Call::Generated { kernel }
    }

    fn push(&mut self, call: Call, reads: &[usize], writes: &[usize], label: &str, flops: u64) {
        let mut args = reads.to_vec();
        args.extend(writes);
        let flags = (0..args.len()).map(|i| i >= reads.len()).collect();
        self.list.push(Step { call, args, writes: flags, label: label.to_string(), flops, cut: None });
    }

    /// The launch made last can be cut so.
    fn cut_last(&mut self, cut: Option<Cut>) {
        if let Some(step) = self.list.last_mut() {
            step.cut = cut;
        }
    }

    fn node(&mut self, n: NodeIndex) -> Result<(), LowerError> {
        let g = self.g;
        let node = g.node(n);
        let label = node.scope.as_deref().unwrap_or("").to_string();
        let operands = g.operands(n);
        let reads: Vec<usize> = operands.iter().map(|&v| self.storages.of_value(v)).collect();
        let result = self.storages.of_value(n.into());
        match &node.op {
            Op::Input { .. } | Op::Reshape => {}
            Op::Fused { .. } => self.region(n, &reads, &label),
            Op::Dot { .. } => {
                let unsupported = |why: &str| self.unsupported(n, why);
                if node.results[0].dtype != DType::F32 {
                    return Err(unsupported("products are f32 here"));
                }
                let gemm = gemm_of(g, n).ok_or_else(|| {
                    unsupported("no strides of a matrix product describe it; the pass `legalize` must run")
                })?;
                let flops = gemm.flops();
                let cut = Cut::of_product(&gemm, g.ty(operands[0]).elements());
                self.push(Call::Gemm(gemm), &reads, &[result], &label, flops);
                self.cut_last(cut);
            }
            Op::Gather => {
                let (table, rows) = (g.ty(operands[0]), g.ty(operands[1]).elements());
                let vocab = table.shape[0];
                let width = table.elements() / vocab.max(1);
                self.need_f32(n, table)?;
                self.push(Call::Gather { rows, width, vocab }, &reads, &[result], &label, 0);
            }
            Op::ScatterAdd { vocab } => {
                let rows = g.ty(operands[0]).elements();
                let width = node.results[0].elements() / (*vocab).max(1);
                self.need_f32(n, &node.results[0])?;
                let call = Call::ScatterAdd { rows, width, vocab: *vocab, accumulate: reads.len() > 2 };
                if let Some(&base) = reads.get(2) {
                    self.start_from(n, result, base, &reads[..2], &label);
                }
                self.push(call, &reads[..2], &[result], &label, 0);
            }
            Op::Call(library) => self.library(n, library, &reads, &label),
            Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. } => {
                return Err(self.unsupported(n, "this program runs in one process"));
            }
            op => {
                if matches!(op, Op::Reduce { .. }) || is_free(op) || !is_item(op) {
                    let types = operands.iter().map(|&v| g.ty(v).clone()).collect();
                    let spec = KernelSpec::movement(op.clone(), types, node.results[0].clone());
                    let call = self.kernel(spec);
                    self.push(call, &reads, &[result], &label, 0);
                } else {
                    let why = match Body::of(g, &[n]) {
                        Ok(_) => {
                            "elementwise operations become kernels in `fuse` or `outline`; one of the two must run"
                        }
                        Err(_) => "no single loop follows its broadcasts; the pass `legalize` must run",
                    };
                    return Err(self.unsupported(n, why));
                }
            }
        }
        Ok(())
    }

    /// Makes `result` begin as `base`: in its place where nobody reads the base later, else as a copy.
    fn start_from(&mut self, n: NodeIndex, result: usize, base: usize, others: &[usize], label: &str) {
        let s = &mut self.storages;
        if s.dies_at(base, n) && s.is_temporary(base) && !others.contains(&base) {
            // The base is made where the result stands, which may be an output.
            s.merge(base, result);
        } else {
            let bytes = s.bytes(base);
            self.push(Call::Copy { bytes }, &[base], &[result], label, 0);
        }
    }

    fn need_f32(&self, n: NodeIndex, t: &TensorType) -> Result<(), LowerError> {
        if t.dtype == DType::F32 {
            return Ok(());
        }
        Err(self.unsupported(n, &format!("{t} is not f32")))
    }

    fn unsupported(&self, n: NodeIndex, why: &str) -> LowerError {
        let (node, machine) = (self.g.node(n), self.machine.name());
        LowerError::Unsupported { op: node.op.mnemonic(), id: node.id, machine, why: why.to_owned() }
    }

    fn region(&mut self, n: NodeIndex, operand_storages: &[usize], label: &str) {
        let Some(Region { body, operands, outputs }) = self.regions.get(&n) else { return };
        let (body, mut outputs) = (body.clone(), outputs.clone());
        let reads: Vec<usize> = operands.iter().map(|&p| operand_storages[p]).collect();
        let results: Vec<usize> =
            (0..outputs.len()).map(|k| self.storages.of_value(Value { node: n, result: k as u16 })).collect();
        if matches!(self.machine, Machine::Cpu)
            && is_sum_of_squares(&body, &outputs)
            && let ([read], [result]) = (&reads[..], &results[..])
            && self.squares_by_product(*read, *result, label)
        {
            return;
        }
        for (k, o) in outputs.iter_mut().enumerate() {
            o.in_place = self.in_place.get(&(n, k)).copied();
        }
        self.reuse_dead_inputs(n, &body, &mut outputs, &reads, &results);
        let spec = KernelSpec::region(body, outputs).on(self.machine);
        let tasks = spec.tasks();
        let super::kernel::Kind::Region(body) = &spec.kind else { return };
        let mut writes = Vec::new();
        let mut finishes = Vec::new();
        for (k, o) in spec.outputs.iter().enumerate() {
            if o.in_place.is_some() {
                continue;
            }
            let item = &body.items[o.item];
            match partial_width(body, o) {
                Some(width) if tasks > 1 => {
                    let ty = TensorType::new(o.ty.dtype, &[tasks, width]);
                    let parts = self.storages.temporary(&ty);
                    let max = matches!(item.op, Op::Reduce { kind: ReduceKind::Max, .. });
                    finishes.push((parts, results[k], KernelSpec::finish(tasks, width, max, o.ty.dtype)));
                    writes.push(parts);
                }
                _ => writes.push(results[k]),
            }
        }
        // An input that is overwritten is an argument once, and written.
        let overwritten: Vec<usize> = spec.outputs.iter().filter_map(|o| o.in_place).collect();
        let n_reads = reads.len();
        let cut = Cut::of_kernel(&spec);
        let call = self.kernel(spec);
        if let Call::Generated { kernel } = call {
            self.kernel_of.insert(self.g.node(n).id, kernel);
        }
        self.push(call, &reads, &writes, label, 0);
        self.cut_last(cut);
        if let Some(step) = self.list.last_mut() {
            for i in overwritten.into_iter().filter(|&i| i < n_reads) {
                step.writes[i] = true;
            }
        }
        for (parts, result, finish) in finishes {
            let call = self.kernel(finish);
            self.push(call, &[parts], &[result], label, 0);
        }
    }

    /// The product that wrote `read` sums the squares of its tiles as it goes, if it was a product: into a place for each
    /// task, which are added up here.
    fn squares_by_product(&mut self, read: usize, result: usize, label: &str) -> bool {
        let read = self.storages.root(read);
        let storages = &self.storages;
        let writes = |step: &Step| {
            step.args.iter().zip(&step.writes).any(|(&s, &writes)| writes && storages.root(s) == read)
        };
        let Some(writer) = self.list.iter().rposition(writes) else { return false };
        let Call::Gemm(gemm) = self.list[writer].call else { return false };
        let tasks = gemm.phases()[0];
        if gemm.accumulate || tasks == 0 {
            return false;
        }
        let parts = if tasks == 1 { result } else { self.storages.temporary(&TensorType::f32(&[tasks])) };
        let step = &mut self.list[writer];
        step.call = Call::GemmSquares(gemm);
        step.args.push(parts);
        step.writes.push(true);
        step.cut = None;
        if tasks > 1 {
            let call = self.kernel(KernelSpec::finish(tasks, 1, false, DType::F32));
            self.push(call, &[parts], &[result], label, 0);
        }
        true
    }

    /// Results that may overwrite an input nobody reads later take its storage.
    fn reuse_dead_inputs(
        &mut self,
        n: NodeIndex,
        body: &Body,
        outputs: &mut [Output],
        reads: &[usize],
        results: &[usize],
    ) {
        for k in 0..outputs.len() {
            if outputs[k].in_place.is_some() || !self.storages.is_temporary(results[k]) {
                continue;
            }
            let free = (0..reads.len()).find(|&i| {
                self.storages.dies_at(reads[i], n)
                    && self.storages.is_temporary(reads[i])
                    && self.storages.bytes(reads[i]) == self.storages.bytes(results[k])
                    && reads.iter().filter(|&&s| s == reads[i]).count() == 1
                    && !outputs.iter().any(|o| o.in_place == Some(i))
                    && may_overwrite(body, outputs, outputs[k].item, i)
            });
            if let Some(i) = free {
                outputs[k].in_place = Some(i);
                self.storages.merge(results[k], reads[i]);
            }
        }
    }

    fn library(&mut self, n: NodeIndex, library: &Library, reads: &[usize], label: &str) {
        let attention = |c: &RelAttentionCall| RelAttention {
            batch: c.batch,
            seq: c.seq,
            heads: c.heads,
            d_head: c.d_head,
        };
        let head = |c: &HeadCall, gradients| {
            let head = Head { rows: c.rows, width: c.width, vocab: c.vocab, chunk: c.chunk, gradients };
            (Call::Head(head), head.workspace(), head.flops())
        };
        let (call, workspace, flops) = match library {
            Library::RelAttention(c) => {
                let dims = attention(c);
                (Call::RelAttentionForward(dims), dims.forward_workspace(), dims.forward_flops())
            }
            Library::RelAttentionGrad(c) => {
                let dims = attention(c);
                (Call::RelAttentionBackward(dims), dims.backward_workspace(), dims.backward_flops())
            }
            Library::HeadLoss(c) => head(c, false),
            Library::HeadLossGrad(c) => head(c, true),
        };
        let results = self.g.node(n).results.len() as u16;
        let mut writes: Vec<usize> =
            (0..results).map(|k| self.storages.of_value(Value { node: n, result: k })).collect();
        writes.push(self.storages.temporary(&TensorType::f32(&[workspace.max(1)])));
        self.push(call, reads, &writes, label, flops);
    }

    /// Outputs whose value lives elsewhere are copied when all else is done. A value that one of these copies
    /// overwrites (states that change places, an old value that is an output) is put aside first.
    fn copy_outputs(&mut self) {
        let mut copies = self.storages.copies();
        let overwritten: Vec<usize> = copies.iter().map(|&(_, to)| self.storages.root(to)).collect();
        for (from, _) in &mut copies {
            if overwritten.contains(&self.storages.root(*from)) {
                let aside = self.storages.temporary_like(*from);
                let bytes = self.storages.bytes(aside);
                self.push(Call::Copy { bytes }, &[*from], &[aside], "output", 0);
                *from = aside;
            }
        }
        for (from, to) in copies {
            let bytes = self.storages.bytes(to);
            self.push(Call::Copy { bytes }, &[from], &[to], "output", 0);
        }
    }

    /// No placement of these steps has a smaller arena.
    fn least_arena(&self) -> u64 {
        chains::plain_peak(&self.list, &self.storages)
    }

    fn finish(self) -> Lowered {
        let Steps { g, machine, mut storages, kernels, symbols, kernel_of, list, .. } = self;
        let (order, links) = match machine {
            Machine::Cpu => chains::form(&list, &storages),
            Machine::Cuda(_) => ((0..list.len()).collect(), Vec::new()),
        };
        let mut taken: Vec<Option<Step>> = list.into_iter().map(Some).collect();
        let list: Vec<Step> = order.iter().filter_map(|&n| taken[n].take()).collect();
        for (n, step) in list.iter().enumerate() {
            step.args.iter().for_each(|&s| storages.touch(s, n));
        }
        // Tasks of a chain are not in step: what one launch of it touches is alive for all of them.
        for link in &links {
            for &s in list[link.first..link.first + link.len].iter().flat_map(|step| &step.args) {
                storages.touch(s, link.first);
                storages.touch(s, link.first + link.len - 1);
            }
        }
        let (lifetimes, placed) = storages.lifetimes();
        let placement = memory::place(&lifetimes);
        let (buffers, buffer_of) = storages.buffers(&placed, &placement.offsets);
        let steps = list.into_iter().map(|step| {
            let args = step.args.iter().map(|&s| buffer_of[storages.root(s)]).collect();
            (step, args)
        });
        let (launches, chains) = launches::of(steps.collect(), &links, &buffers, &symbols);
        let declared = kernels
            .iter()
            .zip(symbols)
            .map(|(k, symbol)| GeneratedKernel {
                symbol,
                n_args: k.n_args() as u32,
                rows: k.rows as u64,
                rows_per_task: k.rows_per_task as u64,
                operations: k.operations(),
                cuda: k.grid.as_ref().map(|g| g.launch()),
            })
            .collect();
        let program = Program {
            name: g.name.clone(),
            buffers,
            arena_bytes: placement.bytes,
            arena_lower_bound: placement.lower_bound,
            kernels: declared,
            launches,
            chains,
        };
        let in_memory = |v: &Value| Some(buffer_of[storages.of_value(*v)]).filter(|&b| b != BufferId::MAX);
        let values = storages.values().filter_map(|v| Some(((g.node(v.node).id, v.result), in_memory(&v)?)));
        let buffers = values.collect();
        Lowered { program, kernels, buffers, kernel_of }
    }
}

/// Is this the sum of the squares of its only input?
fn is_sum_of_squares(body: &Body, outputs: &[Output]) -> bool {
    let direct = Source::Input { index: 0, access: Access::Direct };
    let [square, sum] = &body.items[..] else { return false };
    body.inputs.len() == 1
        && body.input_types[0].dtype == DType::F32
        && matches!(square.op, Op::Binary(Binary::Mul))
        && square.sources[..] == [direct, direct]
        && matches!(sum.op, Op::Reduce { kind: ReduceKind::Sum, .. })
        && body.reduction(sum) == Reduction::Total
        && matches!(outputs, [o] if o.item == 1)
}
