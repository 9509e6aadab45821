//! The registry of graph passes. A pass is a function on a graph; timing, dumps, counting and verifying are done around
//! it by [`pipeline`].

pub mod cse;
pub mod pipeline;
pub mod simplify;

use crate::fuse::decision::CostModel;
use crate::graph::Graph;
use crate::lower::product;
use crate::{fuse, matcher, recompute};

/// One rewriting of a graph that keeps what it computes.
pub struct Pass {
    /// As written after `--passes`.
    pub name: &'static str,
    /// One line, for `--help` and for lists.
    pub description: &'static str,
    /// May results differ from the untouched graph's in their last bits?
    pub changes_rounding: bool,
    pub run: fn(&mut Graph),
}

static ALL: &[Pass] = &[
    Pass {
        name: "simplify",
        description: "identities, shape operations that undo each other, constants whose value is exact",
        changes_rounding: false,
        run: simplify::run,
    },
    Pass {
        name: "fold",
        description: "simplify, and constants whose value rounds, merged constant factors and terms, reordered sums",
        changes_rounding: true,
        run: simplify::fold,
    },
    Pass {
        name: "cse",
        description: "nodes that compute the same become one",
        changes_rounding: false,
        run: cse::run,
    },
    Pass {
        name: "dce",
        description: "nodes that no output needs are removed; inputs stay",
        changes_rounding: false,
        run: dce,
    },
    Pass {
        name: "match-attention",
        description: "relative attention and its gradient, written in primitives, become library calls",
        changes_rounding: true,
        run: |g| {
            matcher::match_attention(g);
        },
    },
    Pass {
        name: "recompute",
        description: "cheap forward values are computed again in the backward pass instead of being kept",
        changes_rounding: false,
        run: |g| {
            recompute::recompute(g);
        },
    },
    Pass {
        name: "legalize",
        description: "transposes before dots that no strides describe, broadcasts no single loop follows written out",
        changes_rounding: false,
        run: product::legalize,
    },
    Pass {
        name: "fuse",
        description: "operations become generated kernels, merged where that saves time",
        changes_rounding: false,
        run: |g| {
            fuse::fuse(g, &CostModel::default(), true);
        },
    },
    Pass {
        name: "outline",
        description: "every operation becomes a generated kernel of its own: `fuse` without merging",
        changes_rounding: false,
        run: |g| {
            fuse::fuse(g, &CostModel::default(), false);
        },
    },
];

/// Every pass, in the order lists show them.
pub fn all() -> &'static [Pass] {
    ALL
}

pub fn by_name(name: &str) -> Option<&'static Pass> {
    ALL.iter().find(|p| p.name == name)
}

/// Removes what no output needs.
fn dce(g: &mut Graph) {
    g.remove_dead();
}
