//! isoFLOP budgets of runs that name none: sets of runs whose compute is equal but for rounding.

use crate::fit::records::RunRecord;

/// Compute within a budget may differ by this share.
const EQUAL: f64 = 0.01;
/// Budgets are parted by more than this share.
const APART: f64 = 0.05;
/// Sizes that make a set of runs a budget.
const SIZES: usize = 3;

/// Sets the budget of runs that share their compute with two other sizes, if at least half of all runs do. Returns the
/// number of budgets.
pub(crate) fn detect(runs: &mut [RunRecord]) -> usize {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|&i, &j| runs[i].flops.total_cmp(&runs[j].flops));
    let mut found: Vec<&[usize]> = Vec::new();
    let mut from = 0;
    for i in 1..=order.len() {
        let apart = i == order.len() || runs[order[i]].flops > runs[order[i - 1]].flops * (1.0 + APART);
        if !apart {
            continue;
        }
        let members = &order[from..i];
        from = i;
        let [first, last] = [members[0], members[members.len() - 1]];
        if runs[last].flops > runs[first].flops * (1.0 + EQUAL) {
            continue;
        }
        let mut sizes: Vec<u64> = members.iter().map(|&m| runs[m].params.to_bits()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.len() >= SIZES {
            found.push(members);
        }
    }
    if 2 * found.iter().map(|m| m.len()).sum::<usize>() < runs.len() {
        return 0;
    }
    let budgets: Vec<(f64, Vec<usize>)> =
        found.iter().map(|m| (runs[m[m.len() / 2]].flops, m.to_vec())).collect();
    for (flops, members) in &budgets {
        members.iter().for_each(|&m| runs[m].budget = Some(*flops));
    }
    budgets.len()
}
