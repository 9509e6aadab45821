//! Passes by name: the compiler's own, and those a caller adds while the program runs.

use super::pipeline::PipelineError;
use super::{PIPELINE, Pass, all};
use crate::text::nearest;

/// The name that stands for [`PIPELINE`] in a list of passes.
const DEFAULT: &str = "default";

#[derive(Clone, Debug)]
pub struct Registry {
    passes: Vec<Pass>,
}

impl Default for Registry {
    /// The compiler's own passes.
    fn default() -> Self {
        Registry::with(&[])
    }
}

impl Registry {
    /// The compiler's passes and `extra`. One whose name is there already takes its place.
    pub fn with(extra: &[Pass]) -> Self {
        let mut passes = all().to_vec();
        for pass in extra {
            match passes.iter_mut().find(|p| p.name == pass.name) {
                Some(old) => *old = *pass,
                None => passes.push(*pass),
            }
        }
        Registry { passes }
    }

    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// The pass of this name, or an error that says which there are.
    pub fn find(&self, name: &str) -> Result<Pass, PipelineError> {
        let names = || self.passes.iter().map(|p| p.name).chain([DEFAULT]);
        self.passes.iter().copied().find(|p| p.name == name).ok_or_else(|| {
            let hint = match nearest(name, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("one of {}", names().collect::<Vec<_>>().join(", ")),
            };
            PipelineError::UnknownPass { name: name.into(), hint }
        })
    }

    /// Passes separated by commas, as on the command line; `default` stands for [`PIPELINE`]. Blank text is no passes.
    pub fn parse_list(&self, list: &str) -> Result<Vec<Pass>, PipelineError> {
        let names = list.split(',').map(str::trim).filter(|s| !s.is_empty());
        let names = names.flat_map(|name| match name {
            DEFAULT => PIPELINE.to_vec(),
            name => vec![name],
        });
        names.map(|name| self.find(name)).collect()
    }
}
