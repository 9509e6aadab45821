//! Which kernel of one dump is which of another, where their texts differ: the one that stands at the same labels of
//! the same programs, is alike, and comes in the same order.

use super::dump::{Dump, Kernel};
use super::rename::with_names;
use rustc_hash::FxHashMap;
use similar::TextDiff;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Least similarity of two kernels that are called one; of two kinds, they must have more in common.
const ALIKE: f64 = 0.3;
const ALIKE_OF_TWO_KINDS: f64 = 0.6;

/// Where kernels stand: by program and label, the kernels and their positions among the program's.
type Places<'d> = BTreeMap<(String, &'d str), Vec<(usize, usize)>>;

fn places<'d>(dump: &'d Dump, kernels: &[&Kernel], programs: &BTreeSet<String>) -> Places<'d> {
    let index: FxHashMap<&str, usize> = kernels.iter().enumerate().map(|(i, k)| (k.id.as_str(), i)).collect();
    let mut places: Places = BTreeMap::new();
    for program in dump.programs.iter().filter(|p| programs.contains(&p.name())) {
        for (position, used) in program.kernels.iter().enumerate() {
            let Some(&kernel) = index.get(used.kernel.as_str()) else { continue };
            for label in &used.labels {
                places.entry((program.name(), label)).or_default().push((kernel, position));
            }
        }
    }
    places
}

/// Pairs of indices into `a` and `b`, kernels that only one of the dumps has. Each is in one pair at most.
pub fn pairs(
    before: (&Dump, &[&Kernel]),
    after: (&Dump, &[&Kernel]),
    programs: &BTreeSet<String>,
) -> Vec<(usize, usize)> {
    let (a, b) = (before.1, after.1);
    let (at_a, at_b) = (places(before.0, a, programs), places(after.0, b, programs));
    // Shared places of each pair, and how far apart they stand in their programs.
    let mut shared: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    for (place, of_a) in &at_a {
        for &(x, at_x) in of_a {
            for &(y, at_y) in at_b.get(place).into_iter().flatten() {
                let (count, distance) = shared.entry((x, y)).or_default();
                *count += 1;
                *distance += at_x.abs_diff(at_y);
            }
        }
    }
    let count = |places: &Places, n: usize| -> Vec<usize> {
        let mut counts = vec![0; n];
        places.values().flatten().for_each(|&(kernel, _)| counts[kernel] += 1);
        counts
    };
    let (places_a, places_b) = (count(&at_a, a.len()), count(&at_b, b.len()));
    let unnumbered = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    let text =
        |k: &Kernel| k.body.iter().map(|l| masked(&with_names(l, unnumbered)) + "\n").collect::<String>();
    let (text_a, text_b): (Vec<String>, Vec<String>) =
        (a.iter().map(|k| text(k)).collect(), b.iter().map(|k| text(k)).collect());
    let mut scored: Vec<(f64, usize, usize)> = shared
        .into_iter()
        .filter_map(|((x, y), (count, distance))| {
            let alike = f64::from(TextDiff::from_lines(&text_a[x], &text_b[y]).ratio());
            let same_kind = a[x].kind == b[y].kind;
            let enough = if same_kind { ALIKE } else { ALIKE_OF_TWO_KINDS };
            let together = count as f64 / places_a[x].max(places_b[y]) as f64;
            let apart = (distance as f64 / count as f64).min(10.0) / 100.0;
            (alike >= enough).then_some((alike + together - apart, x, y))
        })
        .collect();
    scored.sort_by(|p, q| q.0.partial_cmp(&p.0).unwrap_or(Ordering::Equal).then((p.1, p.2).cmp(&(q.1, q.2))));
    let (mut free_a, mut free_b) = (vec![true; a.len()], vec![true; b.len()]);
    let mut pairs = Vec::new();
    for (_, x, y) in scored {
        if free_a[x] && free_b[y] {
            (free_a[x], free_b[y]) = (false, false);
            pairs.push((x, y));
        }
    }
    pairs.sort_unstable();
    pairs
}

/// A line with `#` for its numbers. Digits inside names stay.
pub fn masked(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut in_word, mut in_number, mut before) = (false, false, ' ');
    for c in line.chars() {
        let part_of_word = c.is_alphanumeric() || c == '_' || c == '%';
        let in_exponent = before == 'e' && (c == '-' || c == '+');
        before = c;
        if in_number && (part_of_word || c == '.' || in_exponent) {
            continue;
        }
        in_number = c.is_ascii_digit() && !in_word;
        in_word = part_of_word && !in_number;
        out.push(if in_number { '#' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn numbers_are_masked_and_names_are_not() {
        assert_eq!(masked("rows of 128 columns"), "rows of # columns");
        assert_eq!(masked("%mul0 = mul in0, 0.0078125 : f32"), "%mul0 = mul in0, # : f32");
        assert_eq!(masked("div -3.8e-6, %x : 4"), "div -#, %x : #");
        assert_eq!(masked("arith.constant 0x3D2AAAAB : f32"), "arith.constant # : f32");
        assert_eq!(masked("gemm 1x512x64 a[0,64,1]"), "gemm # a[#,#,#]");
        assert_eq!(masked("f32[4,24] memref<1099511627776xbf16>"), "f32[#,#] memref<#>");
    }
}
