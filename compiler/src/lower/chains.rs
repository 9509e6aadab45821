//! Chains: launches that the same tasks run one after another, each on its part of the rows.
//!
//! A product, the activation after it, the next product, the residual and the norm after that are cut into the same
//! blocks of rows. What one writes the next reads while it is still in the nearest caches, and no barrier stands
//! between them: the epilogues of a CPU. A launch joins a chain when it reads, of all that the chain writes, only
//! the rows that its own task has written.

use super::step::{Step, Touch};
use isoflop_kernels::program::Call;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Rows of a task: enough that packing the other operand of a product is a few per cent of it.
const ROWS_PER_TASK: usize = 128;
/// Elements of the widest operand that one task takes, at least.
const TASK_ELEMENTS: usize = 16 * 1024;
/// Bytes that a task hands from one launch to the next, at most: they should stay in a second-level cache.
const HANDED_BYTES: u64 = 768 << 10;
/// Elements of the other operand of a product, at most: it is read again for every block of rows.
const SHARED_ELEMENTS: usize = 1 << 18;
/// How far behind the first launch of a chain another may stand in the schedule. Values wait longer the farther it
/// looks.
const WINDOW: usize = 32;

/// Consecutive launches of the new order that are cut together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub first: usize,
    pub len: usize,
    pub rows: usize,
    pub rows_per_task: usize,
}

/// What forming chains must know of storages: which one an argument really is, its size, and what it takes of the arena.
pub trait Sizes {
    fn root(&self, storage: usize) -> usize;
    fn bytes(&self, storage: usize) -> u64;
    fn arena_bytes(&self, storage: usize) -> u64;
}

/// A new order of the steps in which the members of every chain stand together, and the chains. The peak of the arena
/// is not higher than without them: chains that would raise it are given up, the one at the peak first.
pub fn form(steps: &[Step], sizes: &impl Sizes) -> (Vec<usize>, Vec<Link>) {
    let dependencies = dependencies(steps, sizes);
    let mut barred = vec![false; steps.len()];
    let plain: Vec<usize> = (0..steps.len()).collect();
    let (limit, _) = peak(&plain, &[], steps, sizes);
    loop {
        let (order, links) = attempt(steps, &dependencies, sizes, &barred);
        let (bytes, at) = peak(&order, &links, steps, sizes);
        if links.is_empty() || bytes <= limit {
            return (order, links);
        }
        // The chain at the peak, or the last before it: what it put off is alive there.
        let before = links.iter().rev().find(|l| l.first <= at);
        let Some(link) = before.or(links.first()) else { return (plain, Vec::new()) };
        order[link.first..link.first + link.len].iter().for_each(|&n| barred[n] = true);
    }
}

fn attempt(
    steps: &[Step],
    (before, after): &(Vec<Vec<usize>>, Vec<Vec<usize>>),
    sizes: &impl Sizes,
    barred: &[bool],
) -> (Vec<usize>, Vec<Link>) {
    let mut waiting: Vec<usize> = before.iter().map(|b| b.len()).collect();
    let mut done = vec![false; steps.len()];
    let mut order = Vec::with_capacity(steps.len());
    let mut links = Vec::new();
    let mut cursor = 0;
    while cursor < steps.len() {
        if done[cursor] {
            cursor += 1;
            continue;
        }
        // All that it needs stands before it and is done.
        let mut chain = Growing { steps, sizes, members: vec![cursor], rows: 0, rows_per_task: 0 };
        let mut take = |n: usize, done: &mut [bool]| {
            done[n] = true;
            order.push(n);
            after[n].iter().for_each(|&m| waiting[m] -= 1);
            after[n].iter().copied().filter(|&m| waiting[m] == 0).collect::<Vec<usize>>()
        };
        let mut ready: BTreeSet<usize> = take(cursor, &mut done).into_iter().collect();
        while let Some(next) = ready.pop_first() {
            let near = next <= cursor + WINDOW && !barred[cursor] && !barred[next];
            if near && chain.join(next) {
                ready.extend(take(next, &mut done));
            }
        }
        if chain.members.len() > 1 {
            let len = chain.members.len();
            links.push(Link {
                first: order.len() - len,
                len,
                rows: chain.rows,
                rows_per_task: chain.rows_per_task,
            });
        }
    }
    (order, links)
}

/// The most bytes of the arena alive at once where the steps run in this order, one by one.
pub fn plain_peak(steps: &[Step], sizes: &impl Sizes) -> u64 {
    let order: Vec<usize> = (0..steps.len()).collect();
    peak(&order, &[], steps, sizes).0
}

/// The most bytes of the arena alive at once, and the first position in the order where they are.
fn peak(order: &[usize], links: &[Link], steps: &[Step], sizes: &impl Sizes) -> (u64, usize) {
    let mut span: FxHashMap<usize, (usize, usize)> = FxHashMap::default();
    let mut links = links.iter().peekable();
    let mut current: Option<&Link> = None;
    for (position, &n) in order.iter().enumerate() {
        current = links.next_if(|l| l.first == position).or(current);
        // All that a chain touches is alive as long as it runs.
        let (from, to) = match current.filter(|l| position < l.first + l.len) {
            Some(link) => (link.first, link.first + link.len - 1),
            None => (position, position),
        };
        for &s in &steps[n].args {
            let e = span.entry(sizes.root(s)).or_insert((from, to));
            *e = (e.0.min(from), e.1.max(to));
        }
    }
    let mut changes = vec![0i128; order.len() + 1];
    for (s, (from, to)) in span {
        let bytes = i128::from(sizes.arena_bytes(s));
        changes[from] += bytes;
        changes[to + 1] -= bytes;
    }
    let (mut alive, mut most, mut at) = (0i128, 0, 0);
    for (position, change) in changes.into_iter().enumerate() {
        alive += change;
        if alive > most {
            (most, at) = (alive, position);
        }
    }
    (most as u64, at)
}

/// Steps that each must follow, and steps that must follow it.
fn dependencies(steps: &[Step], sizes: &impl Sizes) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
    let storages = steps.iter().flat_map(|s| &s.args).map(|&s| sizes.root(s) + 1).max().unwrap_or(0);
    let mut writer: Vec<Option<usize>> = vec![None; storages];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); storages];
    let mut before: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (n, step) in steps.iter().enumerate() {
        let mut needs: Vec<usize> = Vec::new();
        for (&s, &writes) in step.args.iter().zip(&step.writes) {
            let s = sizes.root(s);
            needs.extend(writer[s]);
            if writes {
                needs.append(&mut readers[s]);
                writer[s] = Some(n);
            } else {
                readers[s].push(n);
            }
        }
        needs.sort_unstable();
        needs.dedup();
        needs.retain(|&m| m != n);
        needs.iter().for_each(|&m| after[m].push(n));
        before.push(needs);
    }
    (before, after)
}

/// A chain while it grows.
struct Growing<'a, S> {
    steps: &'a [Step],
    sizes: &'a S,
    members: Vec<usize>,
    rows: usize,
    rows_per_task: usize,
}

impl<S: Sizes> Growing<'_, S> {
    /// Takes `next` in if all members can still be cut together.
    fn join(&mut self, next: usize) -> bool {
        self.members.push(next);
        let fits = self.cut();
        match fits {
            Some((rows, rows_per_task)) => (self.rows, self.rows_per_task) = (rows, rows_per_task),
            None => _ = self.members.pop(),
        }
        fits.is_some()
    }

    /// Rows of the chain and of its tasks, if there is a cut that serves all members.
    fn cut(&self) -> Option<(usize, usize)> {
        let cuts: Option<Vec<_>> = self.members.iter().map(|&m| self.steps[m].cut.as_ref()).collect();
        let cuts = cuts?;
        let rows = cuts.iter().map(|c| c.rows).min()?;
        let widest = self.members.iter().map(|&m| self.widest(m, rows)).max()?;
        let rows_per_task = if rows < 2 * ROWS_PER_TASK {
            rows.div_ceil(2)
        } else {
            let unit = cuts.iter().map(|c| c.unit * rows / c.rows).max().unwrap_or(1);
            TASK_ELEMENTS.div_ceil(widest).max(unit).next_multiple_of(ROWS_PER_TASK)
        };
        let divides = cuts
            .iter()
            .all(|c| c.rows.is_multiple_of(rows) && (c.rows / rows * rows_per_task).is_multiple_of(c.unit));
        let products = self.members.iter().all(|&m| match &self.steps[m].call {
            Call::Gemm(g) => g.n * g.k <= SHARED_ELEMENTS,
            _ => true,
        });
        (rows > 1 && divides && products && self.hands_over_rows(rows, rows_per_task))
            .then_some((rows, rows_per_task))
    }

    /// Elements of a member's widest argument for each of `rows` rows.
    fn widest(&self, member: usize, rows: usize) -> usize {
        let step = &self.steps[member];
        let Some(cut) = &step.cut else { return 1 };
        let shares = step.args.iter().zip(&cut.touches).filter(|(_, t)| **t == Touch::Share);
        shares.map(|(&s, _)| self.sizes.bytes(s) as usize / 4 / rows).max().unwrap_or(1).max(1)
    }

    /// Does the last member read something that the others write, and of that only the rows of its own task, and does
    /// it write nothing that another's task may still read?
    fn hands_over_rows(&self, rows: usize, rows_per_task: usize) -> bool {
        let Some((&last, others)) = self.members.split_last() else { return false };
        let mut handed = 0;
        for (s, touch, writes) in self.touches(last) {
            let mut written = false;
            for (_, other_touch, other_writes) in
                others.iter().flat_map(|&m| self.touches(m)).filter(|&(other, _, _)| other == s)
            {
                written |= other_writes;
                let share = touch == Touch::Share && other_touch == Touch::Share;
                if (writes || other_writes) && !share {
                    return false;
                }
            }
            if written {
                handed += self.sizes.bytes(s) / rows as u64 * rows_per_task as u64;
            }
        }
        (1..=HANDED_BYTES).contains(&handed)
    }

    /// Storage, part of it that a task touches, and whether it is written, for every argument of a member.
    fn touches(&self, member: usize) -> impl Iterator<Item = (usize, Touch, bool)> {
        let step = &self.steps[member];
        let touches = step.cut.iter().flat_map(|c| &c.touches);
        step.args.iter().zip(touches).zip(&step.writes).map(|((&s, &t), &w)| (self.sizes.root(s), t, w))
    }
}
