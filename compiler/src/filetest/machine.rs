//! `run cpu`: a graph as a program with machine code, and its outputs beside the interpreter's.

use super::case::Case;
use crate::graph::{Graph, Op, Role};
use crate::interp::Tensor;
use crate::lower::{Lowered, lower};
use crate::text::number;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Outputs by name, as the machine computed them.
pub type Outputs = BTreeMap<String, Vec<f32>>;

/// Outputs with more elements are shown in part.
const SHOWN: usize = 16;

/// A program to compile and run once. Its name and those of its inputs and outputs begin with a prefix of its own, so
/// that one artifact can hold many.
pub struct Job {
    pub lowered: Lowered,
    pub inputs: Vec<JobInput>,
    /// Outputs of the graph; whether each is the next value of a state.
    pub outputs: Vec<(String, bool)>,
    prefix: String,
    truth: BTreeMap<String, Tensor>,
    tolerance: f64,
}

pub struct JobInput {
    pub name: String,
    pub is_state: bool,
    pub value: Tensor,
}

/// The line `// tolerance = 1e-4`; otherwise 1e-5. An error is measured by the larger of 1 and the value.
pub fn tolerance(case: &Case) -> Result<f64, String> {
    match case.settings("tolerance").next() {
        None => Ok(1e-5),
        Some(line) => {
            let value = line.trim_start_matches('=').trim();
            value.parse().map_err(|e| format!("tolerance {value}: {e}"))
        }
    }
}

impl Job {
    /// Lowers a graph that has gone through its passes.
    pub fn new(
        mut g: Graph,
        job: usize,
        given: BTreeMap<String, Tensor>,
        truth: BTreeMap<String, Tensor>,
        tolerance: f64,
    ) -> Result<Job, String> {
        let prefix = format!("job{job}.");
        let mut inputs = vec![];
        for n in g.inputs.clone() {
            let Op::Input { name, role } = &mut g.nodes_mut()[n].op else { continue };
            if matches!(role, Role::Table(_)) {
                return Err(format!("%{name} is a table, which the runtime fills; `run cpu` fills inputs"));
            }
            // The interpreter has run, so every input was given.
            let value = given.get(name.as_str()).cloned().ok_or_else(|| format!("%{name} was not given"))?;
            *name = format!("{prefix}{name}");
            inputs.push(JobInput { name: name.clone(), is_state: matches!(role, Role::State(_)), value });
        }
        for o in &mut g.outputs {
            o.name = format!("{prefix}{}", o.name);
        }
        g.name = format!("{prefix}program");
        let lowered = lower(&g).map_err(|e| e.to_string())?;
        let is_state = |name: &str| inputs.iter().any(|i| i.is_state && i.name == name);
        let outputs = g.outputs.iter().map(|o| (o.name.clone(), is_state(&o.name))).collect();
        Ok(Job { lowered, inputs, outputs, prefix, truth, tolerance })
    }

    /// A message about this job as its case would put it, without the prefix of names.
    pub(super) fn in_short(&self, message: &str) -> String {
        message.replace(&self.prefix, "")
    }

    /// The outputs rounded to five digits, or where they are not what the interpreter computes in f64. Digits are the
    /// interpreter's, which are the same on every machine.
    pub(super) fn judge(&self, found: &Outputs) -> Result<String, String> {
        let mut out = String::new();
        for (name, _) in &self.outputs {
            let short = name.strip_prefix(&self.prefix).unwrap_or(name);
            let (Some(truth), Some(found)) = (self.truth.get(short), found.get(name)) else {
                return Err(format!("{short} was not computed"));
            };
            if truth.data.len() != found.len() {
                return Err(format!("{short} has {} elements, not {}", found.len(), truth.data.len()));
            }
            // What f32 cannot hold is infinite there.
            let truth_f32: Vec<f64> = truth.data.iter().map(|&t| f64::from(t as f32)).collect();
            for (k, (&t, &f)) in truth_f32.iter().zip(found).enumerate() {
                let f = f64::from(f);
                let near = (f - t).abs() <= self.tolerance * t.abs().max(1.0);
                if !(near || f == t || f.is_nan() && t.is_nan()) {
                    return Err(format!("{short}[{k}] is {f} in machine code, {t} in the interpreter"));
                }
            }
            let _ = writeln!(out, "{short}: {} = {}", truth.ty(), shown(&truth_f32));
        }
        Ok(out)
    }
}

fn digits(x: f64) -> String {
    number(format!("{:.4e}", x + 0.0).parse().unwrap_or(x))
}

/// All numbers, or the first and last few and what the others come to.
fn shown(values: &[f64]) -> String {
    let list = |part: &[f64]| part.iter().map(|&x| digits(x)).collect::<Vec<_>>().join(", ");
    if values.len() <= SHOWN {
        return list(values);
    }
    let magnitude = values.iter().map(|x| x.abs()).sum::<f64>() / values.len() as f64;
    let (first, last) = (&values[..6], &values[values.len() - 3..]);
    format!(
        "{}, ..., {} ({} values of mean size {})",
        list(first),
        list(last),
        values.len(),
        digits(magnitude)
    )
}
