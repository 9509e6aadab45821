//! Makes a failing case smaller as long as it fails: fewer outputs, nodes cut off or skipped, fewer passes, smaller
//! extents. What is left is printed as a filetest.

use crate::case::{Case, PERIOD, Tensors, Variant, inputs};
use isoflop_compiler::graph::{Graph, NodeIndex, Op, Role, Value};
use isoflop_compiler::interp::Tensor;
use isoflop_compiler::text::{parse, print};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Smaller cases, made one after another as they are asked for, those that leave out most first.
type Smaller<'a> = Box<dyn Iterator<Item = Case> + 'a>;

/// The smallest case found for which `fails` holds, which must hold for `case` with this variant alone.
pub fn shrink(case: &Case, variant: usize, fails: &dyn Fn(&Case) -> bool) -> Case {
    let mut best = Case { variants: vec![case.variants[variant].clone()], ..case.clone() };
    let ways: [fn(&Case) -> Smaller<'_>; 6] =
        [fewer_outputs, earlier_outputs, cut, skipped, fewer_passes, smaller_extents];
    loop {
        let mut moved = false;
        for way in ways {
            loop {
                let Some(smaller) = way(&best).find(|c| fails(c)) else { break };
                best = smaller;
                moved = true;
            }
        }
        if !moved {
            return best;
        }
    }
}

/// The case with this graph, as it is read back from its text. None where that is no graph, or the same one.
fn with_graph(case: &Case, mut g: Graph) -> Option<Case> {
    g.remove_dead();
    let unused = |g: &Graph, v: Value| {
        g.consumers(v.node).is_empty()
            && g.outputs.iter().all(|o| o.value != v && Some(v) != g.input(&o.name))
    };
    for n in g.inputs.clone() {
        if unused(&g, n.into()) {
            g.remove(n);
        }
    }
    with_text(case, &print(&g))
}

fn with_text(case: &Case, text: &str) -> Option<Case> {
    let graph = parse(text, "smaller").ok().filter(|g| !g.outputs.is_empty())?;
    let given = refitted(&graph, &case.given);
    (text != print(&case.graph)).then(|| Case { graph, given, variants: case.variants.clone() })
}

/// The numbers that inputs had, cut or repeated to their shapes; others for new ones.
fn refitted(g: &Graph, old: &Tensors) -> Tensors {
    let mut given = inputs(g, &mut ChaCha8Rng::seed_from_u64(0));
    for (name, new) in &mut given {
        if let Some(t) = old.get(name).filter(|t| t.dtype == new.dtype && !t.data.is_empty()) {
            let ty = new.ty();
            let numbers = t.data.iter().take(PERIOD).cycle().take(ty.elements());
            *new = Tensor::new(&ty, numbers.copied().collect());
        }
    }
    given
}

/// One output alone, or all but one.
fn fewer_outputs(case: &Case) -> Smaller<'_> {
    let keeping = |keep: &dyn Fn(usize) -> bool| {
        let mut g = case.graph.clone();
        let mut place = 0..;
        g.outputs.retain(|_| place.next().is_some_and(keep));
        with_graph(case, g)
    };
    let places = 0..case.graph.outputs.len();
    let alone = places.clone().filter_map(move |k| keeping(&|j| j == k));
    Box::new(alone.chain(places.filter_map(move |k| keeping(&|j| j != k))))
}

/// An operand of what an output gives in its place, but for the next values of states.
fn earlier_outputs(case: &Case) -> Smaller<'_> {
    let g = &case.graph;
    let free = g.outputs.iter().enumerate().filter(|(_, o)| g.input(&o.name).is_none());
    let earlier = free.flat_map(|(k, o)| g.operands(o.value.node).into_iter().map(move |v| (k, v)));
    let floats = earlier.filter(|&(_, v)| g.ty(v).dtype.is_float());
    Box::new(floats.filter_map(|(k, v)| {
        let mut g = case.graph.clone();
        g.outputs[k].value = v;
        with_graph(case, g)
    }))
}

fn from_the_outputs(g: &Graph) -> impl Iterator<Item = NodeIndex> {
    g.topological().into_iter().rev()
}

/// An input in the place of a node, those near the outputs first.
fn cut(case: &Case) -> Smaller<'_> {
    let g = &case.graph;
    let inner = from_the_outputs(g).filter(|&n| {
        let free = matches!(g.op(n), Op::Input { .. } | Op::Constant { .. });
        !free && g.ty(n.into()).dtype.is_float()
    });
    Box::new(inner.filter_map(|n| {
        let mut g = case.graph.clone();
        let name = format!("{}.c{}", g.name, g.node(n).id);
        let ty = g.ty(n.into()).clone();
        let input = g.new_input(&name, ty, Role::Data);
        g.replace(n.into(), input);
        with_graph(case, g)
    }))
}

/// An operand in the place of a node of the same type.
fn skipped(case: &Case) -> Smaller<'_> {
    let pairs = from_the_outputs(&case.graph)
        .flat_map(|n| case.graph.operands(n).into_iter().map(move |v| (n, v)))
        .filter(|&(n, v)| case.graph.ty(v) == case.graph.ty(n.into()));
    Box::new(pairs.filter_map(|(n, v)| {
        let mut g = case.graph.clone();
        g.replace(n.into(), v);
        with_graph(case, g)
    }))
}

/// Without each pass that can be left out, and without the seed of the merges.
fn fewer_passes(case: &Case) -> Smaller<'_> {
    let Some(how) = case.variants.first() else { return Box::new(std::iter::empty()) };
    let needed = ["legalize", "fuse", "outline"];
    let places = (0..how.passes.len()).filter(move |&k| !needed.contains(&how.passes[k].as_str()));
    let shorter = places.map(|place| {
        let mut passes = how.passes.clone();
        passes.remove(place);
        Variant { passes, ..how.clone() }
    });
    let unshuffled = how.shuffle.map(|_| Variant { shuffle: None, ..how.clone() });
    Box::new(shorter.chain(unshuffled).map(|v| Case { variants: vec![v], ..case.clone() }))
}

/// Every axis of one extent made shorter, with those of a multiple of it or alone, wherever the text is still a graph.
fn smaller_extents(case: &Case) -> Smaller<'_> {
    let text = print(&case.graph);
    let types = case.graph.nodes().node_weights().flat_map(|n| &n.results);
    let extents: BTreeSet<usize> = types.flat_map(|t| t.shape.iter().copied()).collect();
    let shorter = extents.into_iter().rev().filter(|&n| n > 1).flat_map(|from| {
        let to: BTreeSet<usize> = [1, 2, from / 4, from / 2, from - 1].into();
        to.into_iter().filter(move |&to| to > 0 && to < from).map(move |to| (from, to))
    });
    Box::new(shorter.flat_map(move |(from, to)| {
        let multiples = |n: usize| if n.is_multiple_of(from) { n / from * to } else { n };
        let alone = |n: usize| if n == from { to } else { n };
        [resized(&text, &multiples), resized(&text, &alone)].into_iter().filter_map(|t| with_text(case, &t))
    }))
}

/// A graph's text with other extents in types and in the limits of slices.
fn resized(text: &str, extent: &dyn Fn(usize) -> usize) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (before, list) = rest.split_at(open + 1);
        out.push_str(before);
        let close = list.find(']').unwrap_or(list.len());
        let is_type =
            ["f32[", "i32[", "f64[", "bf16[", "bool[", "limits=["].iter().any(|t| before.ends_with(t));
        let number = |n: &str| match n.trim().parse() {
            Ok(n) if is_type => extent(n).to_string(),
            _ => n.to_owned(),
        };
        out += &list[..close].split(',').map(number).collect::<Vec<_>>().join(",");
        rest = &list[close..];
    }
    out + rest
}
