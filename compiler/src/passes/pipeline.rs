//! Runs passes one after another, and records what each did: nodes by operation before and after, time, a dump.

use super::{Pass, all, by_name};
use crate::graph::Graph;
use crate::text::{nearest, print};
use crate::verify::{Problem, verify};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What to do around the passes. The default runs them all, verifies after each in debug builds, and keeps no dumps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keep a dump after every pass.
    pub print_after_all: bool,
    /// Keep a dump after these.
    pub print_after: Vec<String>,
    /// Verify the graph before the first pass and after each.
    pub verify: bool,
    /// Leave these out.
    pub disable: Vec<String>,
    /// Run nothing after this pass.
    pub stop_after: Option<String>,
    /// Time since any fixed moment. The compiler has no clock of its own: without one no time is recorded.
    pub clock: Option<fn() -> Duration>,
}

// `verify` differs between builds, which the lint does not see.
#[allow(clippy::derivable_impls)]
impl Default for Options {
    fn default() -> Self {
        Options {
            print_after_all: false,
            print_after: vec![],
            verify: cfg!(debug_assertions),
            disable: vec![],
            stop_after: None,
            clock: None,
        }
    }
}

/// Nodes by mnemonic.
pub type Counts = BTreeMap<&'static str, usize>;

/// What one pass did.
#[derive(Clone, Debug)]
pub struct Step {
    pub pass: &'static str,
    pub before: Counts,
    pub after: Counts,
    pub time: Option<Duration>,
    /// The graph after the pass, if it was asked for.
    pub dump: Option<String>,
}

/// What a pipeline did, a step for each pass that ran.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub steps: Vec<Step>,
}

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("unknown pass `{name}`; {hint}")]
    UnknownPass { name: String, hint: String },
    #[error("`{name}` is not among the passes of this pipeline: {passes}")]
    NotInPipeline { name: String, passes: String },
    #[error("graph {graph} is not well formed {when}:{}", list(.problems))]
    NotWellFormed { graph: String, when: String, problems: Vec<Problem> },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}

/// The pass of this name, or an error that says which there are.
pub fn find(name: &str) -> Result<&'static Pass, PipelineError> {
    by_name(name).ok_or_else(|| {
        let names = || all().iter().map(|p| p.name);
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", names().collect::<Vec<_>>().join(", ")),
        };
        PipelineError::UnknownPass { name: name.into(), hint }
    })
}

/// Passes separated by commas, as on the command line. Blank text is no passes.
pub fn parse_list(list: &str) -> Result<Vec<&'static Pass>, PipelineError> {
    list.split(',').map(str::trim).filter(|s| !s.is_empty()).map(find).collect()
}

/// Runs `passes` in order on `graph`.
pub fn run(graph: &mut Graph, passes: &[&Pass], options: &Options) -> Result<Trace, PipelineError> {
    for name in options.disable.iter().chain(&options.print_after) {
        find(name)?;
    }
    if let Some(name) = &options.stop_after
        && !passes.iter().any(|p| p.name == name)
    {
        find(name)?;
        let passes = passes.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        return Err(PipelineError::NotInPipeline { name: name.clone(), passes });
    }
    check(graph, options, || "before the first pass".into())?;
    let mut trace = Trace::default();
    for pass in passes {
        if !options.disable.iter().any(|d| d == pass.name) {
            let before = graph.op_counts();
            let start = options.clock.map(|now| now());
            (pass.run)(graph);
            let time = options.clock.zip(start).map(|(now, start)| now().saturating_sub(start));
            check(graph, options, || format!("after {}", pass.name))?;
            let wanted = options.print_after_all || options.print_after.iter().any(|p| p == pass.name);
            let dump = wanted.then(|| print(graph));
            trace.steps.push(Step { pass: pass.name, before, after: graph.op_counts(), time, dump });
        }
        if options.stop_after.as_deref() == Some(pass.name) {
            break;
        }
    }
    Ok(trace)
}

fn check(graph: &Graph, options: &Options, when: impl Fn() -> String) -> Result<(), PipelineError> {
    if !options.verify {
        return Ok(());
    }
    let graph_name = || graph.name.clone();
    verify(graph).map_err(|problems| PipelineError::NotWellFormed {
        graph: graph_name(),
        when: when(),
        problems,
    })
}

impl Step {
    /// Operations whose number changed, with before and after.
    pub fn changes(&self) -> Vec<(&'static str, usize, usize)> {
        let mut names: Vec<&'static str> = self.before.keys().chain(self.after.keys()).copied().collect();
        names.sort_unstable();
        names.dedup();
        let count = |c: &Counts, n| c.get(n).copied().unwrap_or(0);
        names
            .into_iter()
            .map(|n| (n, count(&self.before, n), count(&self.after, n)))
            .filter(|(_, a, b)| a != b)
            .collect()
    }
}

/// `simplify: 12 -> 9 nodes (mul 3 -> 1, neg 1 -> 0) in 120 us`
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = |c: &Counts| c.values().sum::<usize>();
        write!(f, "{}: {} -> {} nodes", self.pass, total(&self.before), total(&self.after))?;
        let changes: Vec<String> = self.changes().iter().map(|(n, a, b)| format!("{n} {a} -> {b}")).collect();
        if !changes.is_empty() {
            write!(f, " ({})", changes.join(", "))?;
        }
        match self.time {
            Some(t) => write!(f, " in {} us", t.as_micros()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|s| writeln!(f, "{s}"))
    }
}
