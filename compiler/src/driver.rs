//! From a model configuration to planned programs, and on to an artifact on disk.
//!
//! Planning is pure Rust and fast: it gives the memory a run needs and the kernels it would call. Code generation
//! (feature `mlir`) fills a cache of objects, one for each kernel, shared by every model that has the same kernel.

use crate::autodiff::AutodiffError;
use crate::config::{ModelConfig, StepConfig};
use crate::cost::CostModel;
use crate::fuse::FusionLog;
use crate::fuse::shuffle::Shuffle;
use crate::graph::Graph;
use crate::lower::{LowerError, Lowered, lower};
use crate::memory::alive::{Peak, peak};
use crate::memory::units;
use crate::model;
use crate::passes::pipeline::{self, PipelineError, Trace};
use crate::passes::{Context, PIPELINE, Registry};
use crate::recompute::budget;
use isoflop_kernels::footprint::{Base, Footprint};
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
    #[error(
        "the memory budget is {}, and {program} takes {} at least, whatever is computed again; alive then, {peak}",
        units::bytes(*budget), units::bytes(peak.bytes)
    )]
    Budget { budget: u64, program: &'static str, peak: Box<Peak> },
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

/// How a graph becomes one that `lower` takes.
#[derive(Clone, Debug)]
pub struct OptimizeOptions {
    /// Verifying, dumps and passes left out. `lower` says which passes a graph cannot do without.
    pub pipeline: pipeline::Options,
    /// Merge operations into kernels; without it `outline` stands in the place of `fuse`: every operation is a kernel.
    pub fuse: bool,
    pub cost: CostModel,
    /// Merge by chance, for tests of the compiler; without it, by what saves time.
    pub shuffle: Option<Shuffle>,
}

impl Default for OptimizeOptions {
    fn default() -> Self {
        let pipeline = pipeline::Options::default();
        OptimizeOptions { pipeline, fuse: true, cost: CostModel::default(), shuffle: None }
    }
}

/// From what the model builder wrote to a graph that `lower` takes: the passes of [`PIPELINE`].
pub fn optimize(g: &mut Graph, options: &OptimizeOptions) -> Result<(FusionLog, Trace), PipelineError> {
    let (context, trace) = run_passes(g, options)?;
    Ok((context.fusion.unwrap_or_default(), trace))
}

fn run_passes(g: &mut Graph, options: &OptimizeOptions) -> Result<(Context, Trace), PipelineError> {
    let registry = Registry::default();
    let name = |p: &&'static str| if *p == "fuse" && !options.fuse { "outline" } else { p };
    let passes = PIPELINE.iter().map(|p| registry.find(name(p))).collect::<Result<Vec<_>, _>>()?;
    let mut context = Context { cost: options.cost.clone(), shuffle: options.shuffle, ..Context::default() };
    let trace = pipeline::run(g, &passes, &options.pipeline, &mut context)?;
    Ok((context, trace))
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
    /// What the training step computes again to stay within its memory budget.
    pub recomputed: Option<budget::Point>,
    /// What the passes did to the training graph, and to the graph of the loss.
    pub traces: [Trace; 2],
}

impl ProgramPlan {
    /// Bytes a process needs for buffers: state, inputs, outputs, tables, and the larger of the two arenas.
    pub fn memory_bytes(&self) -> u64 {
        let train = &self.train.program;
        let eval = &self.eval.program;
        train.total_bytes() + eval.arena_bytes.saturating_sub(train.arena_bytes)
    }

    /// The resident memory of a process that trains with this plan and has `base` itself.
    pub fn footprint(&self, base: Base) -> Footprint {
        Footprint::of([&self.train.program, &self.eval.program], base)
    }
}

/// The training step of this model after the passes, or after those of them that `options` ask for.
pub fn optimized_step(
    model: &ModelConfig,
    step: &StepConfig,
    options: &OptimizeOptions,
) -> Result<(Graph, FusionLog, Trace), CompileError> {
    let mut g = training_graph(model, step)?;
    let (fusion, trace) = optimize(&mut g, options)?;
    Ok((g, fusion, trace))
}

fn training_graph(model: &ModelConfig, step: &StepConfig) -> Result<Graph, CompileError> {
    model.check().map_err(CompileError::Config)?;
    if step.batch == 0 {
        return Err(CompileError::Config("batch is 0; it must be at least 1".into()));
    }
    Ok(model::training_graph(model, step)?)
}

/// A graph after the passes, and its program.
struct Planned {
    graph: Graph,
    fusion: FusionLog,
    trace: Trace,
    lowered: Lowered,
}

fn planned(mut graph: Graph, options: &OptimizeOptions) -> Result<Planned, CompileError> {
    let (context, trace) = run_passes(&mut graph, options)?;
    let lowered = context.lowered.map_or_else(|| lower(&graph), Ok)?;
    Ok(Planned { fusion: context.fusion.unwrap_or_default(), graph, trace, lowered })
}

/// Plans the training step and the loss of this model.
pub fn plan_program(model: &ModelConfig, step: &StepConfig) -> Result<ProgramPlan, CompileError> {
    plan_program_with(model, step, &OptimizeOptions::default())
}

/// As [`plan_program`], with passes left out, dumped or timed.
pub fn plan_program_with(
    model: &ModelConfig,
    step: &StepConfig,
    options: &OptimizeOptions,
) -> Result<ProgramPlan, CompileError> {
    let train = training_graph(model, step)?;
    let loss = || planned(model::loss_graph(model, step.batch), options);
    let dumps = options.pipeline.print_after_all || !options.pipeline.print_after.is_empty();
    let (train, eval) = if dumps {
        (planned(train, options), loss())
    } else {
        std::thread::scope(|s| {
            let eval = s.spawn(loss);
            let train = planned(train, options);
            (train, eval.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    };
    let (train, eval) = (train?, eval?);
    let traces = [train.trace, eval.trace];
    let (fused, lowered, recomputed) = within_budget(train.graph, train.lowered, step, &options.cost)?;
    let fusion = train.fusion;
    let plan = ProgramPlan { train: lowered, eval: eval.lowered, fused, fusion, recomputed, traces };
    if let Some(budget) = step.memory_budget.filter(|&budget| plan.memory_bytes() > budget) {
        let peak = Box::new(Peak { bytes: plan.memory_bytes(), ..peak(&plan.eval) });
        return Err(CompileError::Budget {
            budget,
            program: "the loss, beside the optimiser's state,",
            peak,
        });
    }
    Ok(plan)
}

/// The training step as it stands where it fits, else with values computed again.
fn within_budget(
    fused: Graph,
    train: Lowered,
    step: &StepConfig,
    cost: &CostModel,
) -> Result<(Graph, Lowered, Option<budget::Point>), CompileError> {
    let Some(budget) = step.memory_budget.filter(|&budget| train.program.total_bytes() > budget) else {
        return Ok((fused, train, None));
    };
    match budget::Search::new(&fused, &train, cost).fit(budget)? {
        (Some(point), graph, program) => Ok((graph, program, Some(point))),
        (None, _, least) => {
            let program = "the training step";
            Err(CompileError::Budget { budget, program, peak: Box::new(peak(&least)) })
        }
    }
}

#[cfg(feature = "mlir")]
pub use with_mlir::{
    CompileOptions, Compiled, PtxKernel, compile, compile_plan, compile_programs, compile_ptx, distinct,
};

#[cfg(feature = "mlir")]
mod with_mlir {
    use super::*;
    use crate::cache::ObjectCache;
    use crate::lower;
    use crate::lower::kernel::KernelSpec;
    use crate::machine::Arch;
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

    /// Compiles a plan that was made with other passes than the default. No index remembers it.
    pub fn compile_plan(
        plan: &ProgramPlan,
        model: &ModelConfig,
        step: &StepConfig,
        options: &CompileOptions,
    ) -> Result<Compiled, CompileError> {
        let passes: Vec<&str> = plan.traces[0].steps.iter().map(|s| s.pass).collect();
        let config = serde_json::json!({ "model": model, "step": step, "passes": passes });
        compile_programs(&[&plan.train, &plan.eval], &config, options)
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
        let specs = distinct(programs);
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

    /// A generated kernel for a GPU.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PtxKernel {
        pub symbol: String,
        /// A module of its own.
        pub ptx: String,
    }

    /// PTX of every different kernel of these programs, sorted by symbol, from the cache where it is there. The programs
    /// were lowered for a GPU.
    pub fn compile_ptx(
        programs: &[&Lowered],
        arch: Arch,
        cache: &Path,
        threads: usize,
    ) -> Result<Vec<PtxKernel>, CompileError> {
        let specs = distinct(programs);
        let texts: Vec<String> = specs.iter().map(|s| lower::mlir_function(s)).collect();
        let (modules, _) = ObjectCache::open(cache, &Target::cuda(arch))?.objects(&texts, threads)?;
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let kernels = specs.iter().zip(&modules);
        Ok(kernels.map(|(s, ptx)| PtxKernel { symbol: s.symbol(), ptx: text(ptx) }).collect())
    }

    /// Kernels of these programs, each once, by symbol.
    pub fn distinct<'a>(programs: &[&'a Lowered]) -> Vec<&'a KernelSpec> {
        let mut specs: Vec<&KernelSpec> = programs.iter().flat_map(|l| &l.kernels).collect();
        specs.sort_by_cached_key(|s| s.symbol());
        specs.dedup_by_key(|s| s.symbol());
        specs
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
