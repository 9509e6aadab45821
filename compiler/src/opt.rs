//! What `isoflop opt FILE.graph --passes a,b,c` does: graphs in, passes over each, text out.

use crate::passes::pipeline::{self, Options, PipelineError, Trace};
use crate::passes::{Context, Registry};
use crate::text::{ParseError, parse_all, print};
use crate::verify::verify;

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

/// The graphs of `text` after `passes`, in the same form, and what each pass did to each graph.
///
/// `passes` are names separated by commas. None only checks and prints; with a pass to resume from, none is `default`,
/// the pipeline of models. `file` is for messages.
pub fn opt(
    registry: &Registry,
    text: &str,
    file: &str,
    passes: &str,
    options: &Options,
) -> Result<(String, Vec<Trace>), OptError> {
    let failed = |source| OptError::Pipeline { file: file.to_string(), source };
    let list = match &options.resume_from {
        Some(_) if passes.trim().is_empty() => "default",
        _ => passes,
    };
    let passes = registry.parse_list(list).map_err(failed)?;
    let mut graphs = parse_all(text, file)?;
    if graphs.is_empty() {
        return Err(OptError::Empty { file: file.to_string() });
    }
    let (mut out, mut traces) = (String::new(), vec![]);
    for g in &mut graphs {
        verify(g).map_err(|problems| {
            failed(PipelineError::NotWellFormed { graph: g.name.clone(), when: "as read".into(), problems })
        })?;
        traces.push(pipeline::run(g, &passes, options, &mut Context::default()).map_err(failed)?);
        out.push_str(&print(g));
    }
    Ok((out, traces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::PIPELINE;
    use crate::passes::pipeline::Sink;
    use std::sync::{Arc, Mutex};

    const TEXT: &str = "graph @g(%x: f32[2]) -> (f32[2]) {
        %1 = neg %x : f32[2]
        %2 = neg %1 : f32[2]
        %3 = exp %x : f32[2]
        %4 = add %2, %3 : f32[2]
        return y = %4
    }";

    fn run(text: &str, passes: &str, options: &Options) -> Result<(String, Vec<Trace>), OptError> {
        opt(&Registry::default(), text, "f", passes, options)
    }

    /// The graph after the passes, and the dumps on the way.
    fn dumped(text: &str, passes: &str, options: Options) -> (String, String) {
        let seen = Arc::new(Mutex::new(String::new()));
        let into = seen.clone();
        let dumps = Sink(Arc::new(move |text| into.lock().unwrap().push_str(text)));
        let (out, _) = run(text, passes, &Options { dumps, ..options }).unwrap();
        let dumps = seen.lock().unwrap().clone();
        (out, dumps)
    }

    #[test]
    fn answers_with_a_graph_that_parses_and_with_what_each_pass_did() {
        let clock: Option<fn() -> std::time::Duration> = Some(|| std::time::Duration::ZERO);
        let (out, traces) = run(TEXT, "simplify,cse", &Options { clock, ..Options::default() }).unwrap();
        let expected = "\
graph @g(%x: f32[2]) -> (f32[2]) {
  %3 = exp %x : f32[2]
  %4 = add %x, %3 : f32[2]
  return y = %4
}
";
        assert_eq!(out, expected);
        assert_eq!(traces[0].to_string(), "simplify: 5 -> 3 nodes (neg 2 -> 0)\ncse: 3 -> 3 nodes\n");
        assert_eq!(traces[0].steps[0].time, Some(std::time::Duration::ZERO));
        assert_eq!(run(&out, "", &Options::default()).unwrap().0, expected);
    }

    #[test]
    fn dumps_after_the_passes_that_were_named() {
        let all = Options { print_after_all: true, stop_after: Some("cse".into()), ..Options::default() };
        let (_, dumps) = dumped(TEXT, "simplify,cse,dce", all);
        assert!(dumps.starts_with("// simplify: 5 -> 3 nodes (neg 2 -> 0)\ngraph @g("), "{dumps}");
        assert_eq!(parse_all(&dumps, "dumps").unwrap().len(), 2, "{dumps}");
        let count = |names: &[&str]| {
            let print_after = names.iter().map(|n| n.to_string()).collect();
            let (_, dumps) = dumped(TEXT, "default", Options { print_after, ..Options::default() });
            parse_all(&dumps, "dumps").unwrap().len()
        };
        assert_eq!(
            [count(&["cse"]), count(&["dce"]), count(&["dce:2"]), count(&["dce:1", "fuse"])],
            [1, 2, 1, 2]
        );
        let disabled = Options { disable: vec!["simplify".into()], ..Options::default() };
        assert!(run(TEXT, "simplify", &disabled).unwrap().0.contains("neg"));
    }

    #[test]
    fn a_resumed_pipeline_runs_what_was_left() {
        let from = |name: &str| Options { resume_from: Some(name.into()), ..Options::default() };
        let names = |passes: &str, options: &Options| -> Vec<&str> {
            run(TEXT, passes, options).unwrap().1[0].steps.iter().map(|s| s.pass).collect()
        };
        let dce: Vec<usize> = (0..PIPELINE.len()).filter(|&k| PIPELINE[k] == "dce").collect();
        assert_eq!(names("", &from("dce")), PIPELINE[dce[0]..]);
        assert_eq!(names("", &from("dce:2")), PIPELINE[dce[1]..]);
        assert_eq!(names("cse,simplify,dce", &from("simplify")), ["simplify", "dce"]);
        let one = Options { stop_after: Some("simplify".into()), ..from("simplify") };
        assert_eq!(names("cse,simplify,dce", &one), ["simplify"]);
    }

    #[test]
    fn errors_name_what_is_there() {
        let message =
            |text, passes: &str, options: &Options| run(text, passes, options).unwrap_err().to_string();
        let plain = Options::default();
        assert_eq!(message(TEXT, "simplfy", &plain), "f: unknown pass `simplfy`; did you mean `simplify`?");
        assert!(message(TEXT, "?", &plain).contains("one of simplify, fold, cse, dce"));
        assert!(message("", "cse", &plain).starts_with("f: no graph in this file"));
        assert!(message("graph", "cse", &plain).starts_with("f:1:6: expected the graph's name"));
        let stop = |name: &str| Options { stop_after: Some(name.into()), ..Options::default() };
        assert_eq!(
            message(TEXT, "cse", &stop("dce")),
            "f: `dce` is not among the passes of this pipeline: cse"
        );
        assert_eq!(
            message(TEXT, "cse", &stop("csee")),
            "f: `csee` is not among the passes of this pipeline: cse; did you mean `cse`?"
        );
        assert_eq!(
            message(TEXT, "cse,dce", &stop("cse:2")),
            "f: `cse:2` is not among the passes of this pipeline: cse, dce"
        );
        let nothing = Options { resume_from: Some("dce".into()), ..stop("cse") };
        assert_eq!(
            message(TEXT, "cse,dce", &nothing),
            "f: the pass to stop after, `cse`, stands before the pass to resume from, `dce`"
        );
        let unequal = "graph @g(%x: f32[2] {role=state, init=ones}) -> (f32[]) { %1 = reduce_sum %x {axes=[0]} return x = %1 }";
        assert_eq!(
            message(unequal, "cse", &plain),
            "f: graph g is not well formed as read:\n  output x is the next value of a state of type f32[2], but has type f32[]"
        );
    }
}
