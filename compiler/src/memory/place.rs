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

/// Attempts at placing everything, in comparisons of two buffers: about a tenth of a second.
const WORK: usize = 50_000_000;
/// A buffer that lives through this share of all steps or more is long-lived.
const LONG: usize = 16;

/// Greedy, each buffer at the lowest gap that holds it: the largest first, or by the space it takes over time, or by
/// its start. Where none of these comes to the lower bound: first what lives long, by its start, what is born before the
/// first of these dies from the bottom and the rest from the top, so that gradients grow into the room that activations
/// leave; then buffers that stick out above the bound are placed earlier. The best attempt counts.
pub fn place(lifetimes: &[Lifetime]) -> Placement {
    let lower_bound = lower_bound(lifetimes);
    let mut best = Placement { offsets: Vec::new(), bytes: u64::MAX, lower_bound };
    let mut attempts = (WORK / (lifetimes.len() * lifetimes.len()).max(1)).max(4);
    let mut attempt = |order: &[u32], pivot: usize| {
        let (offsets, bytes) = fit(lifetimes, order, pivot, lower_bound);
        if bytes < best.bytes {
            (best.offsets, best.bytes) = (offsets.clone(), bytes);
        }
        attempts = attempts.saturating_sub(1);
        (offsets, bytes, best.bytes <= lower_bound || attempts == 0)
    };
    let long = lifetimes.iter().map(|l| l.last + 1).max().unwrap_or(0) / LONG;
    let lives_long = |l: &Lifetime| l.last - l.first >= long.max(2);
    let first_death = lifetimes.iter().filter(|l| lives_long(l)).map(|l| l.last).min().unwrap_or(0);
    type Key<'a> = &'a dyn Fn(&Lifetime) -> (u64, u64);
    let by_age =
        |l: &Lifetime| if lives_long(l) { (u64::MAX - l.first as u64, l.size()) } else { (0, l.size()) };
    let plans: [(usize, Key); 4] = [
        (usize::MAX, &|l| (l.size(), (l.last - l.first) as u64)),
        (usize::MAX, &|l| (l.size() * (l.last - l.first + 1) as u64, l.size())),
        (usize::MAX, &|l| (u64::MAX - l.first as u64, l.size())),
        (first_death, &by_age),
    ];
    let mut found = Vec::new();
    for (pivot, key) in plans {
        let mut order: Vec<u32> = (0..lifetimes.len() as u32).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(key(&lifetimes[i as usize])), i));
        let (offsets, bytes, enough) = attempt(&order, pivot);
        if enough {
            return best;
        }
        found.push((bytes, found.len(), order, pivot, offsets));
    }
    found.sort_by_key(|f| (f.0, f.1));
    for (_, _, mut order, pivot, mut offsets) in found.into_iter().take(3) {
        for _ in 0..60 {
            // Each moves half of its way to the front, and those in between one place back.
            for place in 0..order.len() {
                let i = order[place] as usize;
                if offsets[i] + lifetimes[i].size() > lower_bound {
                    order[place / 2..=place].rotate_right(1);
                }
            }
            let enough;
            (offsets, _, enough) = attempt(&order, pivot);
            if enough {
                return best;
            }
        }
    }
    best
}

/// A buffer that has its place.
#[derive(Clone, Copy)]
struct Placed {
    start: u64,
    end: u64,
    first: u32,
    last: u32,
}

/// Places buffers in this order: those born before step `pivot` at the lowest gap, the others at the highest gap under
/// `ceiling` or, where there is none, at the lowest.
fn fit(lifetimes: &[Lifetime], order: &[u32], pivot: usize, ceiling: u64) -> (Vec<u64>, u64) {
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<Placed> = Vec::with_capacity(order.len());
    // Indices into `placed`, by start.
    let mut by_start: Vec<u32> = Vec::with_capacity(order.len());
    let mut total = 0;
    for &i in order {
        let l = &lifetimes[i as usize];
        let (first, last, size) = (l.first as u32, l.last as u32, l.size());
        let (mut at, mut high) = (0, None);
        for &p in &by_start {
            let other = &placed[p as usize];
            if other.first <= last && first <= other.last {
                if l.first < pivot && at + size <= other.start {
                    break;
                }
                if at + size <= other.start.min(ceiling) {
                    high = Some(other.start.min(ceiling) - size);
                }
                at = at.max(other.end);
            }
        }
        if l.first >= pivot {
            at = if at + size <= ceiling { ceiling - size } else { high.unwrap_or(at) };
        }
        offsets[i as usize] = at;
        total = total.max(at + size);
        let position = by_start.partition_point(|&p| placed[p as usize].start <= at);
        by_start.insert(position, placed.len() as u32);
        placed.push(Placed { start: at, end: at + size, first, last });
    }
    (offsets, total)
}

/// The largest sum of sizes alive at one step.
pub fn lower_bound(lifetimes: &[Lifetime]) -> u64 {
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
                    prop_assert!(apart || l[i].last < l[j].first || l[j].last < l[i].first);
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
