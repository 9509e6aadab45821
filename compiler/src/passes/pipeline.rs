//! Runs passes one after another, and records what each did: nodes by operation before and after, time, a dump.
//!
//! Between passes a graph is what parsing its text gives ([`Graph::canonicalize`]), so a pipeline that is resumed from a
//! dump ends with the same graph as one that ran through.

use super::{Context, Pass};
use crate::graph::Graph;
use crate::text::{nearest, print};
use crate::verify::{Problem, verify};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What to do around the passes. The default runs them all, verifies after each in debug builds, and dumps nothing.
///
/// A pass is named as in the registry; where it stands in the pipeline more than once, `dce:2` is the second. Without a
/// number, `disable` and `print_after` mean every such pass, `stop_after` and `resume_from` the first.
#[derive(Clone, Debug)]
pub struct Options {
    /// Dump the graph after every pass.
    pub print_after_all: bool,
    /// Dump the graph after these.
    pub print_after: Vec<String>,
    /// Who is given each dump, as soon as it is made, so that a pass that fails has shown what came before.
    pub dumps: Sink,
    /// Verify the graph before the first pass and after each.
    pub verify: bool,
    /// Leave these out.
    pub disable: Vec<String>,
    /// Run nothing after this pass.
    pub stop_after: Option<String>,
    /// Run nothing before this pass: the graph is one that the passes before have made.
    pub resume_from: Option<String>,
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
            dumps: Sink::default(),
            verify: cfg!(debug_assertions),
            disable: vec![],
            stop_after: None,
            resume_from: None,
            clock: None,
        }
    }
}

/// Takes text. The default drops it.
#[derive(Clone)]
pub struct Sink(pub Arc<dyn Fn(&str) + Send + Sync>);

impl Default for Sink {
    fn default() -> Self {
        Sink(Arc::new(|_| ()))
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
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
}

/// What a pipeline did to one graph, a step for each pass that ran.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub graph: String,
    pub steps: Vec<Step>,
}

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("unknown pass `{name}`; {hint}")]
    UnknownPass { name: String, hint: String },
    #[error("`{name}` is not among the passes of this pipeline: {passes}{hint}")]
    NotInPipeline { name: String, passes: String, hint: String },
    #[error("the pass to stop after, `{stop}`, stands before the pass to resume from, `{resume}`")]
    NothingToRun { stop: String, resume: String },
    #[error("graph {graph} is not well formed {when}:{}", list(.problems))]
    NotWellFormed { graph: String, when: String, problems: Vec<Problem> },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("\n  {p}")).collect()
}

/// Positions in the pipeline of what `name` or `name:2` means; at least one.
fn positions(passes: &[Pass], selector: &str) -> Result<Vec<usize>, PipelineError> {
    let (name, nth) = match selector.split_once(':') {
        Some((name, nth)) => (name, nth.parse::<usize>().ok()),
        None => (selector, None),
    };
    let numbered = selector.contains(':');
    let all: Vec<usize> = (0..passes.len()).filter(|&k| passes[k].name == name).collect();
    let found: Vec<usize> = match (numbered, nth) {
        (false, _) => all,
        (true, nth) => nth.and_then(|n| all.get(n.checked_sub(1)?).copied()).into_iter().collect(),
    };
    if found.is_empty() {
        let near = nearest(name, passes.iter().map(|p| p.name)).filter(|_| !numbered);
        let hint = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        let passes = passes.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        return Err(PipelineError::NotInPipeline { name: selector.into(), passes, hint });
    }
    Ok(found)
}

/// The passes that `options` leave of a pipeline, each with whether to dump after it.
fn chosen(passes: &[Pass], options: &Options) -> Result<Vec<(Pass, bool)>, PipelineError> {
    let every = |names: &[String]| -> Result<Vec<usize>, PipelineError> {
        Ok(names.iter().map(|n| positions(passes, n)).collect::<Result<Vec<_>, _>>()?.concat())
    };
    let first = |name: &Option<String>| match name {
        Some(name) => positions(passes, name).map(|at| at.first().copied()),
        None => Ok(None),
    };
    let (disabled, dumped) = (every(&options.disable)?, every(&options.print_after)?);
    let from = first(&options.resume_from)?.unwrap_or(0);
    let stop = first(&options.stop_after)?.map_or(passes.len(), |k| k + 1);
    if stop <= from
        && let (Some(stop), Some(resume)) = (options.stop_after.clone(), options.resume_from.clone())
    {
        return Err(PipelineError::NothingToRun { stop, resume });
    }
    let kept = (from..stop).filter(|k| !disabled.contains(k));
    Ok(kept.map(|k| (passes[k], options.print_after_all || dumped.contains(&k))).collect())
}

/// Runs `passes` in order on `graph`.
pub fn run(
    graph: &mut Graph,
    passes: &[Pass],
    options: &Options,
    context: &mut Context,
) -> Result<Trace, PipelineError> {
    let chosen = chosen(passes, options)?;
    graph.canonicalize();
    check(graph, options, || "before the first pass".into())?;
    let mut trace = Trace { graph: graph.name.clone(), steps: vec![] };
    let mut before = graph.op_counts();
    for (pass, dump) in chosen {
        let start = options.clock.map(|now| now());
        context.lowered = None;
        (pass.run)(graph, context);
        let time = options.clock.zip(start).map(|(now, start)| now().saturating_sub(start));
        graph.canonicalize();
        let after = graph.op_counts();
        let step = Step { pass: pass.name, before, after: after.clone(), time };
        before = after;
        if dump {
            (options.dumps.0)(&format!("// {step}\n{}", print(graph)));
        }
        check(graph, options, || format!("after {}", pass.name))?;
        trace.steps.push(step);
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

    /// `mul 3 -> 1, neg 1 -> 0`
    pub fn changes_text(&self) -> String {
        let changes: Vec<String> = self.changes().iter().map(|(n, a, b)| format!("{n} {a} -> {b}")).collect();
        changes.join(", ")
    }

    /// Nodes before and after.
    pub fn nodes(&self) -> (usize, usize) {
        (self.before.values().sum(), self.after.values().sum())
    }
}

/// `simplify: 12 -> 9 nodes (mul 3 -> 1, neg 1 -> 0)`
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.nodes();
        write!(f, "{}: {before} -> {after} nodes", self.pass)?;
        match self.changes_text() {
            changes if changes.is_empty() => Ok(()),
            changes => write!(f, " ({changes})"),
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|s| writeln!(f, "{s}"))
    }
}
