//! The runs of `kind = "list"`: sizes looked up, token counts and seeds checked, no run there twice.

use super::ListedRun;
use super::error::Source;
use super::resolve::{Checked, LARGEST_COUNT, no_repeats, not_empty};
use super::schema::RunTable;
use crate::family::Size;
use serde_spanned::Spanned;
use std::collections::HashSet;

/// The sizes that the runs name, each once, in the order of the runs.
pub(super) fn sizes(source: &Source<'_>, runs: &[Spanned<RunTable>], family: &[Size]) -> Checked<Vec<Size>> {
    let mut sizes: Vec<Size> = Vec::new();
    for run in runs {
        let name = &run.get_ref().size;
        let found = family.iter().find(|s| s.name == *name.get_ref()).ok_or_else(|| {
            let known: Vec<String> = family.iter().map(|s| s.name.clone()).collect();
            source.bad_name(name.span(), "plan.run.size", "size of this family", name.get_ref(), &known)
        })?;
        if !sizes.contains(found) {
            sizes.push(found.clone());
        }
    }
    Ok(sizes)
}

/// The runs, with places among `sizes`; those without seeds have the sweep's.
pub(super) fn listed(
    source: &Source<'_>,
    runs: &[Spanned<RunTable>],
    sizes: &[Size],
    seeds: &[u64],
) -> Checked<Vec<ListedRun>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for run in runs {
        let RunTable { size, tokens, seeds: own } = run.get_ref();
        let count = *tokens.get_ref();
        if !(1.0..=LARGEST_COUNT).contains(&count) {
            let allowed = "a number of tokens from 1, such as 2.4e9";
            return Err(source.bad_value(tokens.span(), "plan.run.tokens", count, allowed));
        }
        if let Some(own) = own {
            not_empty(source, "plan.run.seeds", own)?;
            no_repeats(source, "plan.run.seeds", own)?;
        }
        let seeds = own.as_ref().map_or_else(|| seeds.to_vec(), |s| s.get_ref().clone());
        let name = size.get_ref();
        if let Some(seed) = seeds.iter().find(|seed| !seen.insert((name, count.to_bits(), **seed))) {
            let message = format!("size `{name}` with {count:e} tokens and seed {seed} is there twice");
            let help = "a repeat needs a seed of its own: seeds = [1]".to_owned();
            return Err(source.error(run.span(), "plan.run", message, help));
        }
        if let Some(place) = sizes.iter().position(|s| s.name == *name) {
            found.push(ListedRun { size: place, tokens: count, seeds });
        }
    }
    Ok(found)
}
