//! The search for runs: a greedy choice from several starts, then exchanges of one run and of two until none helps.
//! Fedorov 1972; the criterion is the variance of one direction (c-optimality), Pukelsheim 2006, chapter 2.

use crate::fit::law::{Mat5, Vec5};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Up to so many candidates an exchange of two runs tries all pairs; above, those near the runs.
const ALL_PAIRS: usize = 48;
/// Candidates near a run.
const NEAR: usize = 24;
/// Starts that have a given first run, evenly chosen among the candidates: for six runs or fewer, and for more runs, whose
/// exchanges take longer.
const FIRST: usize = 24;
const LEAST_FIRST: usize = 2;
/// Gains below this share of the variance are rounding.
const LEAST_GAIN: f64 = 1e-10;

/// A run that could be made.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Slopes of its log loss over the deviation of its noise: it adds slope slope^T to the precision.
    pub slope: Vec5,
    pub flops: f64,
    /// (ln N, ln D).
    pub place: [f64; 2],
}

/// What is sought: so many candidates, a candidate more than once if need be, of at most `budget` FLOPs in all, that
/// leave the least variance of `direction`.
pub(crate) struct Search<'a> {
    /// Inverse covariance of theta before.
    pub precision: &'a Mat5,
    pub direction: &'a Vec5,
    pub candidates: &'a [Candidate],
    pub budget: f64,
    pub runs: usize,
}

impl Search<'_> {
    /// The best places found among the candidates, in increasing order; none where the budget does not hold so many.
    pub fn best(&self) -> Option<Vec<usize>> {
        let cheapest = self.candidates.iter().map(|c| c.flops).fold(f64::INFINITY, f64::min);
        if self.runs == 0 || !self.holds(cheapest * self.runs as f64) {
            return None;
        }
        // By how much a candidate's price counts, the largest share of the budget for one, and a first run.
        let even = (2.0 / self.runs as f64).min(1.0);
        let plain = [(0.0, 1.0), (0.0, even), (0.5, 1.0), (0.5, even), (1.0, 1.0)];
        let forced = (6 * FIRST / self.runs).clamp(LEAST_FIRST, FIRST);
        let step = self.candidates.len().div_ceil(forced).max(1);
        let first = (0..self.candidates.len()).step_by(step).map(|place| (0.0, 1.0, Some(place)));
        let starts: Vec<_> =
            plain.into_iter().map(|(price, share)| (price, share, None)).chain(first).collect();
        let end = |(price, share, first): (f64, f64, Option<usize>)| {
            let mut design = self.greedy(price, share, first, cheapest)?;
            while self.exchange_one(&mut design) || self.exchange_two(&mut design) {}
            design.sort_unstable();
            Some(design)
        };
        let ends: Vec<Option<Vec<usize>>> = starts.into_par_iter().map(end).collect();
        ends.into_iter().flatten().min_by(|p, q| {
            let of = |design: &[usize]| (self.variance(design), self.flops(design));
            let (p, q) = (of(p), of(q));
            p.0.total_cmp(&q.0).then(p.1.total_cmp(&q.1))
        })
    }

    pub fn flops(&self, design: &[usize]) -> f64 {
        design.iter().map(|&i| self.candidates[i].flops).sum()
    }

    /// Whether the budget holds so many FLOPs, rounding of their sum aside.
    fn holds(&self, flops: f64) -> bool {
        flops <= self.budget * (1.0 + 1e-12)
    }

    /// The variance of the direction once these runs are known.
    pub fn variance(&self, design: &[usize]) -> f64 {
        let inverse = self.covariance(design.iter().copied());
        self.direction.dot(&(inverse * self.direction))
    }

    fn covariance(&self, design: impl Iterator<Item = usize>) -> Mat5 {
        let mut precision = *self.precision;
        for i in design {
            let slope = &self.candidates[i].slope;
            precision += slope * slope.transpose();
        }
        // The precision was positive and has only grown.
        precision.cholesky().map_or_else(|| Mat5::from_element(f64::INFINITY), |c| c.inverse())
    }

    /// One run after the other: the one that takes most variance away for flops^price, leaving room for the rest.
    fn greedy(&self, price: f64, share: f64, first: Option<usize>, cheapest: f64) -> Option<Vec<usize>> {
        let mut design: Vec<usize> = first.into_iter().collect();
        let mut left = self.budget - self.flops(&design);
        while design.len() < self.runs {
            let more = self.runs - 1 - design.len();
            let room = (left - more as f64 * cheapest).min(self.budget * share).max(cheapest);
            let covariance = self.covariance(design.iter().copied());
            let (place, _) = self.most(&covariance, room, price)?;
            left -= self.candidates[place].flops;
            design.push(place);
        }
        self.holds(self.flops(&design)).then_some(design)
    }

    /// The candidate of at most `room` FLOPs that takes most away from the variance, and what it takes; of equal ones
    /// the cheaper.
    fn most(&self, covariance: &Mat5, room: f64, price: f64) -> Option<(usize, f64)> {
        let along = covariance * self.direction;
        let mut best: Option<(usize, f64, f64)> = None;
        for (i, candidate) in self.candidates.iter().enumerate().filter(|(_, c)| c.flops <= room) {
            let spread = 1.0 + candidate.slope.dot(&(covariance * candidate.slope));
            let gain = along.dot(&candidate.slope).powi(2) / spread;
            let worth = gain / candidate.flops.powf(price);
            let better = best.is_none_or(|(b, w, _)| {
                worth > w || worth == w && candidate.flops < self.candidates[b].flops
            });
            if better {
                best = Some((i, worth, gain));
            }
        }
        best.map(|(i, _, gain)| (i, gain))
    }

    /// Replaces the run whose replacement helps most; whether one did.
    fn exchange_one(&self, design: &mut [usize]) -> bool {
        design.sort_unstable();
        let now = self.variance(design);
        let spent = self.flops(design);
        let mut best = (now * (1.0 - LEAST_GAIN), None);
        // Of equal runs one stands for all.
        for i in (0..design.len()).filter(|&i| i == 0 || design[i] != design[i - 1]) {
            let others = design.iter().enumerate().filter(|(k, _)| *k != i).map(|(_, &place)| place);
            let covariance = self.covariance(others);
            let before = self.direction.dot(&(covariance * self.direction));
            let room = self.budget - (spent - self.candidates[design[i]].flops);
            if let Some((place, gain)) = self.most(&covariance, room, 0.0)
                && before - gain < best.0
            {
                best = (before - gain, Some((i, place)));
            }
        }
        let Some((i, place)) = best.1 else { return false };
        design[i] = place;
        true
    }

    /// Replaces the two runs whose replacement helps most, so that FLOPs can go from one to the other; whether any did.
    fn exchange_two(&self, design: &mut [usize]) -> bool {
        let now = self.variance(design);
        let spent = self.flops(design);
        let distinct: HashSet<usize> = design.iter().copied().collect();
        let near: HashMap<usize, Vec<usize>> = distinct.into_iter().map(|p| (p, self.near(p))).collect();
        let mut tried = HashSet::new();
        let mut best = (now * (1.0 - LEAST_GAIN), None);
        for i in 0..design.len() {
            for j in (0..i).filter(|&j| tried.insert((design[i], design[j]))) {
                let others = design.iter().enumerate().filter(|(k, _)| *k != i && *k != j);
                let covariance = self.covariance(others.map(|(_, &place)| place));
                let before = self.direction.dot(&(covariance * self.direction));
                let room = self.budget
                    - (spent - self.candidates[design[i]].flops - self.candidates[design[j]].flops);
                // Each with its slopes seen through the covariance, its own spread and its share of the direction.
                let seen = |places: &[usize]| -> Vec<(usize, Vec5, f64, f64)> {
                    let of = |&place: &usize| {
                        let slope = &self.candidates[place].slope;
                        let through = covariance * slope;
                        (place, through, 1.0 + slope.dot(&through), self.direction.dot(&through))
                    };
                    places.iter().map(of).collect()
                };
                let (first, second) = (seen(&near[&design[i]]), seen(&near[&design[j]]));
                for (p, through, pp, cp) in &first {
                    let left = room - self.candidates[*p].flops;
                    for (q, _, qq, cq) in second.iter().filter(|q| self.candidates[q.0].flops <= left) {
                        // Woodbury for two rows.
                        let pq = through.dot(&self.candidates[*q].slope);
                        let gain = (cp * cp * qq - 2.0 * cp * cq * pq + cq * cq * pp) / (pp * qq - pq * pq);
                        if before - gain < best.0 {
                            best = (before - gain, Some((i, *p, j, *q)));
                        }
                    }
                }
            }
        }
        let Some((i, p, j, q)) = best.1 else { return false };
        design[i] = p;
        design[j] = q;
        true
    }

    /// The candidates near one in (ln N, ln D); all where there are few.
    fn near(&self, place: usize) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.candidates.len()).collect();
        if places.len() > ALL_PAIRS {
            let [x, y] = self.candidates[place].place;
            let distance = |i: usize| {
                let [u, v] = self.candidates[i].place;
                (u - x).powi(2) + (v - y).powi(2)
            };
            places.select_nth_unstable_by(NEAR, |&i, &j| distance(i).total_cmp(&distance(j)).then(i.cmp(&j)));
            places.truncate(NEAR);
            places.sort_unstable();
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// The least variance of all sets of so many candidates within the budget.
    fn by_force(search: &Search<'_>) -> f64 {
        fn extend(search: &Search<'_>, from: usize, design: &mut Vec<usize>, best: &mut f64) {
            if !search.holds(search.flops(design)) {
                return;
            }
            if design.len() == search.runs {
                *best = best.min(search.variance(design));
                return;
            }
            for place in from..search.candidates.len() {
                design.push(place);
                extend(search, place, design, best);
                design.pop();
            }
        }
        let mut best = f64::INFINITY;
        extend(search, 0, &mut Vec::new(), &mut best);
        best
    }

    #[test]
    fn the_search_finds_what_brute_force_finds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut number = |low: f64, high: f64| rng.random_range(low..high);
        for case in 0..100 {
            // Slopes as those of a law: terms that fall with ln N and ln D.
            let candidates: Vec<Candidate> = (0..14)
                .map(|_| {
                    let (x, y) = (number(-3.0, 3.0), number(-3.0, 3.0));
                    let (p, q) = ((-0.34 * x).exp(), (-0.28 * y).exp());
                    let slope = Vec5::new(1.7, p, q, -x * p, -y * q) / (1.7 + p + q) * number(20.0, 200.0);
                    Candidate { slope, flops: (x + y).exp(), place: [x, y] }
                })
                .collect();
            let mut precision = Mat5::identity() * 0.5;
            for _ in 0..6 {
                let row = Vec5::from_fn(|_, _| number(-3.0, 3.0));
                precision += row * row.transpose();
            }
            let direction = Vec5::from_fn(|_, _| number(-1.0, 1.0));
            let runs = 2 + case % 4;
            let budget = number(0.3, 3.0) * runs as f64;
            let search = Search {
                precision: &precision,
                direction: &direction,
                candidates: &candidates,
                budget,
                runs,
            };
            let least = by_force(&search);
            match search.best() {
                None => assert!(least.is_infinite(), "case {case}: a design was missed"),
                Some(design) => {
                    assert!(design.len() == runs && search.holds(search.flops(&design)), "case {case}");
                    let found = search.variance(&design);
                    assert!(found <= least * (1.0 + 1e-9), "case {case}: {found} above {least}");
                }
            }
        }
    }

    #[test]
    fn information_adds_up_and_a_run_of_no_use_changes_nothing() {
        let slope = Vec5::new(1.0, 0.5, 0.25, -2.0, 3.0);
        let candidate = |slope: Vec5| Candidate { slope, flops: 1.0, place: [0.0; 2] };
        let candidates = [candidate(slope), candidate(slope * 2f64.sqrt()), candidate(Vec5::zeros())];
        let direction = Vec5::new(0.0, 1.0, -1.0, 2.0, 1.0);
        let precision = Mat5::from_diagonal(&Vec5::new(1.0, 2.0, 3.0, 4.0, 5.0));
        let search = Search {
            precision: &precision,
            direction: &direction,
            candidates: &candidates,
            budget: 3.0,
            runs: 2,
        };
        // A run twice says as much as one with half the variance.
        let [none, two, one, idle] = [&[][..], &[0, 0], &[1], &[2]].map(|d| search.variance(d));
        assert!((two / one - 1.0).abs() < 1e-12 && two < none);
        assert_eq!(none, idle);
        // By hand: c^T P c - (c^T P j)^2 / (1 + j^T P j), P being the covariance.
        let inverse = precision.try_inverse().unwrap();
        let along = direction.dot(&(inverse * slope));
        let by_hand =
            direction.dot(&(inverse * direction)) - along * along / (1.0 + slope.dot(&(inverse * slope)));
        assert!((search.variance(&[0]) / by_hand - 1.0).abs() < 1e-12);
        assert_eq!(search.best(), Some(vec![1, 1]));
        assert_eq!(Search { budget: 1.5, ..search }.best(), None);
    }
}
