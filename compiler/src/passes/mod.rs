//! The registry of graph passes. A pass is a function on a graph; timing, dumps, counting and verifying are done around
//! it by [`pipeline`].

pub mod cse;
pub mod pipeline;
pub mod simplify;

use crate::graph::Graph;

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
        run: simplify::simplify,
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
        run: cse::cse,
    },
    Pass {
        name: "dce",
        description: "nodes that no output needs are removed; inputs stay",
        changes_rounding: false,
        run: dce,
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
