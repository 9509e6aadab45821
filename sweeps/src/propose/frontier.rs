//! What one would do without a design: runs of equally spaced compute along the fitted optimum.

use crate::fit::design::Known;
use crate::fit::simulate::Point;

/// `runs` runs on N*(C), their compute equally spaced in its logarithm from the least of the fitted runs upwards, `budget`
/// FLOPs in all. Where the budget does not hold so many of the least, all are equal.
pub(super) fn frontier(known: &Known, budget: f64, runs: usize) -> Vec<Point> {
    let low = known.ranges.flops[0];
    // The ratio of one run's compute to the next at which they cost the budget.
    let total = |ratio: f64| (0..runs).map(|i| low * ratio.powi(i as i32)).sum::<f64>();
    let (start, ratio) = if runs == 1 || total(1.0) >= budget {
        (budget / runs as f64, 1.0)
    } else {
        let (mut below, mut above) = (1.0, 2.0);
        while total(above) < budget {
            above *= 2.0;
        }
        for _ in 0..80 {
            let middle = 0.5 * (below + above);
            if total(middle) < budget { below = middle } else { above = middle }
        }
        (low, below)
    };
    let k = known.flops_per_param_token;
    (0..runs)
        .map(|i| {
            let flops = start * ratio.powi(i as i32);
            let (params, tokens) = known.law.optimum(flops, k);
            let id = format!("frontier-{i}");
            Point { id, params, tokens, flops, convention: String::new(), budget: None, seed: 0 }
        })
        .collect()
}
