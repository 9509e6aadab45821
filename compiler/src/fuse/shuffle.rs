//! Fusion by chance, for tests: any choice of merges that the rules allow must compute the same.

/// Merges in an order drawn from the seed, with a share of all pairs kept apart: none, an eighth, a quarter or half,
/// which the seed draws too. The rules that every merge must keep hold as always, the bound on the arena among them.
/// Equal seeds give equal kernels for equal graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shuffle {
    pub seed: u64,
}

impl Shuffle {
    /// What stands in the queue in the place of the time saved by merging the clusters whose first nodes have these ids.
    pub(super) fn priority(self, pair: (u32, u32)) -> u64 {
        self.draw(1, pair)
    }

    pub(super) fn keeps_apart(self, pair: (u32, u32)) -> bool {
        let eighths = [0, 1, 2, 4][(self.draw(2, (0, 0)) % 4) as usize];
        self.draw(3, pair) % 8 < eighths
    }

    /// SplitMix64 (Steele, Lea & Flood 2014) of the seed, what is drawn, and for which pair.
    fn draw(self, what: u64, (a, b): (u32, u32)) -> u64 {
        let mut x = self.seed;
        for word in [what, u64::from(a), u64::from(b)] {
            x = mix(x.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(word));
        }
        x
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::CostModel;
    use crate::fuse::decision::{Outcome, Reason};
    use crate::fuse::fuse;
    use crate::text::{parse, print};
    use std::collections::BTreeSet;

    const CHAIN: &str = "graph @g(%x: f32[64], %y: f32[64]) -> (f32[64]) {
  %2 = mul %x, %y
  %3 = tanh %2
  %4 = add %3, %x
  %5 = sin %4
  %6 = mul %5, %3
  return z = %6
}";

    #[test]
    fn seeds_give_different_kernels_and_each_the_same_again() {
        let of = |seed| {
            let mut g = parse(CHAIN, "chain").unwrap();
            let (log, _) = fuse(&mut g, &CostModel::default(), true, Some(Shuffle { seed }));
            let refused = |o: Outcome| o == Outcome::Refused(Reason::Shuffled);
            (print(&g), log.decisions.iter().any(|d| refused(d.outcome)))
        };
        let found: BTreeSet<(String, bool)> = (0..64).map(of).collect();
        assert_eq!(found, (0..64).map(of).collect());
        assert!(found.len() > 3, "{} different results", found.len());
        assert!(found.iter().any(|f| f.1) && found.iter().any(|f| !f.1));
    }
}
