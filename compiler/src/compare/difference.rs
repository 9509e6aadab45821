//! The difference of two dumps, kernel by kernel and program by program.

use super::dump::{Code, Dump, Kernel, ProgramDump};
use super::matching::{masked, pairs};
use super::rename::named_as;
use rustc_hash::FxHashMap;
use serde::Serialize;
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};

/// What happened to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It computes something else, or the same in another way.
    Changed,
    Added,
    Removed,
    /// The same kernel has other machine code.
    Code,
    /// The same kernel runs more or less often, or on more or fewer bytes.
    Used,
}

/// A kernel on one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    pub id: String,
    pub kind: String,
    /// Labels in all programs that are compared.
    pub labels: Vec<String>,
    pub code: Option<Code>,
}

/// How a program uses a kernel or a call on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uses {
    pub program: String,
    /// How often it runs, before and after.
    pub times: [u64; 2],
    /// Bytes read and written, before and after.
    pub bytes: [u64; 2],
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelChange {
    pub change: Change,
    pub before: Option<Side>,
    pub after: Option<Side>,
    /// The programs that run it; where only the uses differ, those of them in which they do.
    pub programs: Vec<Uses>,
    /// Unified difference of what it computes; empty where that is the same. What `after` has of `before` is called as
    /// there.
    pub body: String,
    /// Unified difference of its MLIR.
    pub mlir: String,
}

/// A library call that a program makes more or less often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallChange {
    pub call: String,
    pub labels: Vec<String>,
    pub programs: Vec<Uses>,
}

/// The totals of a program that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramChange {
    pub program: String,
    /// Name, before and after. With machine code also `instructions` and `code_bytes` of the kernels that it runs.
    pub totals: Vec<(&'static str, [u64; 2])>,
}

/// Everything in which two dumps differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Options that the dumps were made with and that differ: name, before and after.
    pub options: Vec<(&'static str, [String; 2])>,
    /// Programs that only one dump has; their kernels are not compared.
    pub only_before: Vec<String>,
    pub only_after: Vec<String>,
    /// Programs of both.
    pub programs_compared: usize,
    pub kernels_same: usize,
    pub programs: Vec<ProgramChange>,
    pub kernels: Vec<KernelChange>,
    pub calls: Vec<CallChange>,
}

impl Difference {
    /// Is the code that both generate for every program the same?
    pub fn is_equal(&self) -> bool {
        self.only_before.is_empty()
            && self.only_after.is_empty()
            && self.programs.is_empty()
            && self.kernels.is_empty()
            && self.calls.is_empty()
    }

    /// Kernels that changed in the same way but for numbers, as those of other widths do, in groups.
    pub fn groups(&self) -> Vec<Vec<&KernelChange>> {
        grouped(&self.kernels, |k| {
            let ids =
                || [&k.before, &k.after].map(|s| s.as_ref().map(|s| s.kind.clone()).unwrap_or_default());
            let lines = |diff: &str| -> Vec<String> {
                diff.lines().filter(|l| !l.starts_with([' ', '@'])).map(masked).collect()
            };
            let mlir = if k.body.is_empty() { lines(&k.mlir) } else { Vec::new() };
            // Kernels of which only the uses differ are told apart by where they stand.
            let labels = match k.change {
                Change::Code | Change::Used => k.after.as_ref().map(|s| s.labels.clone()).unwrap_or_default(),
                _ => Vec::new(),
            };
            (k.change, ids(), lines(&k.body), mlir, labels)
        })
    }

    /// Calls that are alike but for numbers, at one label.
    pub fn call_groups(&self) -> Vec<Vec<&CallChange>> {
        let less = |c: &CallChange| c.programs.iter().all(|u| u.times[1] <= u.times[0]);
        grouped(&self.calls, |c| (masked(&c.call), c.labels.clone(), less(c)))
    }
}

/// Groups in the order of their first members.
fn grouped<T, K: Ord>(all: &[T], key: impl Fn(&T) -> K) -> Vec<Vec<&T>> {
    let mut places: BTreeMap<K, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for item in all {
        let place = *places.entry(key(item)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups
}

/// One dump, looked at by program.
struct Sided<'d> {
    dump: &'d Dump,
    programs: BTreeMap<String, &'d ProgramDump>,
    /// Kernels of the programs that both dumps have, by id.
    kernels: FxHashMap<&'d str, &'d Kernel>,
}

impl<'d> Sided<'d> {
    fn of(dump: &'d Dump, both: &BTreeSet<String>) -> Sided<'d> {
        let programs: BTreeMap<String, &ProgramDump> =
            dump.programs.iter().map(|p| (p.name(), p)).filter(|(name, _)| both.contains(name)).collect();
        let used: BTreeSet<&str> =
            programs.values().flat_map(|p| &p.kernels).map(|u| u.kernel.as_str()).collect();
        let kernels = dump.kernels.iter().filter(|k| used.contains(k.id.as_str()));
        Sided { dump, programs, kernels: kernels.map(|k| (k.id.as_str(), k)).collect() }
    }

    /// In the order of the dump, those that `other` has not.
    fn alone(&self, other: &Sided) -> Vec<&'d Kernel> {
        let mine = self.dump.kernels.iter().filter(|k| self.kernels.contains_key(k.id.as_str()));
        mine.filter(|k| !other.kernels.contains_key(k.id.as_str())).collect()
    }

    fn side(&self, kernel: &Kernel) -> Side {
        let mut labels: Vec<String> = Vec::new();
        let uses = self.programs.values().flat_map(|p| &p.kernels).filter(|u| u.kernel == kernel.id);
        for label in uses.flat_map(|u| &u.labels) {
            if !labels.contains(label) {
                labels.push(label.clone());
            }
        }
        Side { id: kernel.id.clone(), kind: kernel.kind.clone(), labels, code: kernel.code }
    }

    /// How often a program runs a kernel, and on how many bytes.
    fn uses(&self, program: &str, kernel: Option<&Kernel>) -> (u64, u64) {
        let program = self.programs.get(program).zip(kernel);
        let used = program.and_then(|(p, k)| p.kernels.iter().find(|u| u.kernel == k.id));
        used.map_or((0, 0), |u| (u.times, u.bytes_read + u.bytes_written))
    }

    /// Totals of a program, and of the machine code of its kernels where that is known.
    fn totals(&self, program: &ProgramDump) -> Vec<(&'static str, u64)> {
        let mut totals = program.totals.columns().to_vec();
        let code: Option<Vec<Code>> = program
            .kernels
            .iter()
            .map(|u| self.kernels.get(u.kernel.as_str()).and_then(|k| k.code))
            .collect();
        if let Some(code) = code {
            totals.push(("instructions", code.iter().map(|c| c.instructions).sum()));
            totals.push(("code_bytes", code.iter().map(|c| c.bytes).sum()));
        }
        totals
    }
}

/// What changed from `before` to `after`. Programs are told by model, batch and name; kernels by their texts, then by
/// where they stand.
pub fn difference(before: &Dump, after: &Dump) -> Difference {
    let names = |d: &Dump| -> Vec<String> { d.programs.iter().map(ProgramDump::name).collect() };
    let (names_a, names_b) = (names(before), names(after));
    let both: BTreeSet<String> = names_a.iter().filter(|n| names_b.contains(n)).cloned().collect();
    let (a, b) = (Sided::of(before, &both), Sided::of(after, &both));
    let only = |names: &[String]| names.iter().filter(|n| !both.contains(*n)).cloned().collect();
    let order: Vec<&String> = names_a.iter().filter(|n| both.contains(*n)).collect();
    let (alone_a, alone_b) = (a.alone(&b), b.alone(&a));
    let mut kernels = changed(&a, &b, &alone_a, &alone_b, &both, &order);
    let same: Vec<&Kernel> = before
        .kernels
        .iter()
        .filter(|k| a.kernels.contains_key(&*k.id) && b.kernels.contains_key(&*k.id))
        .collect();
    let mut kernels_same = same.len();
    for kernel in same {
        let found = used_otherwise(&a, &b, kernel, &order);
        kernels_same -= usize::from(found.as_ref().is_some_and(|k| k.change == Change::Code));
        kernels.extend(found);
    }
    kernels.sort_by_key(|k| k.change);
    Difference {
        options: options(before, after),
        only_before: only(&names_a),
        only_after: only(&names_b),
        programs_compared: both.len(),
        kernels_same,
        programs: order.iter().filter_map(|name| program(&a, &b, name)).collect(),
        kernels,
        calls: calls(&a, &b, &order),
    }
}

fn options(before: &Dump, after: &Dump) -> Vec<(&'static str, [String; 2])> {
    let values = |d: &Dump| {
        let m = &d.made_with;
        let target = m.target.clone().unwrap_or_else(|| "none".to_owned());
        let disabled = if m.disabled_passes.is_empty() { "none".into() } else { m.disabled_passes.join(",") };
        [("device", m.device.clone()), ("disabled passes", disabled), ("machine code for", target)]
    };
    let pairs = values(before).into_iter().zip(values(after));
    pairs.filter(|(a, b)| a != b).map(|((name, a), (_, b))| (name, [a, b])).collect()
}

fn uses(a: &Sided, b: &Sided, x: Option<&Kernel>, y: Option<&Kernel>, order: &[&String]) -> Vec<Uses> {
    let uses = order.iter().map(|name| {
        let ((times_a, bytes_a), (times_b, bytes_b)) = (a.uses(name, x), b.uses(name, y));
        Uses { program: (*name).clone(), times: [times_a, times_b], bytes: [bytes_a, bytes_b] }
    });
    uses.filter(|u| u.times != [0, 0]).collect()
}

/// Kernels that only one side has: changed, removed and added.
fn changed(
    a: &Sided,
    b: &Sided,
    alone_a: &[&Kernel],
    alone_b: &[&Kernel],
    both: &BTreeSet<String>,
    order: &[&String],
) -> Vec<KernelChange> {
    let pairs = pairs((a.dump, alone_a), (b.dump, alone_b), both);
    let change = |change, x: Option<&Kernel>, y: Option<&Kernel>| {
        let diff = |of: fn(&Kernel) -> &[String]| {
            let (old, new) = (x.map(of).unwrap_or_default(), y.map(of).unwrap_or_default());
            let whole = |lines: &[String]| lines.iter().flat_map(|l| [l.as_str(), "\n"]).collect::<String>();
            let renamed = named_as(old, new);
            // Where only names differ, those are what is shown.
            let new = if renamed == old { new } else { &renamed };
            TextDiff::from_lines(whole(old), whole(new)).unified_diff().to_string()
        };
        KernelChange {
            change,
            before: x.map(|k| a.side(k)),
            after: y.map(|k| b.side(k)),
            programs: uses(a, b, x, y, order),
            body: diff(|k| &k.body),
            mlir: diff(|k| &k.mlir),
        }
    };
    let (pairs_of_a, pairs_of_b): (BTreeSet<usize>, BTreeSet<usize>) = pairs.iter().copied().unzip();
    let alone = |all: &[&Kernel], paired: &BTreeSet<usize>| -> Vec<usize> {
        (0..all.len()).filter(|i| !paired.contains(i)).collect()
    };
    let mut out: Vec<KernelChange> =
        pairs.iter().map(|&(x, y)| change(Change::Changed, Some(alone_a[x]), Some(alone_b[y]))).collect();
    let removed = alone(alone_a, &pairs_of_a).into_iter();
    out.extend(removed.map(|x| change(Change::Removed, Some(alone_a[x]), None)));
    let added = alone(alone_b, &pairs_of_b).into_iter();
    out.extend(added.map(|y| change(Change::Added, None, Some(alone_b[y]))));
    out
}

/// A kernel of both sides, if its machine code or its uses differ.
fn used_otherwise(a: &Sided, b: &Sided, kernel: &Kernel, order: &[&String]) -> Option<KernelChange> {
    let other = *b.kernels.get(kernel.id.as_str())?;
    let code = kernel.code.is_some() && other.code.is_some() && kernel.code != other.code;
    let mut programs = uses(a, b, Some(kernel), Some(other), order);
    if !code {
        programs.retain(|u| u.times[0] != u.times[1] || u.bytes[0] != u.bytes[1]);
    }
    let change = if code { Change::Code } else { Change::Used };
    let (before, after) = (Some(a.side(kernel)), Some(b.side(other)));
    let (body, mlir) = (String::new(), String::new());
    (!programs.is_empty()).then_some(KernelChange { change, before, after, programs, body, mlir })
}

/// The totals of a program, if anything about it differs.
fn program(a: &Sided, b: &Sided, name: &str) -> Option<ProgramChange> {
    let (x, y) = (a.programs.get(name)?, b.programs.get(name)?);
    let after: BTreeMap<&str, u64> = b.totals(y).into_iter().collect();
    let both = a.totals(x).into_iter().filter_map(|(n, v)| Some((n, [v, *after.get(n)?])));
    let totals: Vec<(&'static str, [u64; 2])> = both.collect();
    let differs = x.kernels != y.kernels || x.calls != y.calls || totals.iter().any(|(_, [v, w])| v != w);
    differs.then(|| ProgramChange { program: name.to_owned(), totals })
}

fn calls(a: &Sided, b: &Sided, order: &[&String]) -> Vec<CallChange> {
    let mut out: Vec<CallChange> = Vec::new();
    for name in order {
        let (Some(x), Some(y)) = (a.programs.get(*name), b.programs.get(*name)) else { continue };
        for call in x.calls.iter().chain(&y.calls) {
            let find = |p: &ProgramDump| {
                p.calls.iter().find(|c| c.call == call.call).map_or((0, 0), |c| (c.times, c.bytes))
            };
            let ((times_a, bytes_a), (times_b, bytes_b)) = (find(x), find(y));
            let uses =
                Uses { program: (*name).clone(), times: [times_a, times_b], bytes: [bytes_a, bytes_b] };
            if uses.times[0] == uses.times[1] {
                continue;
            }
            match out.iter_mut().find(|c| c.call == call.call) {
                Some(known) if known.programs.contains(&uses) => {}
                Some(known) => known.programs.push(uses),
                None => {
                    let (call, labels) = (call.call.clone(), call.labels.clone());
                    out.push(CallChange { call, labels, programs: vec![uses] });
                }
            }
        }
    }
    out
}
