//! Static placement of temporary buffers in one arena: each buffer has a lifetime over the steps of a schedule and
//! gets a fixed offset such that no two that live at once overlap.

use isoflop_kernels::program::ALIGN;

/// A buffer to place: alive from step `first` to step `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub bytes: u64,
    pub first: usize,
    pub last: usize,
}

impl Lifetime {
    fn overlaps(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn size(&self) -> u64 {
        self.bytes.next_multiple_of(ALIGN)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Bytes from the start of the arena, in the order of the input.
    pub offsets: Vec<u64>,
    pub bytes: u64,
    /// The largest sum of sizes alive at one step: no placement can need less.
    pub lower_bound: u64,
}

/// The best of a few greedy orders: each buffer goes to the lowest gap that holds it, the largest first, or by the
/// space it takes over time, or by its start.
pub fn place(lifetimes: &[Lifetime]) -> Placement {
    let lower_bound = lower_bound(lifetimes);
    type Key = fn(&Lifetime) -> (u64, u64);
    let orders: [Key; 3] = [
        |l| (l.size(), (l.last - l.first) as u64),
        |l| (l.size() * (l.last - l.first + 1) as u64, l.size()),
        |l| (u64::MAX - l.first as u64, l.size()),
    ];
    let mut best: Option<Placement> = None;
    for key in orders {
        let mut order: Vec<usize> = (0..lifetimes.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(key(&lifetimes[i])), i));
        let (offsets, bytes) = first_fit(lifetimes, &order);
        if best.as_ref().is_none_or(|b| bytes < b.bytes) {
            best = Some(Placement { offsets, bytes, lower_bound });
        }
        // Good enough: trying the other orders costs time on large programs.
        if bytes * 100 <= lower_bound * 101 {
            break;
        }
    }
    best.unwrap_or(Placement { offsets: Vec::new(), bytes: 0, lower_bound })
}

fn first_fit(lifetimes: &[Lifetime], order: &[usize]) -> (Vec<u64>, u64) {
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut taken: Vec<(u64, u64)> = Vec::new();
    let mut total = 0;
    for &i in order {
        let l = &lifetimes[i];
        taken.clear();
        taken.extend(
            placed
                .iter()
                .filter(|&&p| lifetimes[p].overlaps(l))
                .map(|&p| (offsets[p], offsets[p] + lifetimes[p].size())),
        );
        taken.sort_unstable();
        let mut at = 0;
        for &(start, end) in &taken {
            if at + l.size() <= start {
                break;
            }
            at = at.max(end);
        }
        offsets[i] = at;
        total = total.max(at + l.size());
        placed.push(i);
    }
    (offsets, total)
}

fn lower_bound(lifetimes: &[Lifetime]) -> u64 {
    let mut changes: Vec<(usize, i128)> = Vec::with_capacity(2 * lifetimes.len());
    for l in lifetimes {
        changes.push((l.first, l.size() as i128));
        changes.push((l.last + 1, -(l.size() as i128)));
    }
    // At equal steps ends come before starts.
    changes.sort_unstable();
    let (mut alive, mut most) = (0, 0);
    for (_, change) in changes {
        alive += change;
        most = most.max(alive);
    }
    most as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_alive_together_overlaps(
            raw in prop::collection::vec((1u64..5000, 0usize..40, 0usize..10), 0..60)
        ) {
            let l: Vec<Lifetime> =
                raw.iter().map(|&(bytes, first, n)| Lifetime { bytes, first, last: first + n }).collect();
            let p = place(&l);
            prop_assert!(p.bytes >= p.lower_bound);
            for i in 0..l.len() {
                prop_assert!(p.offsets[i].is_multiple_of(ALIGN));
                prop_assert!(p.offsets[i] + l[i].bytes <= p.bytes);
                for j in 0..i {
                    let apart = p.offsets[i] + l[i].size() <= p.offsets[j]
                        || p.offsets[j] + l[j].size() <= p.offsets[i];
                    prop_assert!(apart || !l[i].overlaps(&l[j]));
                }
            }
        }
    }

    #[test]
    fn lower_bound_counts_what_lives_together() {
        let l = |bytes, first, last| Lifetime { bytes, first, last };
        let p = place(&[l(64, 0, 1), l(128, 1, 2), l(64, 2, 3)]);
        assert_eq!(p.lower_bound, 192);
        assert_eq!(p.bytes, 192);
    }
}
