//! What `isoflop opt FILE.graph --passes a,b,c` does: graphs in, passes over each, text out.

use crate::passes::pipeline::{self, Options, PipelineError};
use crate::text::{ParseError, parse_all, print};
use crate::verify::verify;
use std::fmt::Write;

#[derive(Debug, thiserror::Error)]
pub enum OptError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("{file}: no graph in this file; it must hold one or more `graph @name(...) -> (...) {{ ... }}`")]
    Empty { file: String },
    #[error("{file}: {source}")]
    Pipeline {
        file: String,
        #[source]
        source: PipelineError,
    },
}

/// Runs `passes` (names separated by commas; none only checks and prints) on every graph of `text`.
///
/// The answer is text in the same form: the graphs after the last pass. What the passes did, and the dumps that were
/// asked for, stand before each as comments and graphs, so the answer parses too. `file` is for messages.
pub fn opt(text: &str, file: &str, passes: &str, options: &Options) -> Result<String, OptError> {
    let failed = |source| OptError::Pipeline { file: file.to_string(), source };
    let passes = pipeline::parse_list(passes).map_err(failed)?;
    let mut graphs = parse_all(text, file)?;
    if graphs.is_empty() {
        return Err(OptError::Empty { file: file.to_string() });
    }
    let mut out = String::new();
    for g in &mut graphs {
        verify(g).map_err(|problems| {
            failed(PipelineError::NotWellFormed { graph: g.name.clone(), when: "as read".into(), problems })
        })?;
        let trace = pipeline::run(g, &passes, options).map_err(failed)?;
        for step in &trace.steps {
            let _ = writeln!(out, "// {step}");
            out.push_str(step.dump.as_deref().unwrap_or(""));
        }
        let last_is_shown = trace.steps.last().is_some_and(|s| s.dump.is_some());
        if !last_is_shown {
            out.push_str(&print(g));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "graph @g(%x: f32[2]) -> (f32[2]) {
        %1 = neg %x : f32[2]
        %2 = neg %1 : f32[2]
        %3 = exp %x : f32[2]
        %4 = add %2, %3 : f32[2]
        return y = %4
    }";

    #[test]
    fn answers_with_comments_and_a_graph_that_parses() {
        let options = Options { clock: Some(|| std::time::Duration::ZERO), ..Options::default() };
        let out = opt(TEXT, "f", "simplify,cse", &options).unwrap();
        let expected = "\
// simplify: 5 -> 3 nodes (neg 2 -> 0) in 0 us
// cse: 3 -> 3 nodes in 0 us
graph @g(%x: f32[2]) -> (f32[2]) {
  %3 = exp %x : f32[2]
  %4 = add %x, %3 : f32[2]
  return y = %4
}
";
        assert_eq!(out, expected);
        assert_eq!(
            opt(&out, "f", "", &options).unwrap(),
            expected.split_once("us\ng").map(|(_, g)| format!("g{g}")).unwrap()
        );
    }

    #[test]
    fn dumps_after_every_pass() {
        let options = Options { print_after_all: true, stop_after: Some("cse".into()), ..Options::default() };
        let out = opt(TEXT, "f", "simplify,cse,dce", &options).unwrap();
        assert_eq!(parse_all(&out, "out").unwrap().len(), 2, "{out}");
        let disabled = Options { disable: vec!["simplify".into()], ..Options::default() };
        assert!(opt(TEXT, "f", "simplify", &disabled).unwrap().contains("neg"));
    }

    #[test]
    fn errors_name_what_is_there() {
        let message =
            |text, passes: &str, options: &Options| opt(text, "f", passes, options).unwrap_err().to_string();
        let plain = Options::default();
        assert_eq!(message(TEXT, "simplfy", &plain), "f: unknown pass `simplfy`; did you mean `simplify`?");
        assert!(message(TEXT, "?", &plain).contains("one of simplify, fold, cse, dce"));
        assert!(message("", "cse", &plain).starts_with("f: no graph in this file"));
        assert!(message("graph", "cse", &plain).starts_with("f:1:6: expected the graph's name"));
        let stop = Options { stop_after: Some("dce".into()), ..Options::default() };
        assert_eq!(message(TEXT, "cse", &stop), "f: `dce` is not among the passes of this pipeline: cse");
        let unequal = "graph @g(%x: f32[2] {role=state, init=ones}) -> (f32[]) { %1 = reduce_sum %x {axes=[0]} return x = %1 }";
        assert_eq!(
            message(unequal, "cse", &plain),
            "f: graph g is not well formed as read:\n  output x is the next value of a state of type f32[2], but has type f32[]"
        );
    }
}
