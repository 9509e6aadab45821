//! AdamW, the embedding and the head's cross entropy on CUDA against plain loops in f64.

use super::simt::{Order, Region, launch, output, rounded, run};
use isoflop_compiler::graph::{Graph, HeadCall, Library, Op, Role, TensorType, Value};
use isoflop_compiler::interp::{Tensor, interpret};
use isoflop_kernels::DType;
use isoflop_kernels::cuda::{embedding, head, optimizer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Uniform numbers in -1..1, as a type keeps them.
fn uniform(rng: &mut ChaCha8Rng, n: usize, dtype: DType) -> Vec<f64> {
    (0..n).map(|_| rounded(rng.random_range(-1.0..1.0), dtype)).collect()
}

fn indices(rng: &mut ChaCha8Rng, n: usize, vocab: usize) -> Vec<f64> {
    (0..n).map(|_| rng.random_range(0..vocab) as f64).collect()
}

#[track_caller]
fn close(what: &str, found: &[f64], exact: &[f64], relative: f64) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (k, (f, e)) in found.iter().zip(exact).enumerate() {
        assert!((f - e).abs() <= relative * e.abs().max(1e-3), "{what}[{k}]: {f:e}, exact {e:e}");
    }
}

const TYPES: [(DType, f64); 2] = [(DType::F32, 2e-6), (DType::Bf16, 1.0 / 256.0)];

#[test]
fn adamw_clips_by_the_norm_of_all_tensors_and_updates_each() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // One element, a tail, exactly one chunk, several chunks with a tail.
    let sizes = [1, 4099, 8192, 20_001];
    for (dtype, _) in TYPES {
        for clip in [0.5, 1e9] {
            let step = optimizer::AdamW { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip };
            let schedule: Vec<f64> =
                [0.01, 1.0 - 0.9f64.powi(3), 1.0 - 0.95f64.powi(3)].map(|x| rounded(x, DType::F32)).into();
            let f32s = |rng: &mut ChaCha8Rng| sizes.map(|n| uniform(rng, n, DType::F32));
            let (param, first) = (f32s(&mut rng), f32s(&mut rng));
            let second = f32s(&mut rng).map(|v| v.iter().map(|x| x.abs()).collect::<Vec<_>>());
            let gradient = sizes.map(|n| uniform(&mut rng, n, dtype));
            let regions = |of: &[Vec<f64>; 4], dtype| of.each_ref().map(|v| Region::of(v, dtype));
            let [params, firsts, seconds] = [&param, &first, &second].map(|of| regions(of, DType::F32));
            let gradients = regions(&gradient, dtype);
            let copies = sizes.map(|n| Region::new(2 * n));
            let (decays, copied) = ([true, false, true, true], [true, true, false, true]);

            let chunks = optimizer::chunks(&sizes);
            assert_eq!(chunks, [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1], [3, 2]]);
            let call = optimizer::adamw(&step, dtype, sizes.len(), chunks.len()).expect("a shape");
            let mut table = Region::new(sizes.len() * optimizer::TABLE_WORDS * 8);
            let words: Vec<u64> = (0..sizes.len())
                .flat_map(|k| {
                    let copy = if copied[k] { copies[k].address() } else { 0 };
                    let of = [&params[k], &firsts[k], &seconds[k], &gradients[k]].map(Region::address);
                    of.into_iter().chain([copy, sizes[k] as u64, u64::from(decays[k])])
                })
                .collect();
            table
                .bytes_mut()
                .copy_from_slice(&words.iter().flat_map(|w| w.to_ne_bytes()).collect::<Vec<_>>());
            let of_chunks: Vec<f64> = chunks.as_flattened().iter().map(|&c| f64::from(c)).collect();
            let named = BTreeMap::from([
                ("table", table),
                ("chunks", Region::of(&of_chunks, DType::I32)),
                ("schedule", Region::of(&schedule, DType::F32)),
                ("norm", Region::new(8)),
                ("partials", Region::new(4 * chunks.len())),
            ]);
            let others: Vec<&Region> =
                [&params, &firsts, &seconds, &gradients, &copies].into_iter().flatten().collect();
            for each in &call.launches {
                launch(each, each.kernel.source.text(), &named, &others, Order::Descending).expect("runs");
            }

            let squares: f64 = gradient.iter().flatten().map(|g| g * g).sum();
            let factor = (f64::from(clip) / (squares.sqrt() + 1e-6)).min(1.0);
            close("norm", &named["norm"].values(DType::F32), &[squares.sqrt(), factor], 1e-6);
            for k in 0..sizes.len() {
                let mut expected = [vec![], vec![], vec![]];
                for e in 0..sizes[k] {
                    let g = gradient[k][e] * factor;
                    let m = first[k][e] * 0.9 + g * (1.0 - 0.9);
                    let v = second[k][e] * 0.95 + g * g * (1.0 - 0.95);
                    let keep = if decays[k] { 1.0 - schedule[0] * 0.1 } else { 1.0 };
                    let change = m * schedule[0] / schedule[1] / ((v / schedule[2]).sqrt() + 1e-8);
                    expected
                        .iter_mut()
                        .zip([param[k][e] * keep - change, m, v])
                        .for_each(|(to, x)| to.push(x));
                }
                for (found, exact) in [&params[k], &firsts[k], &seconds[k]].into_iter().zip(&expected) {
                    close(&format!("{dtype} clip {clip} tensor {k}"), &found.values(DType::F32), exact, 1e-4);
                }
                let copy = copies[k].values(DType::Bf16);
                match copied[k] {
                    true => assert!(
                        copy.iter()
                            .zip(params[k].values(DType::F32))
                            .all(|(c, p)| *c == rounded(p, DType::Bf16))
                    ),
                    false => assert!(copy.iter().all(|c| c.is_nan())),
                }
            }
        }
    }
}

#[test]
fn rows_are_gathered_exactly() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for (dtype, _) in TYPES {
        for (rows, width, vocab) in [(1, 8, 1), (37, 64, 11), (300, 520, 1000)] {
            let call = embedding::gather(rows, width, vocab, dtype).expect("a shape");
            let table = uniform(&mut rng, vocab * width, dtype);
            let named = indices(&mut rng, rows, vocab);
            let expected: Vec<f64> =
                named.iter().flat_map(|&v| table[v as usize * width..][..width].to_vec()).collect();
            let inputs = BTreeMap::from([("table", table), ("indices", named)]);
            let found = run(&call, &inputs, &[], Order::Ascending);
            assert_eq!(output(&call, &found, "out"), expected, "{dtype} {rows} {width} {vocab}");
        }
    }
    assert!(embedding::gather(4, 12, 4, DType::F32).is_err());
}

#[test]
fn updates_are_added_in_the_order_of_their_indices() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for (dtype, _) in TYPES {
        for (rows, width, vocab) in [(1, 8, 1), (300, 24, 5), (700, 2056, 130)] {
            for accumulate in [false, true] {
                let call = embedding::scatter_add(rows, width, vocab, dtype, accumulate).expect("a shape");
                let updates = uniform(&mut rng, rows * width, dtype);
                let named = indices(&mut rng, rows, vocab);
                let base = uniform(&mut rng, vocab * width, DType::F32);
                let mut expected = if accumulate { base.clone() } else { vec![0.0; base.len()] };
                for (update, &v) in updates.chunks(width).zip(&named) {
                    for (to, x) in expected[v as usize * width..].iter_mut().zip(update) {
                        *to = rounded(*to + x, DType::F32);
                    }
                }
                let inputs = BTreeMap::from([("updates", updates), ("indices", named), ("out", base)]);
                let found = run(&call, &inputs, &[], Order::Descending);
                assert_eq!(output(&call, &found, "out"), expected, "{dtype} {rows} {width} {vocab}");
            }
        }
    }
}

/// The head's pieces between products in f64, and the whole by the interpreter.
#[test]
fn the_cross_entropy_of_logits_and_its_gradient() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for (dtype, relative) in TYPES {
        for (rows, width, vocab) in [(1, 1, 1), (7, 5, 259), (5, 3, 2500)] {
            let h = uniform(&mut rng, rows * width, DType::F32);
            let table: Vec<f64> =
                uniform(&mut rng, vocab * width, DType::F32).iter().map(|x| 4.0 * x).collect();
            let mut targets = indices(&mut rng, rows, vocab);
            if rows > 1 {
                (targets[0], targets[1]) = (-1.0, vocab as f64);
            }
            let logits: Vec<f64> = h
                .chunks(width)
                .flat_map(|h| {
                    table
                        .chunks(width)
                        .map(|t| t.iter().zip(h).map(|(t, h)| t * h).sum())
                        .collect::<Vec<f64>>()
                })
                .collect();
            // Padding holds NaN; the kernel must not look at it.
            let stride = head::stride(vocab);
            let mut x = vec![f64::NAN; rows * stride];
            for (to, from) in x.chunks_mut(stride).zip(logits.chunks(vocab)) {
                to[..vocab].copy_from_slice(from);
            }
            x.iter_mut().filter(|x| x.is_finite()).for_each(|x| *x = rounded(*x, dtype));

            let mut g = Graph::new("head");
            let call = HeadCall { rows, width: vocab, vocab, chunk: rows };
            // With the identity as table, h are the logits and dh their gradient.
            let types =
                [TensorType::f32(&[rows, vocab]), TensorType::f32(&[vocab, vocab]), TensorType::i32(&[rows])];
            let given = ["h", "table", "targets"];
            let operands: Vec<Value> =
                given.iter().zip(&types).map(|(n, t)| g.new_input(n, t.clone(), Role::Data)).collect();
            let results = [TensorType::f32(&[]), types[0].clone(), types[1].clone()];
            let node = g.add(Op::Call(Library::HeadLossGrad(call)), &operands, &results);
            for (k, name) in ["loss", "dh", "dtable"].into_iter().enumerate() {
                g.output(name, Value { node, result: k as u16 });
            }
            let own: Vec<f64> = x.chunks(stride).flat_map(|row| row[..vocab].to_vec()).collect();
            let (loss, dx) = match vocab <= 300 {
                true => {
                    let identity: Vec<f64> =
                        (0..vocab * vocab).map(|k| f64::from(k / vocab == k % vocab)).collect();
                    let inputs = BTreeMap::from([
                        ("h".to_string(), Tensor::f32(&[rows, vocab], own)),
                        ("table".to_string(), Tensor::f32(&[vocab, vocab], identity)),
                        ("targets".to_string(), Tensor::i32(&[rows], targets.iter().map(|&t| t as i32))),
                    ]);
                    let mut found = interpret(&g, &inputs).expect("runs");
                    (found["loss"].data[0], found.remove("dh").expect("dh").data)
                }
                false => by_formula(&own, &targets, vocab),
            };

            let pass = head::cross_entropy(rows, vocab, dtype, 1.0 / rows as f32, true).expect("a shape");
            let inputs = BTreeMap::from([("x", x.clone()), ("targets", targets.clone())]);
            let found = run(&pass, &inputs, &[], Order::Ascending);
            let gradient = output(&pass, &found, "x");
            for (row, exact) in gradient.chunks(stride).zip(dx.chunks(vocab)) {
                close(&format!("{dtype} {vocab} dx"), &row[..vocab], exact, 4.0 * relative);
                assert!(row[vocab..].iter().all(|x| x.is_nan()), "padding was written");
            }
            let losses = output(&pass, &found, "losses");
            let mean = head::mean(rows).expect("a shape");
            let regions = run(&mean, &BTreeMap::from([("losses", losses.clone())]), &[], Order::Ascending);
            close(&format!("{dtype} {vocab} loss"), &output(&mean, &regions, "loss"), &[loss], 1e-5);

            // Without gradients the losses are the same and the logits stay.
            let pass = head::cross_entropy(rows, vocab, dtype, 0.0, false).expect("a shape");
            let found = run(&pass, &inputs, &[], Order::Descending);
            assert_eq!(output(&pass, &found, "losses"), losses);
        }
    }
}

/// The mean loss and the gradient of the logits.
fn by_formula(logits: &[f64], targets: &[f64], vocab: usize) -> (f64, Vec<f64>) {
    let rows = targets.len() as f64;
    let (mut loss, mut gradient) = (0.0, vec![]);
    for (x, &target) in logits.chunks(vocab).zip(targets) {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
        let named = |c: usize| c as f64 == target;
        let picked: f64 = (0..vocab).filter(|&c| named(c)).map(|c| x[c] - max).sum();
        loss += (sum.ln() - picked) / rows;
        gradient
            .extend(x.iter().enumerate().map(|(c, x)| ((x - max).exp() / sum - f64::from(named(c))) / rows));
    }
    (loss, gradient)
}
