//! Storage of values: which values share bytes, which of them live outside the arena, and from when to when each lives.

use crate::graph::{Graph, Op, Role, TensorType, Value};
use crate::memory::Lifetime;
use isoflop_kernels::DType;
use isoflop_kernels::program::{ALIGN, Buffer, BufferId, Init, Space};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::FxHashMap;

/// Where a storage's bytes live.
#[derive(Clone, Debug, PartialEq)]
enum Home {
    Arena,
    /// A graph input or output of this name.
    Named {
        name: String,
        space: Space,
        init: Option<Init>,
    },
}

struct Storage {
    dtype: DType,
    shape: Vec<usize>,
    bytes: u64,
    home: Home,
    /// Storage this one shares, or itself.
    parent: usize,
    /// First and last step that touches it.
    steps: Option<(usize, usize)>,
    /// Position in the schedule of the last node that reads it.
    last_reader: usize,
    label: String,
}

impl super::chains::Sizes for Storages {
    fn root(&self, storage: usize) -> usize {
        Storages::root(self, storage)
    }

    fn bytes(&self, storage: usize) -> u64 {
        Storages::bytes(self, storage)
    }

    fn arena_bytes(&self, storage: usize) -> u64 {
        if self.is_temporary(storage) { self.bytes(storage).next_multiple_of(ALIGN) } else { 0 }
    }
}

pub struct Storages {
    list: Vec<Storage>,
    of: FxHashMap<Value, usize>,
    /// Position of each node in the schedule.
    position: FxHashMap<NodeIndex, usize>,
    copies: Vec<(usize, usize)>,
}

impl Storages {
    /// One storage for every value; a reshape shares its operand's.
    pub fn of(g: &Graph, order: &[NodeIndex]) -> Storages {
        let mut s = Storages {
            list: Vec::new(),
            of: FxHashMap::default(),
            position: order.iter().enumerate().map(|(i, &n)| (n, i)).collect(),
            copies: Vec::new(),
        };
        for &n in order {
            let node = g.node(n);
            if matches!(node.op, Op::Reshape) {
                let shared = s.of_value(g.operands(n)[0]);
                s.of.insert(n.into(), shared);
                continue;
            }
            for (k, ty) in node.results.iter().enumerate() {
                let home = match &node.op {
                    Op::Input { name, role } => {
                        let (space, init) = match *role {
                            Role::Data => (Space::Input, None),
                            Role::State(init) => (Space::State, Some(init)),
                            Role::Table(init) => (Space::Table, Some(init)),
                        };
                        Home::Named { name: name.clone(), space, init }
                    }
                    _ => Home::Arena,
                };
                let label = format!("t{}.{k}", node.id);
                let i = s.push(ty, home, label);
                s.of.insert(Value { node: n, result: k as u16 }, i);
            }
        }
        for (p, &n) in order.iter().enumerate() {
            if matches!(g.op(n), Op::Reshape) {
                continue;
            }
            for v in g.operands(n) {
                let i = s.of_value(v);
                s.list[i].last_reader = s.list[i].last_reader.max(p);
            }
        }
        s
    }

    fn push(&mut self, ty: &TensorType, home: Home, label: String) -> usize {
        let parent = self.list.len();
        self.list.push(Storage {
            dtype: ty.dtype,
            shape: ty.shape.to_vec(),
            bytes: ty.bytes(),
            home,
            parent,
            steps: None,
            last_reader: 0,
            label,
        });
        parent
    }

    pub fn root(&self, mut s: usize) -> usize {
        while self.list[s].parent != s {
            s = self.list[s].parent;
        }
        s
    }

    pub fn of_value(&self, v: Value) -> usize {
        self.root(self.of[&v])
    }

    /// Every value of the graph.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        self.of.keys().copied()
    }

    /// A buffer for one launch: workspace or partial results.
    pub fn temporary(&mut self, ty: &TensorType) -> usize {
        let label = format!("w{}", self.list.len());
        self.push(ty, Home::Arena, label)
    }

    /// A buffer of the type of `s`.
    pub fn temporary_like(&mut self, s: usize) -> usize {
        let like = &self.list[self.root(s)];
        self.temporary(&TensorType::new(like.dtype, &like.shape.clone()))
    }

    pub fn bytes(&self, s: usize) -> u64 {
        self.list[self.root(s)].bytes
    }

    pub fn is_temporary(&self, s: usize) -> bool {
        self.list[self.root(s)].home == Home::Arena
    }

    /// The last node that reads `s` is `n`.
    pub fn dies_at(&self, s: usize, n: NodeIndex) -> bool {
        self.list[self.root(s)].last_reader == self.position[&n]
    }

    /// `value` is written over the state `input`.
    pub fn alias_state(&mut self, value: Value, input: NodeIndex) {
        let (v, state) = (self.of_value(value), self.of_value(input.into()));
        self.merge(v, state);
    }

    /// `from` takes the bytes of `into`.
    pub fn merge(&mut self, from: usize, into: usize) {
        let (from, into) = (self.root(from), self.root(into));
        if from != into {
            self.list[from].parent = into;
            self.list[into].last_reader = self.list[into].last_reader.max(self.list[from].last_reader);
        }
    }

    /// Gives every graph output a named home: the value's own storage where nothing else claims it, else a copy.
    pub fn assign_outputs(&mut self, g: &Graph) {
        for o in &g.outputs {
            let s = self.of_value(o.value);
            if matches!(&self.list[s].home, Home::Named { name, .. } if *name == o.name) {
                continue;
            }
            match g.input(&o.name) {
                Some(state) => {
                    let to = self.of_value(state);
                    self.copies.push((s, to));
                }
                None if self.list[s].home == Home::Arena => {
                    self.list[s].home =
                        Home::Named { name: o.name.clone(), space: Space::Output, init: None };
                    // As the output is declared: a reshape may stand between.
                    self.list[s].shape = g.ty(o.value).shape.to_vec();
                }
                None => {
                    let home = Home::Named { name: o.name.clone(), space: Space::Output, init: None };
                    let to = self.push(g.ty(o.value), home, o.name.clone());
                    self.copies.push((s, to));
                }
            }
        }
        for &(from, _) in &self.copies {
            self.list[from].last_reader = usize::MAX;
        }
    }

    pub fn copies(&self) -> Vec<(usize, usize)> {
        self.copies.clone()
    }

    /// Step `step` reads or writes `s`.
    pub fn touch(&mut self, s: usize, step: usize) {
        let r = self.root(s);
        let steps = &mut self.list[r].steps;
        *steps = Some(steps.map_or((step, step), |(first, last)| (first.min(step), last.max(step))));
    }

    /// Lifetimes of what lives in the arena, and the storage of each.
    pub fn lifetimes(&self) -> (Vec<Lifetime>, Vec<usize>) {
        let mut span: FxHashMap<usize, (usize, usize)> = FxHashMap::default();
        for i in 0..self.list.len() {
            if let Some((first, last)) = self.list[i].steps {
                let e = span.entry(self.root(i)).or_insert((first, last));
                *e = (e.0.min(first), e.1.max(last));
            }
        }
        let mut lifetimes = Vec::new();
        let mut placed = Vec::new();
        for i in 0..self.list.len() {
            if self.root(i) == i
                && self.list[i].home == Home::Arena
                && let Some(&(first, last)) = span.get(&i)
            {
                lifetimes.push(Lifetime { bytes: self.list[i].bytes, first, last });
                placed.push(i);
            }
        }
        (lifetimes, placed)
    }

    /// The program's buffers, and the buffer of each storage that is a root.
    pub fn buffers(&self, placed: &[usize], offsets: &[u64]) -> (Vec<Buffer>, Vec<BufferId>) {
        let mut buffers = Vec::new();
        let mut of = vec![BufferId::MAX; self.list.len()];
        let offset: FxHashMap<usize, u64> = placed.iter().copied().zip(offsets.iter().copied()).collect();
        for (i, s) in self.list.iter().enumerate() {
            if self.root(i) != i {
                continue;
            }
            let (name, space, init) = match &s.home {
                Home::Named { name, space, init } => (name.clone(), *space, *init),
                Home::Arena if offset.contains_key(&i) => (s.label.clone(), Space::Arena, None),
                Home::Arena => continue,
            };
            of[i] = buffers.len() as BufferId;
            let offset = offset.get(&i).copied().unwrap_or(0);
            buffers.push(Buffer { name, dtype: s.dtype, shape: s.shape.clone(), space, offset, init });
        }
        (buffers, of)
    }
}
