//! The nearest of known runs in (ln N, ln D): what one would guess of a loss without any law.

/// Known runs, sorted by ln N.
pub(crate) struct Nearest(Vec<Known>);

struct Known {
    x: f64,
    y: f64,
    loss: f64,
    /// Place among the runs given: of equally near ones the first is taken.
    place: usize,
}

impl Nearest {
    /// From parameters, tokens and losses.
    pub fn new(runs: impl Iterator<Item = (f64, f64, f64)>) -> Nearest {
        let known =
            |(place, (n, d, loss)): (usize, (f64, f64, f64))| Known { x: n.ln(), y: d.ln(), loss, place };
        let mut runs: Vec<Known> = runs.enumerate().map(known).collect();
        runs.sort_by(|p, q| p.x.total_cmp(&q.x).then(p.place.cmp(&q.place)));
        Nearest(runs)
    }

    /// The loss of the nearest run; none of no runs.
    pub fn loss(&self, params: f64, tokens: f64) -> Option<f64> {
        let (x, y) = (params.ln(), tokens.ln());
        let middle = self.0.partition_point(|k| k.x < x);
        let mut best: Option<(f64, &Known)> = None;
        // Outwards on either side until ln N alone is further than the best.
        let (below, above) = self.0.split_at(middle);
        let sides: [&mut dyn Iterator<Item = &Known>; 2] = [&mut above.iter(), &mut below.iter().rev()];
        for side in sides {
            for known in side {
                let along = (known.x - x).powi(2);
                if best.is_some_and(|(least, _)| along > least) {
                    break;
                }
                let distance = along + (known.y - y).powi(2);
                let nearer = |(least, k): (f64, &Known)| {
                    distance < least || distance == least && known.place < k.place
                };
                if best.is_none_or(nearer) {
                    best = Some((distance, known));
                }
            }
        }
        best.map(|(_, known)| known.loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_found_as_by_looking_at_all() {
        let value = |i: u64, m: u64| 1e6 * (1.0 + (i * m % 97) as f64);
        let runs: Vec<_> = (0..300).map(|i| (value(i, 31), value(i, 17), i as f64)).collect();
        let nearest = Nearest::new(runs.iter().copied());
        for i in 0..200 {
            let (n, d) = (value(i, 13) * 1.07, value(i, 7) * 0.9);
            let far = |r: &&(f64, f64, f64)| (r.0.ln() - n.ln()).powi(2) + (r.1.ln() - d.ln()).powi(2);
            let wanted = runs.iter().min_by(|p, q| far(p).total_cmp(&far(q))).map(|r| r.2);
            assert_eq!(nearest.loss(n, d), wanted);
        }
        assert_eq!(Nearest::new(std::iter::empty()).loss(1.0, 1.0), None);
    }
}
