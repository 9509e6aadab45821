//! Storage, order and waves: what may share bytes, what must be copied, and which launches run side by side.

use super::kernel::{KernelSpec, Kind, Output, may_overwrite};
use super::schedule::{Policy, Update, schedule};
use super::storage::Storages;
use super::waves::Waves;
use super::{Lowered, lower};
use crate::driver::{OptimizeOptions, optimize};
use crate::fuse::body::{Body, is_item};
use crate::graph::{Binary, Graph, Role, TensorType, Unary, Value};
use crate::text::parse;
use isoflop_kernels::DType;
use isoflop_kernels::program::{Buffer, Call, Init, Launch, Program, Space};
use petgraph::stable_graph::NodeIndex;
use proptest::prelude::*;

/// A graph of one text for each part; outputs as `y: f32[4] = %2`.
fn graph(inputs: &str, body: &str, outputs: &str) -> Graph {
    let parts: Vec<[&str; 3]> = outputs
        .split("; ")
        .map(|o| {
            let (name, rest) = o.split_once(": ").expect("an output's type");
            let (ty, value) = rest.split_once(" = ").expect("an output's value");
            [name, ty, value]
        })
        .collect();
    let types: Vec<&str> = parts.iter().map(|p| p[1]).collect();
    let values: Vec<String> = parts.iter().map(|p| format!("{} = {}", p[0], p[2])).collect();
    let (types, values) = (types.join(", "), values.join(", "));
    let text = format!("graph @g({inputs}) -> ({types}) {{\n{body}\nreturn {values}\n}}");
    parse(&text, "test").unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn lowered(inputs: &str, body: &str, outputs: &str) -> Lowered {
    let mut g = graph(inputs, body, outputs);
    optimize(&mut g, &OptimizeOptions::default()).expect("a pipeline that runs");
    lower(&g).expect("a graph that lowers")
}

fn copies(program: &Program) -> Vec<[&str; 2]> {
    let name = |l: &Launch, k: usize| -> &str { &program.buffers[l.args[k] as usize].name };
    let is_copy = |l: &&Launch| matches!(l.call, Call::Copy { .. });
    program.launches.iter().filter(is_copy).map(|l| [name(l, 0), name(l, 1)]).collect()
}

/// For each item that is an output: the inputs it may overwrite, all by their ids in the text.
fn overwrites(inputs: &str, body: &str, outputs: &str) -> Vec<(u32, Vec<u32>)> {
    let g = graph(inputs, body, outputs);
    let items: Vec<NodeIndex> = g.topological().into_iter().filter(|&n| is_item(g.op(n))).collect();
    let body = Body::of(&g, &items).expect("one kernel");
    let list: Vec<Output> = g
        .outputs
        .iter()
        .map(|o| {
            let item = body.items.iter().position(|i| i.node == o.value.node).expect("an item");
            Output { item, ty: body.items[item].result.clone(), in_place: None }
        })
        .collect();
    let id = |n: NodeIndex| g.node(n).id;
    let of = |o: &Output| {
        let free = (0..body.inputs.len()).filter(|&i| may_overwrite(&body, &list, o.item, i));
        (id(body.items[o.item].node), free.map(|i| id(body.inputs[i].node)).collect())
    };
    list.iter().map(of).collect()
}

#[test]
fn an_elementwise_result_may_overwrite_what_is_read_at_its_place() {
    let found = overwrites("%x: f32[4,6], %y: f32[4,6]", "%2 = add %x, %y\n%3 = tanh %2", "a: f32[4,6] = %3");
    assert_eq!(found, [(3, vec![0, 1])]);
}

#[test]
fn another_type_is_never_overwritten() {
    let body = "%1 = cast %x : i32[4,6]\n%2 = constant {value=2.0} : i32[4,6]\n%3 = mul %1, %2";
    assert_eq!(overwrites("%x: f32[4,6]", body, "a: i32[4,6] = %3"), [(3, vec![])]);
}

#[test]
fn what_is_repeated_is_never_overwritten() {
    let body = "%2 = broadcast %r {dims=[0]} : f32[4,4]\n%3 = broadcast %r {dims=[1]} : f32[4,4]\n%4 = mul %2, %x\n\
                %5 = add %4, %3";
    assert_eq!(overwrites("%r: f32[4], %x: f32[4,4]", body, "a: f32[4,4] = %5"), [(5, vec![1])]);
}

#[test]
fn what_a_later_loop_reads_again_stays() {
    // The sum is known after a first loop over the row; x is read again by the loop that divides.
    let body = "%1 = exp %x\n%2 = reduce_sum %1 {axes=[1]}\n%3 = broadcast %2 {dims=[0]} : f32[4,6]\n%4 = div %x, %3";
    assert_eq!(
        overwrites("%x: f32[4,6]", body, "a: f32[4,6] = %1; b: f32[4,6] = %4"),
        [(1, vec![]), (4, vec![0])]
    );
    // A first-loop result that the second loop reads back does not need x again.
    let body = "%1 = exp %x\n%2 = reduce_sum %1 {axes=[1]}\n%3 = broadcast %2 {dims=[0]} : f32[4,6]\n%4 = div %1, %3";
    assert_eq!(
        overwrites("%x: f32[4,6]", body, "a: f32[4,6] = %1; b: f32[4,6] = %4"),
        [(1, vec![0]), (4, vec![0])]
    );
}

#[test]
fn reductions_over_rows_overwrite_nothing() {
    let body = "%2 = mul %x, %x\n%3 = reduce_sum %2 {axes=[0]}\n%4 = reduce_sum %2 {axes=[0,1]}";
    assert_eq!(
        overwrites("%x: f32[4,6], %c: f32[6]", body, "a: f32[6] = %3; b: f32[] = %4"),
        [(3, vec![]), (4, vec![])]
    );
}

#[test]
fn a_row_result_may_overwrite_a_row_operand() {
    let body = "%2 = reduce_sum %x {axes=[1]}\n%3 = add %2, %r";
    assert_eq!(overwrites("%x: f32[4,6], %r: f32[4]", body, "a: f32[4] = %3"), [(3, vec![1])]);
    // Not one that is also spread over the row.
    let body = "%2 = broadcast %r {dims=[0]} : f32[4,6]\n%3 = mul %x, %2\n%4 = reduce_sum %3 {axes=[1]}\n%5 = add %4, %r";
    assert_eq!(overwrites("%x: f32[4,6], %r: f32[4]", body, "a: f32[4] = %5"), [(5, vec![])]);
}

const STATE: &str = "%s: f32[4,3] {role=state, init=zeros}";

#[test]
fn a_state_is_updated_where_it_lives() {
    let l = lowered(STATE, "%1 = tanh %s", "s: f32[4,3] = %1");
    assert_eq!(copies(&l.program), [] as [[&str; 2]; 0]);
    assert_eq!((l.program.launches.len(), l.program.arena_bytes), (1, 0));
}

#[test]
fn readers_of_the_old_value_come_before_its_writer() {
    let inputs = format!("{STATE}, %w: f32[3,3]");
    let dot = "{lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}";
    // By ids alone the update would come first.
    let l = lowered(
        &inputs,
        &format!("%2 = tanh %s\n%3 = dot %s, %w {dot}"),
        "s: f32[4,3] = %2; y: f32[4,3] = %3",
    );
    assert!(matches!(l.program.launches[0].call, Call::Gemm(_)));
    assert_eq!(copies(&l.program), [] as [[&str; 2]; 0]);
}

#[test]
fn a_state_whose_old_value_is_needed_after_the_update_is_copied() {
    let inputs = format!("{STATE}, %w: f32[3,3]");
    let dot = "{lhs_batch=[], rhs_batch=[], lhs_contract=[1], rhs_contract=[0]}";
    // The product of the new value meets the old one.
    let body = format!("%2 = tanh %s\n%3 = dot %2, %w {dot}\n%4 = sub %3, %s");
    let l = lowered(&inputs, &body, "s: f32[4,3] = %2; y: f32[4,3] = %4");
    assert_eq!(copies(&l.program).iter().map(|c| c[1]).collect::<Vec<_>>(), ["s"]);
    // The old value is an output.
    let l = lowered(STATE, "%1 = tanh %s", "y: f32[4,3] = %s; s: f32[4,3] = %1");
    assert_eq!(copies(&l.program).iter().map(|c| c[1]).filter(|n| ["s", "y"].contains(n)).count(), 2);
}

#[test]
fn states_that_change_places_are_put_aside_first() {
    let l = lowered(
        &format!("{STATE}, %t: f32[4,3] {{role=state, init=zeros}}"),
        "",
        "s: f32[4,3] = %t; t: f32[4,3] = %s",
    );
    let found = copies(&l.program);
    assert_eq!(found.len(), 4);
    assert_eq!([found[0][0], found[1][0], found[2][1], found[3][1]], ["t", "s", "s", "t"]);
}

#[test]
fn an_update_that_would_close_a_cycle_is_given_back() {
    let mut g = Graph::new("g");
    let s = g.new_input("s", TensorType::f32(&[4]), Role::State(Init::Zeros));
    let new = g.unary(Unary::Tanh, s);
    let after = g.binary(Binary::Sub, new, s);
    g.output("s", new);
    g.output("y", after);
    let update = Update { input: s.node, writer: new.node };
    for policy in [Policy::Id, Policy::LeastMemory] {
        let (order, dropped) = schedule(&g, &[update], policy);
        assert_eq!((order.len(), dropped), (3, vec![update]));
    }
    // A reader that does not need the new value goes first.
    let mut g = Graph::new("g");
    let s = g.new_input("s", TensorType::f32(&[4]), Role::State(Init::Zeros));
    let new = g.unary(Unary::Tanh, s);
    let view = g.reshape(s, &[2, 2]);
    let other = g.unary(Unary::Neg, view);
    for policy in [Policy::Id, Policy::LeastMemory] {
        let (order, dropped) = schedule(&g, &[Update { input: s.node, writer: new.node }], policy);
        let at = |v: Value| order.iter().position(|&n| n == v.node);
        assert!(dropped.is_empty() && at(other) < at(new));
    }
}

#[test]
fn a_view_has_the_storage_of_what_it_shows() {
    let mut g = Graph::new("g");
    let x = g.new_input("x", TensorType::f32(&[4]), Role::Data);
    let y = g.unary(Unary::Tanh, x);
    let view = g.reshape(y, &[2, 2]);
    let z = g.unary(Unary::Neg, view);
    g.output("z", z);
    let order = g.topological();
    let mut s = Storages::of(&g, &order);
    assert_eq!(s.of_value(view), s.of_value(y));
    assert!(s.dies_at(s.of_value(y), z.node) && !s.dies_at(s.of_value(y), view.node));
    assert!(s.is_temporary(s.of_value(y)) && !s.is_temporary(s.of_value(x)));
    s.assign_outputs(&g);
    assert!(!s.is_temporary(s.of_value(z)) && s.copies().is_empty());
}

#[test]
fn powers_of_integers_are_refused_with_a_remedy() {
    let inputs = "%x: i32[4]";
    let mut g = graph(inputs, "%1 = pow %x, %x\n%2 = cast %1 : f32[4]", "y: f32[4] = %2");
    optimize(&mut g, &OptimizeOptions::default()).expect("a pipeline that runs");
    assert!(lower(&g).unwrap_err().to_string().contains("cast to f32 first"));
}

/// Which arguments a launch writes, from what its kernel documents.
fn written(l: &Lowered, launch: &Launch) -> Vec<bool> {
    let last = |from: usize| (0..launch.args.len()).map(|i| i >= from).collect();
    let generated = |kernel: u32| {
        let spec: &KernelSpec = &l.kernels[kernel as usize];
        let reads = match &spec.kind {
            Kind::Region(body) => body.inputs.len(),
            Kind::Move { operands, .. } => operands.len(),
            Kind::Finish { .. } => 1,
        };
        let mut flags: Vec<bool> =
            (0..l.program.kernels[kernel as usize].n_args as usize).map(|i| i >= reads).collect();
        spec.outputs.iter().filter_map(|o| o.in_place).for_each(|i| flags[i] = true);
        flags
    };
    match &launch.call {
        Call::Generated { kernel } => generated(*kernel),
        Call::Grouped { kernels } => kernels.iter().flat_map(|&k| generated(k)).collect(),
        Call::GemmSquares(_) => last(2),
        Call::RelAttentionForward(_) => last(4),
        Call::RelAttentionBackward(_) => last(7),
        Call::Head(_) => last(3),
        Call::Gemm(_) | Call::Gather { .. } | Call::ScatterAdd { .. } => last(2),
        Call::Copy { .. } => last(1),
    }
}

/// Launches of one wave touch no byte that another of them writes; said for every pair, byte range by byte range.
fn assert_waves_are_independent(l: &Lowered) {
    let p = &l.program;
    // A space of its own for each buffer outside the arena.
    let range = |b: u32| {
        let buffer = &p.buffers[b as usize];
        let space = if buffer.space == Space::Arena { u32::MAX } else { b };
        (space, buffer.offset, buffer.offset + buffer.bytes())
    };
    let touches: Vec<Vec<_>> =
        p.launches.iter().map(|x| x.args.iter().map(|&b| range(b)).zip(written(l, x)).collect()).collect();
    let chain = |i: usize| p.chains.iter().position(|c| c.members().contains(&i));
    for (i, x) in p.launches.iter().enumerate() {
        for (j, y) in p.launches.iter().enumerate().skip(i + 1) {
            assert!(x.wave <= y.wave, "launch {j} is in an earlier wave than launch {i}");
            // Within a chain launches share buffers by rows, but never bytes of different buffers.
            let linked = chain(i).is_some() && chain(i) == chain(j);
            if x.wave != y.wave {
                continue;
            }
            for &((s, from, to), w) in &touches[i] {
                for &((t, first, last), v) in &touches[j] {
                    let together = s == t && from < last && first < to;
                    if linked && (s, from, to) == (t, first, last) {
                        continue;
                    }
                    assert!(!together || !w && !v, "launches {i} and {j} of wave {} conflict", x.wave);
                }
            }
        }
    }
}

/// A graph of matrices, products, reductions and updates of states, as `choices` say.
fn random(choices: &[(u8, u8, u8)]) -> Graph {
    let mut g = Graph::new("g");
    let square = TensorType::f32(&[6, 6]);
    let mut values: Vec<Value> =
        (0..2).map(|k| g.new_input(&format!("x{k}"), square.clone(), Role::Data)).collect();
    for k in 0..2 {
        values.push(g.new_input(&format!("s{k}"), square.clone(), Role::State(Init::Zeros)));
    }
    for &(op, a, b) in choices {
        let (x, y) = (values[a as usize % values.len()], values[b as usize % values.len()]);
        let made = match op % 7 {
            0 | 1 => g.binary(Binary::ALL[b as usize % 3], x, y),
            2 => g.linear(x, y),
            3 => g.unary(Unary::Tanh, x),
            4 => g.transpose(x, &[1, 0]),
            5 => {
                let sum = g.reduce_sum(x, &[(b % 2) as usize]);
                g.broadcast(sum, &[1 - (b % 2) as usize], &[6, 6])
            }
            _ => {
                let flat = g.reshape(x, &[36]);
                let flat = g.unary(Unary::Neg, flat);
                g.reshape(flat, &[6, 6])
            }
        };
        values.push(made);
    }
    let n = values.len();
    for (k, name) in ["s0", "s1", "y0", "y1"].iter().enumerate() {
        g.output(name, values[n - 1 - k.min(n - 1)]);
    }
    g
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn waves_never_hold_conflicting_launches(
        choices in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..40),
        merge: bool,
    ) {
        let mut g = random(&choices);
        let options = OptimizeOptions { fuse: merge, ..Default::default() };
        optimize(&mut g, &options).expect("a pipeline that runs");
        assert_waves_are_independent(&lower(&g).expect("a graph that lowers"));
    }

    #[test]
    fn waves_of_any_launches_are_independent(
        raw in prop::collection::vec(prop::collection::vec((0u32..9, any::<bool>()), 1..4), 0..40)
    ) {
        let buffer = |i: u32| Buffer {
            name: format!("b{i}"),
            dtype: DType::F32,
            shape: vec![16 * (1 + i as usize % 3)],
            space: if i < 6 { Space::Arena } else { Space::State },
            offset: if i < 6 { u64::from(i) * 64 } else { 0 },
            init: None,
        };
        let buffers: Vec<Buffer> = (0..9).map(buffer).collect();
        let mut waves = Waves::new(&buffers);
        let mut placed: Vec<(u32, &Vec<(u32, bool)>)> = Vec::new();
        for launch in &raw {
            let (args, writes): (Vec<u32>, Vec<bool>) = launch.iter().copied().unzip();
            let wave = waves.place(&args, &writes);
            for &(earlier, other) in &placed {
                prop_assert!(earlier <= wave);
                for (&(b, w), &(c, v)) in launch.iter().flat_map(|x| other.iter().map(move |y| (x, y))) {
                    let (x, y) = (&buffers[b as usize], &buffers[c as usize]);
                    let both_arena = x.space == Space::Arena && y.space == Space::Arena;
                    let meet = x.offset < y.offset + y.bytes() && y.offset < x.offset + x.bytes();
                    let conflict = (w || v) && (b == c || both_arena && meet);
                    prop_assert!(!conflict || earlier < wave);
                }
            }
            placed.push((wave, launch));
        }
    }
}

#[test]
fn waves_of_a_training_step_are_independent_and_wide() {
    use crate::config::{ModelConfig, StepConfig};
    let model = ModelConfig {
        d_ff: 32,
        tied_embeddings: false,
        bias: true,
        rms_eps: 1e-5,
        ..ModelConfig::gopher(2, 2, 8, 16, 40, 6)
    };
    let step = StepConfig { output_gradients: true, ..StepConfig::new(2) };
    let plan = crate::driver::plan_program(&model, &step).expect("a plan");
    for l in [&plan.train, &plan.eval] {
        assert_waves_are_independent(l);
        let waves = l.program.launches.last().map_or(0, |x| x.wave as usize + 1);
        assert!(waves < l.program.launches.len(), "{waves} waves, no two launches side by side");
        assert!(!l.program.chains.is_empty(), "no launches are cut together");
        assert!(copies(&l.program).is_empty(), "parameters and moments are updated where they live");
    }
}
