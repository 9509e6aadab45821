//! Which models `isoflop kernels` is about: sizes of the families that come with the program, sweep files, model files.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_sweeps::family::FamilyName;
use isoflop_sweeps::{compile, file, plan};
use miette::miette;
use std::path::{Path, PathBuf};

/// Sequences of a step where nothing says how many.
const BATCH: usize = 8;

/// A model with its step, and what to call it.
pub struct Job {
    pub name: String,
    /// As `--size` names it.
    size: String,
    pub model: ModelConfig,
    pub step: StepConfig,
}

#[derive(clap::Args)]
pub struct Selection {
    /// Only these sizes, separated by commas: of the files, or without files of the Gopher and nano families
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    size: Vec<String>,
    /// Sequences of a step for sizes without a file and for model files [default: as published, else 8]
    #[arg(long)]
    batch: Option<usize>,
    /// Choose what to fuse by the costs of this device: cpu, a100-40g, a100-80g, h100-sxm, h200, v100, or a TOML file
    /// [default: the built-in cpu]
    #[arg(long)]
    pub device: Option<String>,
    /// Compile the kernels too, and note how many instructions each has, of what sort, and how many bytes of code
    #[arg(long)]
    pub code: bool,
    /// CPU to compile them for: native, x86-64, x86-64-v2, x86-64-v3, x86-64-v4 or aarch64
    #[arg(long, value_name = "CPU", default_value = "native", requires = "code")]
    pub target: String,
}

impl Selection {
    /// Is anything asked for?
    pub fn any(&self) -> bool {
        !self.size.is_empty() || self.batch.is_some() || self.device.is_some() || self.code
    }

    /// The same as arguments for another isoflop.
    pub fn arguments(&self) -> Vec<String> {
        let mut out = Vec::new();
        if !self.size.is_empty() {
            out.extend(["--size".to_owned(), self.size.join(",")]);
        }
        if let Some(batch) = self.batch {
            out.extend(["--batch".to_owned(), batch.to_string()]);
        }
        if let Some(device) = &self.device {
            out.extend(["--device".to_owned(), device.clone()]);
        }
        if self.code {
            out.extend(["--code", "--target", &self.target].map(str::to_owned));
        }
        out
    }

    /// The different models and steps of `files`, or of the families where there are none.
    pub fn jobs(&self, files: &[PathBuf]) -> miette::Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for path in files {
            jobs.extend(self.of_file(path)?);
        }
        if files.is_empty() {
            jobs.extend(FamilyName::ALL.into_iter().flat_map(|family| self.of_family(family)));
        }
        let names: Vec<String> = jobs.iter().map(|j| j.size.clone()).collect();
        if let Some(unknown) = self.size.iter().find(|s| !names.contains(s)) {
            let hint =
                file::nearest(unknown, &names).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            let mut known = names;
            known.dedup();
            return Err(miette!("there is no size `{unknown}`{hint} There are: {}", known.join(", ")));
        }
        jobs.retain(|j| self.size.is_empty() || self.size.contains(&j.size));
        Ok(jobs)
    }

    fn of_family(&self, family: FamilyName) -> Vec<Job> {
        let base = family.base();
        let sizes = family.sizes(&base).into_iter();
        let job = sizes.map(|size| {
            let published = size.published.map(|p| p.batch_tokens as usize / base.seq_len);
            Job {
                name: format!("{}-{}", family.name(), size.name),
                size: size.name,
                model: size.model,
                step: StepConfig::new(self.batch.or(published).unwrap_or(BATCH)),
            }
        });
        job.collect()
    }

    fn of_file(&self, path: &Path) -> miette::Result<Vec<Job>> {
        if let Some(model) = file::read_model(path)? {
            let size = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let step = StepConfig::new(self.batch.unwrap_or(BATCH));
            return Ok(vec![Job { name: size.clone(), size, model, step }]);
        }
        let sweep = file::read(path)?;
        let plan = plan::plan(&sweep).map_err(|e| miette!("{}: {e}", path.display()))?;
        let steps = compile::steps(&plan.runs).distinct.into_iter();
        let job = steps.map(|run| Job {
            name: format!("{}-{}", plan.sweep, run.size),
            size: run.size.clone(),
            model: run.model.clone(),
            step: run.step(),
        });
        Ok(job.collect())
    }
}
