//! The text of a kernel with the names that the same values have in another kernel, so that a difference of the two
//! shows what is computed otherwise and not what is numbered otherwise.

use super::matching::masked;
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

/// `after`, in which every value that `before` has too is called as there.
pub fn named_as(before: &[String], after: &[String]) -> Vec<String> {
    let (a, b) = (Text::of(before), Text::of(after));
    let lines = aligned(&a, &b);
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for &(x, y) in &lines {
        if let (Some(old), Some(new)) = (a.lines[x].defines, b.lines[y].defines) {
            names.insert(new, old);
        }
    }
    operands(&a, &b, &lines, &mut names);
    // What only `after` has keeps its name where `before` does not use it, and else gets a free one.
    let mut taken: BTreeSet<String> = a.names().map(str::to_owned).collect();
    let mut fresh: BTreeMap<&str, String> = BTreeMap::new();
    for name in b.names() {
        if names.contains_key(name) || fresh.contains_key(name) {
            continue;
        }
        let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let mut free = name.to_owned();
        let mut number = 0;
        while !taken.insert(free.clone()) {
            free = format!("{word}{number}");
            number += 1;
        }
        fresh.insert(name, free);
    }
    let new_name = |name: &str| {
        let old = names.get(name).copied().or_else(|| fresh.get(name).map(String::as_str));
        old.unwrap_or(name).to_owned()
    };
    let mut renamed: Vec<String> = after.iter().map(|line| with_names(line, new_name)).collect();
    in_order_of_inputs(&mut renamed);
    renamed
}

/// Inputs are declared in the order of their new names.
fn in_order_of_inputs(lines: &mut [String]) {
    let number = |line: &str| line.strip_prefix("in")?.split_once(": ")?.0.parse::<usize>().ok();
    let is_input = |line: &String| number(line).is_some();
    let Some(first) = lines.iter().position(is_input) else { return };
    let count = lines[first..].iter().take_while(|line| is_input(line)).count();
    lines[first..first + count].sort_by_key(|line| number(line));
}

/// A line with every name replaced.
pub fn with_names(line: &str, mut new_name: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(line.len());
    let mut end = 0;
    for name in names(line) {
        let start = name.as_ptr() as usize - line.as_ptr() as usize;
        out.push_str(&line[end..start]);
        out.push_str(&new_name(name));
        end = start + name.len();
    }
    out + &line[end..]
}

/// The names in a line: `%mul0`, `%row`, and inputs such as `in0`.
pub fn names(line: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '%';
    line.split(move |c| !word(c)).filter(|w| {
        let input =
            w.strip_prefix("in").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        input || (w.len() > 1 && w.starts_with('%'))
    })
}

struct Line<'t> {
    /// The name that stands before ` = ` or `: ` at its beginning.
    defines: Option<&'t str>,
    /// Names after that.
    uses: Vec<&'t str>,
    /// What the line computes, down to the inputs, whatever anything is called.
    key: u64,
    /// What becomes of it, up to the results.
    purpose: u64,
    /// The line without numbers.
    shape: String,
}

struct Text<'t> {
    lines: Vec<Line<'t>>,
}

impl<'t> Text<'t> {
    fn of(text: &'t [String]) -> Text<'t> {
        let mut keys: HashMap<&str, u64> = HashMap::new();
        let lines = text.iter().map(|line| {
            let trimmed = line.trim_start();
            let first = names(trimmed).next().filter(|n| trimmed.starts_with(n));
            let defines =
                first.filter(|n| trimmed[n.len()..].starts_with([' ', ':']) && trimmed.contains([':', '=']));
            let uses: Vec<&str> = names(trimmed).skip(usize::from(defines.is_some())).collect();
            let exact =
                with_names(trimmed, |name| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned());
            let shape = masked(&exact);
            let mut hasher = DefaultHasher::new();
            exact.hash(&mut hasher);
            uses.iter().for_each(|name| keys.get(name).hash(&mut hasher));
            let key = hasher.finish();
            keys.extend(defines.map(|name| (name, key)));
            Line { defines, uses, key, purpose: 0, shape }
        });
        let mut lines: Vec<Line> = lines.collect();
        let mut purposes: HashMap<&str, DefaultHasher> = HashMap::new();
        for line in lines.iter_mut().rev() {
            let users = line.defines.and_then(|name| purposes.get(name));
            let mut own = users.cloned().unwrap_or_default();
            line.shape.hash(&mut own);
            line.purpose = own.finish();
            for (place, name) in line.uses.iter().enumerate() {
                (place, line.purpose).hash(purposes.entry(name).or_default());
            }
        }
        Text { lines }
    }

    fn names(&self) -> impl Iterator<Item = &'t str> {
        self.lines.iter().flat_map(|l| l.defines.into_iter().chain(l.uses.iter().copied()))
    }
}

/// Pairs of lines that correspond, each found in their order: those that compute the same for the same purpose, those
/// that compute the same, those with the same purpose, then those of one shape.
fn aligned(a: &Text, b: &Text) -> Vec<(usize, usize)> {
    // Inputs say nothing by themselves: their uses tell which is which.
    let computes = |l: &Line| l.defines.is_none_or(|name| name.starts_with('%'));
    let mut pairs = Vec::new();
    let open = |t: &Text, taken: &BTreeSet<usize>| -> Vec<usize> {
        (0..t.lines.len()).filter(|&i| computes(&t.lines[i]) && !taken.contains(&i)).collect()
    };
    let (mut taken_a, mut taken_b) = (BTreeSet::new(), BTreeSet::new());
    let words: [fn(&Line) -> String; 4] = [
        |l| format!("{} {}", l.key, l.purpose),
        |l| l.key.to_string(),
        |l| l.purpose.to_string(),
        |l| l.shape.clone(),
    ];
    for word in words {
        let (of_a, of_b) = (open(a, &taken_a), open(b, &taken_b));
        let words_a: Vec<String> = of_a.iter().map(|&i| word(&a.lines[i])).collect();
        let words_b: Vec<String> = of_b.iter().map(|&i| word(&b.lines[i])).collect();
        for op in capture_diff_slices(Algorithm::Myers, &words_a, &words_b) {
            let DiffOp::Equal { old_index, new_index, len } = op else { continue };
            for k in 0..len {
                let (x, y) = (of_a[old_index + k], of_b[new_index + k]);
                taken_a.insert(x);
                taken_b.insert(y);
                pairs.push((x, y));
            }
        }
    }
    pairs
}

/// Names that no line defines, or that are inputs, correspond where lines that correspond use them in one place.
fn operands<'t>(
    a: &Text<'t>,
    b: &Text<'t>,
    lines: &[(usize, usize)],
    names: &mut BTreeMap<&'t str, &'t str>,
) {
    let mut votes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for &(x, y) in lines {
        for (&old, &new) in a.lines[x].uses.iter().zip(&b.lines[y].uses) {
            if !names.contains_key(new) {
                *votes.entry((new, old)).or_default() += 1;
            }
        }
    }
    let mut taken: BTreeSet<&str> = names.values().copied().collect();
    let mut votes: Vec<((&str, &str), usize)> = votes.into_iter().collect();
    votes.sort_by_key(|&(pair, count)| (std::cmp::Reverse(count), pair));
    for ((new, old), _) in votes {
        let word = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        if !names.contains_key(new) && new[..word(new)] == old[..word(old)] && taken.insert(old) {
            names.insert(new, old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::body;
    use super::*;
    use crate::config::{ModelConfig, StepConfig};
    use crate::driver::plan_program;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(|l| l.trim().to_owned()).collect()
    }

    const BEFORE: &str = "in0: f32
        in1: f32
        in2: f32
        %mul0 = mul in1, in2 : element f32
        %mul1 = mul in0, %mul0 : element f32
        %mul2 = mul %mul1, 0.5 : element f32
        return %mul2 : f32";

    #[test]
    fn an_operation_less_renames_nothing_else() {
        let before = lines(
            "in0: f32
             in1: f32
             in2: f32
             %mul0 = mul in1, in0 : element f32
             %mul1 = mul in2, %mul0 : element f32
             %exp0 = exp %mul1 : element f32
             %mul2 = mul %exp0, 0.5 : element f32
             return %mul2 : f32",
        );
        let after = lines(
            "in0: f32
             in1: f32
             %mul0 = mul in0, in1 : element f32
             %mul1 = mul %mul0, 0.5 : element f32
             return %mul1 : f32",
        );
        let renamed = named_as(&before, &after);
        assert_eq!(
            renamed[2..],
            [
                "%mul0 = mul in1, in0 : element f32",
                "%mul2 = mul %mul0, 0.5 : element f32",
                "return %mul2 : f32"
            ]
        );
    }

    #[test]
    fn an_operation_and_an_input_more_get_names_of_their_own() {
        let after = lines(
            "in0: f32
             in1: f32
             in2: f32
             in3: f32
             %mul0 = mul in0, in3 : element f32
             %mul1 = mul in2, in3 : element f32
             %mul2 = mul in1, %mul1 : element f32
             %mul3 = mul %mul2, 0.5 : element f32
             return %mul0 : f32
             return %mul3 : f32",
        );
        let renamed = named_as(&lines(BEFORE), &after);
        let kept = lines(BEFORE);
        for line in &kept[3..] {
            assert!(renamed.contains(line), "{line} is not in {renamed:#?}");
        }
        assert_eq!(renamed[4], "%mul3 = mul in3, in2 : element f32");
        let defined: BTreeSet<&str> = renamed.iter().filter_map(|l| names(l).next()).collect();
        assert_eq!(defined.len(), 8, "two values have one name: {renamed:#?}");
        assert_eq!(renamed[..4], ["in0: f32", "in1: f32", "in2: f32", "in3: f32"]);
    }

    #[test]
    fn names_stay_apart_whatever_a_kernel_is_compared_with() {
        let config = ModelConfig::gopher(1, 2, 4, 8, 16, 8);
        let plan = plan_program(&config, &StepConfig::new(2)).unwrap();
        let specs = &plan.train.kernels;
        let texts: Vec<Vec<String>> =
            specs.iter().flat_map(|spec| [body::operations(spec), body::mlir(spec)]).collect();
        let different = |text: &[String]| -> usize {
            text.iter().flat_map(|l| names(l)).collect::<BTreeSet<&str>>().len()
        };
        let unnamed = |text: &[String]| -> BTreeSet<String> {
            text.iter().map(|l| with_names(l, |_| "_".to_owned())).collect()
        };
        for before in &texts {
            for after in &texts {
                let renamed = named_as(before, after);
                assert_eq!(different(&renamed), different(after), "{before:#?} {after:#?} {renamed:#?}");
                assert_eq!(unnamed(&renamed), unnamed(after));
            }
        }
    }

    #[test]
    fn equal_texts_stay_as_they_are() {
        assert_eq!(named_as(&lines(BEFORE), &lines(BEFORE)), lines(BEFORE));
    }
}
