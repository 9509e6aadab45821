//! From a model configuration to planned programs, and on to an artifact on disk.
//!
//! Planning is pure Rust and fast: it gives the memory a run needs and the kernels it would call. Code generation
//! (feature `mlir`) fills a cache of objects, one for each kernel, shared by every model that has the same kernel.

use crate::autodiff::AutodiffError;
use crate::config::{ModelConfig, StepConfig};
use crate::fuse::decision::CostModel;
use crate::fuse::{FusionLog, fuse};
use crate::graph::Graph;
use crate::lower::{LowerError, Lowered, lower};
use crate::model;
use crate::passes::pipeline::{self, PipelineError, Trace};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum CompileError {
    #[error("the model cannot be built: {0}")]
    Config(String),
    #[error(transparent)]
    Autodiff(#[from] AutodiffError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[cfg(feature = "mlir")]
    #[error(transparent)]
    Mlir(#[from] crate::mlir::MlirError),
    #[cfg(feature = "mlir")]
    #[error(transparent)]
    Artifact(#[from] isoflop_kernels::artifact::ArtifactError),
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The passes between the model builder and `fuse`, in order.
pub const PIPELINE: [&str; 7] = ["match-attention", "fold", "cse", "dce", "recompute", "dce", "legalize"];

/// How a graph becomes one that `lower` takes.
#[derive(Clone, Debug)]
pub struct OptimizeOptions {
    /// Verifying, dumps and passes left out. `legalize` must stay for graphs with dots that need it.
    pub pipeline: pipeline::Options,
    /// Merge operations into kernels; without it every operation is a kernel of its own.
    pub fuse: bool,
    pub cost: CostModel,
}

impl Default for OptimizeOptions {
    fn default() -> Self {
        OptimizeOptions { pipeline: pipeline::Options::default(), fuse: true, cost: CostModel::default() }
    }
}

/// From what the model builder wrote to a graph that `lower` takes.
pub fn optimize(g: &mut Graph, options: &OptimizeOptions) -> Result<(FusionLog, Trace), PipelineError> {
    let passes = PIPELINE.iter().map(|p| pipeline::find(p)).collect::<Result<Vec<_>, _>>()?;
    let trace = pipeline::run(g, &passes, &options.pipeline)?;
    let log = fuse(g, &options.cost, options.fuse);
    if options.pipeline.verify {
        pipeline::run(g, &[], &options.pipeline)?;
    }
    Ok((log, trace))
}

/// A model's training step and loss as programs, without machine code.
#[derive(Clone, Debug)]
pub struct ProgramPlan {
    /// `train`: one optimiser step.
    pub train: Lowered,
    /// `eval`: the loss of one batch of the same size.
    pub eval: Lowered,
    /// The training graph as lowered.
    pub fused: Graph,
    pub fusion: FusionLog,
}

impl ProgramPlan {
    /// Bytes a process needs for buffers: state, inputs, outputs, tables, and the larger of the two arenas.
    pub fn memory_bytes(&self) -> u64 {
        let train = &self.train.program;
        let eval = &self.eval.program;
        train.total_bytes() + eval.arena_bytes.saturating_sub(train.arena_bytes)
    }
}

/// Plans the training step and the loss of this model.
pub fn plan_program(model: &ModelConfig, step: &StepConfig) -> Result<ProgramPlan, CompileError> {
    model.check().map_err(CompileError::Config)?;
    if step.batch == 0 {
        return Err(CompileError::Config("batch is 0; it must be at least 1".into()));
    }
    let options = OptimizeOptions::default();
    let mut fused = model::training_graph(model, step)?;
    let (fusion, _) = optimize(&mut fused, &options)?;
    let train = lower(&fused)?;
    let mut loss = model::loss_graph(model, step.batch);
    optimize(&mut loss, &options)?;
    let eval = lower(&loss)?;
    Ok(ProgramPlan { train, eval, fused, fusion })
}

#[cfg(feature = "mlir")]
pub use with_mlir::{CompileOptions, Compiled, compile, compile_programs};

#[cfg(feature = "mlir")]
mod with_mlir {
    use super::*;
    use crate::cache::ObjectCache;
    use crate::lower;
    use crate::lower::kernel::KernelSpec;
    use crate::mlir::{self, Target};
    use isoflop_kernels::artifact::Artifact;
    use isoflop_kernels::program::Program;
    use std::path::{Path, PathBuf};

    /// Where things go and for which machine.
    #[derive(Clone, Debug)]
    pub struct CompileOptions {
        pub target: Target,
        /// Artifacts are written to `<artifacts>/<hash>/`.
        pub artifacts: PathBuf,
        /// Objects of kernels, shared by all models and sweeps of this user.
        pub cache: PathBuf,
        pub threads: usize,
    }

    /// An artifact, and what it took to make it.
    #[derive(Clone, Debug)]
    pub struct Compiled {
        pub artifact: Artifact,
        /// Kernels that were compiled now; the others came from the cache.
        pub kernels_compiled: usize,
        pub kernels_total: usize,
    }

    /// Compiles a model's programs, or finds the artifact of an earlier compilation.
    pub fn compile(
        model: &ModelConfig,
        step: &StepConfig,
        options: &CompileOptions,
    ) -> Result<Compiled, CompileError> {
        let config = serde_json::json!({ "model": model, "step": step });
        let index = options.artifacts.join("index").join(request_key(&config, &options.target));
        if let Ok(hash) = std::fs::read_to_string(&index)
            && let Ok(artifact) = Artifact::open(&options.artifacts.join(hash.trim()))
        {
            let kernels_total = artifact.programs.iter().map(|p| p.kernels.len()).sum();
            return Ok(Compiled { artifact, kernels_compiled: 0, kernels_total });
        }
        let plan = plan_program(model, step)?;
        let compiled = compile_programs(&[&plan.train, &plan.eval], &config, options)?;
        remember(&index, &compiled.artifact.manifest.hash)?;
        Ok(compiled)
    }

    /// What the artifact depends on: the configuration, the machine, and this compiler.
    fn request_key(config: &serde_json::Value, target: &Target) -> String {
        let text = format!("{config} {target:?} {} {}", env!("CARGO_PKG_VERSION"), mlir::version());
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.as_bytes());
        hasher.update(include_str!(concat!(env!("OUT_DIR"), "/sources.hash")).as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    fn remember(index: &Path, hash: &str) -> Result<(), CompileError> {
        let folder = index.parent().unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let file = tempfile::NamedTempFile::new_in(folder)?;
            std::fs::write(file.path(), hash)?;
            file.persist(index).map_err(|e| e.error)?;
            Ok(())
        };
        write().map_err(|source| CompileError::Io { action: "write", path: index.to_path_buf(), source })
    }

    /// Machine code for these programs, in one artifact.
    pub fn compile_programs(
        programs: &[&Lowered],
        config: &serde_json::Value,
        options: &CompileOptions,
    ) -> Result<Compiled, CompileError> {
        let mut specs: Vec<&KernelSpec> = programs.iter().flat_map(|l| &l.kernels).collect();
        specs.sort_by_cached_key(|s| s.symbol());
        specs.dedup_by_key(|s| s.symbol());
        let texts: Vec<String> = specs.iter().map(|s| lower::mlir_function(s)).collect();
        let cache = ObjectCache::open(&options.cache, &options.target)?;
        let (objects, kernels_compiled) = cache.objects(&texts, options.threads)?;
        let kernels = if objects.is_empty() { None } else { Some(link(&objects, &options.artifacts)?) };
        let list: Vec<Program> = programs.iter().map(|l| l.program.clone()).collect();
        let target = isoflop_kernels::artifact::Target {
            triple: options.target.triple.clone(),
            cpu: options.target.cpu.clone(),
            features: options.target.features.clone(),
        };
        let artifact = Artifact::write(&options.artifacts, &list, kernels.as_deref(), config, &target)?;
        Ok(Compiled { artifact, kernels_compiled, kernels_total: specs.len() })
    }

    fn link(objects: &[Vec<u8>], folder: &Path) -> Result<Vec<u8>, CompileError> {
        let io = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| CompileError::Io { action, path, source }
        };
        std::fs::create_dir_all(folder).map_err(io("create", folder))?;
        let scratch =
            tempfile::Builder::new().prefix(".kernels-").tempdir_in(folder).map_err(io("create", folder))?;
        let path = scratch.path().join("kernels.so");
        let slices: Vec<&[u8]> = objects.iter().map(Vec::as_slice).collect();
        mlir::link_shared(&slices, &path)?;
        std::fs::read(&path).map_err(io("read", &path))
    }
}
