//! The registry of graph passes. A pass is a function on a graph; timing, dumps, counting and verifying are done around
//! it by [`pipeline`].

pub mod cse;
pub mod pipeline;
pub mod registry;
pub mod simplify;

pub use registry::Registry;

use crate::cost::CostModel;
use crate::fuse::FusionLog;
use crate::fuse::shuffle::Shuffle;
use crate::graph::Graph;
use crate::lower::{Lowered, product};
use crate::{fuse, matcher, recompute};

/// One rewriting of a graph that keeps what it computes.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// As written after `--passes`.
    pub name: &'static str,
    /// One line, for lists.
    pub description: &'static str,
    /// May results differ from the untouched graph's in their last bits?
    pub changes_rounding: bool,
    pub run: fn(&mut Graph, &mut Context),
}

/// What a pass may read beside the graph, and what it may leave beside it.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What moving a byte and starting a kernel cost.
    pub cost: CostModel,
    /// Makes `fuse` merge by chance; without it, by what saves time.
    pub shuffle: Option<Shuffle>,
    /// What `fuse` or `outline` decided.
    pub fusion: Option<FusionLog>,
    /// The program of the graph, if the last pass had to make it.
    pub lowered: Option<Lowered>,
}

impl Pass {
    /// Runs the pass alone, with the default context.
    pub fn apply(&self, g: &mut Graph) {
        (self.run)(g, &mut Context::default());
    }
}

/// The passes between the model builder and lowering, in order: what `--passes default` runs.
pub const PIPELINE: [&str; 9] =
    ["match-attention", "match-head", "fold", "cse", "dce", "recompute", "dce", "legalize", "fuse"];

static ALL: &[Pass] = &[
    Pass {
        name: "simplify",
        description: "identities, shape operations that undo each other, constants whose value is exact",
        changes_rounding: false,
        run: |g, _| simplify::run(g),
    },
    Pass {
        name: "fold",
        description: "simplify, and constants whose value rounds, merged constant factors and terms, reordered sums",
        changes_rounding: true,
        run: |g, _| simplify::fold(g),
    },
    Pass {
        name: "cse",
        description: "nodes that compute the same become one",
        changes_rounding: false,
        run: |g, _| cse::run(g),
    },
    Pass {
        name: "dce",
        description: "nodes that no output needs are removed; inputs stay",
        changes_rounding: false,
        run: |g, _| {
            g.remove_dead();
        },
    },
    Pass {
        name: "match-attention",
        description: "relative attention and its gradient, written in primitives, become library calls",
        changes_rounding: true,
        run: |g, _| {
            matcher::match_attention(g);
        },
    },
    Pass {
        name: "match-head",
        description: "the head and its cross entropy, with their gradients, become a library call in chunks of rows",
        changes_rounding: true,
        run: |g, _| {
            matcher::match_head(g);
        },
    },
    Pass {
        name: "recompute",
        description: "cheap forward values are computed again in the backward pass instead of being kept",
        changes_rounding: false,
        run: |g, _| {
            recompute::recompute(g);
        },
    },
    Pass {
        name: "legalize",
        description: "transposes before dots that no strides describe, broadcasts no single loop follows written out",
        changes_rounding: false,
        run: |g, _| product::legalize(g),
    },
    Pass {
        name: "fuse",
        description: "operations become generated kernels, merged where that saves time",
        changes_rounding: false,
        run: |g, context| {
            let (log, lowered) = fuse::fuse(g, &context.cost, true, context.shuffle);
            (context.fusion, context.lowered) = (Some(log), lowered);
        },
    },
    Pass {
        name: "outline",
        description: "every operation becomes a generated kernel of its own: `fuse` without merging",
        changes_rounding: false,
        run: |g, context| context.fusion = Some(fuse::fuse(g, &context.cost, false, None).0),
    },
];

/// Every pass of the compiler, in the order lists show them.
pub fn all() -> &'static [Pass] {
    ALL
}

/// The pass of the compiler that has this name.
pub fn by_name(name: &str) -> Option<&'static Pass> {
    ALL.iter().find(|p| p.name == name)
}
