//! Products against plain f64 sums, over random shapes and every stride order, and in every order of tasks.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Layout {
    RowMajor,
    ColumnMajor,
    /// Neither dimension is contiguous.
    Spread,
}

fn strides(layout: Layout, rows: usize, cols: usize, pad: usize) -> [usize; 2] {
    match layout {
        Layout::RowMajor => [cols + pad, 1],
        Layout::ColumnMajor => [1, rows + pad],
        Layout::Spread => [cols * 2 + pad, 2],
    }
}

/// Reproducible values in [-1, 1).
fn values(count: usize, seed: u64) -> Vec<f32> {
    (0..count as u64)
        .map(|i| {
            let x = (i + seed * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            ((x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// c after the tasks have run in the order given by `order(tasks)`.
fn run(g: &Gemm, a: &[f32], b: &[f32], c: &[f32], order: impl Fn(usize) -> Vec<usize>) -> Vec<f32> {
    let mut c = c.to_vec();
    for task in order(g.phases()[0]) {
        // SAFETY: the vectors hold every element that the strides reach.
        unsafe { g.run(0, task, a.as_ptr(), b.as_ptr(), c.as_mut_ptr()) };
    }
    c
}

fn check(g: &Gemm) -> Result<(), TestCaseError> {
    let [a, b, before] = g.extents();
    let (a, b, before) = (values(a, 1), values(b, 2), values(before, 3));
    let c = run(g, &a, &b, &before, |tasks| (0..tasks).collect());
    let mut expected: Vec<f64> = before.iter().map(|&x| x as f64).collect();
    let mut magnitude = vec![0.0f64; before.len()];
    for t in 0..g.batch {
        for i in 0..g.m {
            for j in 0..g.n {
                let at = t * g.c[0] + i * g.c[1] + j * g.c[2];
                let start = if g.accumulate { before[at] as f64 } else { 0.0 };
                let terms = (0..g.k).map(|p| {
                    a[t * g.a[0] + i * g.a[1] + p * g.a[2]] as f64
                        * b[t * g.b[0] + p * g.b[1] + j * g.b[2]] as f64
                });
                (expected[at], magnitude[at]) =
                    terms.fold((start, start.abs()), |(sum, size), x| (sum + x, size + x.abs()));
            }
        }
    }
    for (at, (&got, &want)) in c.iter().zip(&expected).enumerate() {
        // The standard bound for a sum of k products; untouched elements (magnitude 0) must be exactly as before.
        let bound = magnitude[at] * (g.k + 2) as f64 * f32::EPSILON as f64;
        prop_assert!(
            (got as f64 - want).abs() <= bound,
            "element {at} is {got}, expected {want} within {bound}, of {g:?}"
        );
    }
    let backwards = run(g, &a, &b, &before, |tasks| (0..tasks).rev().collect());
    prop_assert!(
        c.iter().zip(&backwards).all(|(x, y)| x.to_bits() == y.to_bits()),
        "order of tasks matters in {g:?}"
    );
    Ok(())
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![4 => Just(Layout::RowMajor), 4 => Just(Layout::ColumnMajor), 1 => Just(Layout::Spread)]
}

fn dimension() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0usize), 3 => Just(1), 8 => 2usize..20, 8 => 20usize..120]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_f64_sums(
        (batch, m, n) in (1usize..4, dimension(), dimension()),
        k in prop_oneof![6 => dimension(), 1 => 380usize..900],
        (la, lb, lc) in (layout(), layout(), layout()),
        pads in prop::array::uniform3(0usize..3),
        (broadcast_a, broadcast_b, accumulate) in (prop::bool::weighted(0.2), prop::bool::weighted(0.2), any::<bool>()),
    ) {
        let full = |layout, rows: usize, cols: usize, pad, broadcast: bool| {
            let [r, c] = strides(layout, rows, cols, pad);
            [if broadcast { 0 } else { rows.saturating_sub(1) * r + cols.saturating_sub(1) * c + 1 + pad }, r, c]
        };
        let g = Gemm {
            batch, m, n, k, accumulate,
            a: full(la, m, k, pads[0], broadcast_a),
            b: full(lb, k, n, pads[1], broadcast_b),
            c: full(lc, m, n, pads[2], false),
        };
        check(&g)?;
    }
}

/// Shapes of a small model's step, large enough to be cut both ways.
#[test]
fn products_of_a_training_step() {
    for (tokens, input, output) in [(1024, 24, 72), (600, 96, 130), (1030, 64, 256)] {
        let [t, i, o] = [tokens, input, output];
        let forward =
            Gemm { batch: 1, m: t, n: o, k: i, a: [0, i, 1], b: [0, 1, i], c: [0, o, 1], accumulate: false };
        let dx =
            Gemm { batch: 1, m: t, n: i, k: o, a: [0, o, 1], b: [0, i, 1], c: [0, i, 1], accumulate: true };
        let dw =
            Gemm { batch: 1, m: o, n: i, k: t, a: [0, 1, o], b: [0, i, 1], c: [0, i, 1], accumulate: false };
        for g in [forward, dx, dw] {
            check(&g).unwrap();
        }
    }
}

/// Strides at which operands compete for cache sets and are therefore copied, over more rows, columns and steps than one
/// packing takes.
#[test]
fn strides_that_caches_do_not_like() {
    let (m, n, k) = (150, 300, 400);
    for (a, b) in [
        ([0, 1024, 1], [0, 4096, 1]),
        ([0, 1, 2048], [0, 4096, 1]),
        ([0, 1, 4096], [0, 1, 1024]),
        ([0, 512, 1], [0, 512, 1]),
        ([0, 2, 1024], [0, 2, 2048]),
    ] {
        for (c, accumulate) in [([0, n, 1], false), ([0, 1, m], true)] {
            check(&Gemm { batch: 1, m, n, k, a, b, c, accumulate }).unwrap();
        }
    }
}

/// Batches of heads that share storage, and a batch with a shared right operand, which is one tall product.
#[test]
fn batches_with_shared_operands() {
    let [batch, m, n, k] = [3, 50, 40, 24];
    let tall = Gemm { batch, m, n, k, a: [m * k, k, 1], b: [0, n, 1], c: [m * n, n, 1], accumulate: false };
    let heads = Gemm {
        batch,
        m,
        n,
        k,
        a: [k, batch * k, 1],
        b: [n, batch * n, 1],
        c: [n, batch * n, 1],
        accumulate: false,
    };
    let shared_left = Gemm { a: [0, 1, m], ..tall };
    for g in [tall, heads, shared_left] {
        check(&g).unwrap();
    }
}

#[test]
fn tasks_cover_the_shape_once() {
    for (batch, m, n, k) in
        [(1, 1024, 72, 24), (1, 16, 16, 8192), (7, 300, 100, 500), (100, 64, 64, 64), (1, 1, 5000, 3000)]
    {
        let g =
            Gemm { batch, m, n, k, a: [m * k, k, 1], b: [k * n, n, 1], c: [m * n, n, 1], accumulate: false };
        let tiling = Tiling::of(&g);
        let mut seen = vec![0u8; batch * m * n];
        for tile in (0..tiling.tasks()).flat_map(|task| tiling.tiles(&g, task)) {
            for i in tile.rows {
                for j in tile.cols.clone() {
                    seen[(tile.batch * m + i) * n + j] += 1;
                }
            }
        }
        assert!(seen.iter().all(|&count| count == 1), "{batch} {m} {n} {k}: {tiling:?}");
    }
}

/// Blocks of rows computed one by one are the whole product: the same bits with our own kernel, and nothing beside them
/// is written.
#[test]
fn blocks_of_rows_are_the_whole_product() {
    for (m, n, k) in [(131, 96, 64), (200, 40, 24), (97, 70, 400), (300, 129, 513), (64, 1, 33), (1, 50, 700)]
    {
        for (la, lb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            for (accumulate, column_major) in [(false, false), (true, false), (true, true)] {
                let sides = |transposed: usize, rows: usize, cols: usize| {
                    if transposed == 1 { [0, 1, rows + 3] } else { [0, cols + 1, 1] }
                };
                let c = if column_major { [0, 1, m + 2] } else { [0, n + 5, 1] };
                let g = Gemm { batch: 1, m, n, k, a: sides(la, m, k), b: sides(lb, k, n), c, accumulate };
                let [a, b, before] = g.extents();
                let (a, b, before) = (values(a, 1), values(b, 2), values(before, 3));
                let whole = run(&g, &a, &b, &before, |tasks| (0..tasks).collect());
                for step in [1, 14, 32, 100, m] {
                    let mut parts = before.clone();
                    for start in (0..m).step_by(step) {
                        let rows = start..(start + step).min(m);
                        // SAFETY: the vectors hold every element that the strides reach.
                        unsafe { g.run_rows(rows, a.as_ptr(), b.as_ptr(), parts.as_mut_ptr()) };
                    }
                    for (at, (&part, &all)) in parts.iter().zip(&whole).enumerate() {
                        let same = if g.canonical().0.is_own() {
                            part.to_bits() == all.to_bits()
                        } else {
                            (part - all).abs() <= (k + 2) as f32 * f32::EPSILON * k as f32
                        };
                        assert!(
                            same,
                            "element {at} is {part} by blocks of {step} rows, {all} whole, of {g:?}"
                        );
                    }
                }
            }
        }
    }
}

/// What is said of a product's packing space is what a thread holds after it, to the byte, whole and in blocks of rows.
#[test]
#[cfg(target_arch = "x86_64")]
fn packing_takes_the_bytes_it_says() {
    if !std::arch::is_x86_feature_detected!("avx512f") {
        return;
    }
    let on_a_new_thread = |g: Gemm, rows: Option<usize>| {
        let body = move || {
            let [a, b, c] = g.extents().map(|n| vec![1.0f32; n]);
            let mut c = c;
            match rows {
                None => drop(run(&g, &a, &b, &c, |tasks| (0..tasks).collect())),
                Some(rows) => {
                    for start in (0..g.m).step_by(rows) {
                        let rows = start..(start + rows).min(g.m);
                        // SAFETY: the vectors hold every element that the strides reach.
                        unsafe { g.run_rows(rows, a.as_ptr(), b.as_ptr(), c.as_mut_ptr()) };
                    }
                }
            }
            avx512::packed_bytes()
        };
        std::thread::spawn(body).join().unwrap()
    };
    let mut packed = [0, 0];
    for (batch, m, n, k) in
        [(1, 300, 129, 513), (1, 512, 256, 1024), (3, 100, 40, 24), (1, 31, 700, 64), (1, 1000, 16, 1000)]
    {
        for (a, b) in
            [([m * k, k, 1], [k * n, n, 1]), ([m * k, 1, m], [k * n, 1, k]), ([m * k, 1, m], [0, n, 1])]
        {
            let g = Gemm { batch, m, n, k, a, b, c: [m * n, n, 1], accumulate: false };
            assert_eq!(on_a_new_thread(g, None), g.packing_bytes(), "{g:?}");
            packed = most([packed, g.packing_bytes()].into_iter());
            for rows in [1, 30, 128] {
                let g = Gemm { batch: 1, ..g };
                assert_eq!(
                    on_a_new_thread(g, Some(rows)),
                    g.packing_bytes_of_rows(rows),
                    "{rows} rows of {g:?}"
                );
            }
        }
    }
    assert!(packed.iter().all(|&bytes| bytes > 10_000), "these products hardly pack: {packed:?}");
}
