//! The options around passes that `isoflop opt` and `isoflop compile` have in common, and what they print.
//!
//! Results go to standard output; dumps, counts and times go to standard error.

use crate::cli::Format;
use crate::output;
use isoflop_compiler::passes::pipeline::{Options, Sink, Trace};
use isoflop_compiler::passes::{self, PIPELINE};
use miette::IntoDiagnostic;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(next_help_heading = "Passes")]
pub struct Flags {
    /// Print the graph after this pass, on standard error; NAME:2 is the second pass of the name
    #[arg(long, value_name = "PASS")]
    print_after: Vec<String>,
    /// Print the graph after every pass, on standard error
    #[arg(long)]
    print_after_all: bool,
    /// Leave this pass out
    #[arg(long, value_name = "PASS")]
    disable_pass: Vec<String>,
    /// Run nothing after this pass and print the graph
    #[arg(long, value_name = "PASS")]
    pub stop_after: Option<String>,
    /// Verify the graph after every pass
    #[arg(long)]
    verify: bool,
    /// Print what each pass changed, on standard error
    #[arg(long)]
    stats: bool,
    /// Print what each pass took and changed, on standard error
    #[arg(long)]
    pub time_passes: bool,
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

impl Flags {
    /// Is anything asked for that an artifact made before could not show?
    pub fn any(&self) -> bool {
        let named = self.print_after.len() + self.disable_pass.len();
        named > 0
            || self.stop_after.is_some()
            || self.print_after_all
            || self.verify
            || self.stats
            || self.time_passes
    }

    pub fn options(&self, resume_from: Option<String>) -> Options {
        let defaults = Options::default();
        Options {
            print_after_all: self.print_after_all,
            print_after: self.print_after.clone(),
            dumps: Sink(Arc::new(|text| output::note(text.trim_end()))),
            verify: self.verify || defaults.verify,
            disable: self.disable_pass.clone(),
            stop_after: self.stop_after.clone(),
            resume_from,
            clock: self.time_passes.then_some(since_start as fn() -> Duration),
        }
    }

    /// Prints what was asked for about passes that have run.
    pub fn report(&self, traces: &[Trace], format: Format) -> miette::Result<()> {
        if self.stats {
            for trace in traces {
                let lines = trace.to_string().lines().map(|l| format!("// {l}\n")).collect::<String>();
                output::note(format!("// graph @{}\n{lines}", trace.graph).trim_end());
            }
        }
        if self.time_passes && format == Format::Json {
            let all: Vec<Value> = traces.iter().map(as_json).collect();
            output::note(&serde_json::to_string_pretty(&all).into_diagnostic()?);
        } else if self.time_passes {
            traces.iter().for_each(|t| output::note(&as_table(t)));
        }
        Ok(())
    }
}

fn micros(t: Option<Duration>) -> f64 {
    t.unwrap_or_default().as_secs_f64() * 1e6
}

fn total(trace: &Trace) -> f64 {
    trace.steps.iter().map(|s| micros(s.time)).sum()
}

/// A list of changes in lines of at most 60 characters, so that the table fits a terminal.
fn in_lines(changes: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for change in changes.split(", ") {
        match lines.last_mut().filter(|line| line.len() + change.len() < 60) {
            Some(line) => *line = format!("{line}, {change}"),
            None => lines.push(change.to_owned()),
        }
    }
    lines.join(",\n")
}

fn as_table(trace: &Trace) -> String {
    let total = total(trace);
    let mut table = output::table(&["pass", "changed", "time", "share", "nodes before", "after"], 2);
    for step in &trace.steps {
        let (time, (before, after)) = (micros(step.time), step.nodes());
        table.add_row([
            step.pass.to_owned(),
            in_lines(&step.changes_text()),
            format!("{time:.0} us"),
            format!("{:.1} %", 100.0 * time / total.max(1e-9)),
            before.to_string(),
            after.to_string(),
        ]);
    }
    format!("graph @{}: {total:.0} us in passes\n{table}", trace.graph)
}

fn as_json(trace: &Trace) -> Value {
    let total = total(trace);
    let passes = trace.steps.iter().map(|step| {
        let (time, (before, after)) = (micros(step.time), step.nodes());
        let changes: serde_json::Map<String, Value> =
            step.changes().into_iter().map(|(op, a, b)| (op.to_owned(), json!([a, b]))).collect();
        json!({
            "pass": step.pass,
            "us": time,
            "share": time / total.max(1e-9),
            "nodes_before": before,
            "nodes_after": after,
            "changes": changes,
        })
    });
    json!({ "graph": trace.graph, "us": total, "passes": passes.collect::<Vec<_>>() })
}

/// Prints the registry: every pass, and where the pipeline of models runs it.
pub fn list(format: Format) -> miette::Result<()> {
    let places = |name: &str| -> Vec<usize> {
        PIPELINE.iter().enumerate().filter(|(_, p)| **p == name).map(|(k, _)| k + 1).collect()
    };
    if format == Format::Json {
        let all: Vec<Value> = passes::all()
            .iter()
            .map(|p| {
                json!({
                    "name": p.name,
                    "description": p.description,
                    "changes_rounding": p.changes_rounding,
                    "places_in_default": places(p.name),
                })
            })
            .collect();
        return output::json(&all);
    }
    let mut table = output::table(&["pass", "what it does", "may change rounding", "place in default"], 4);
    for p in passes::all() {
        let places: Vec<String> = places(p.name).iter().map(usize::to_string).collect();
        let rounding = if p.changes_rounding { "yes" } else { "" };
        table.add_row([p.name, p.description, rounding, &places.join(", ")]);
    }
    output::line(&table.to_string())
}
