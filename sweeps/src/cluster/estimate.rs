//! The layouts of every run on a cluster, with memory, time and cost, and the one to choose.

use super::efficiency::Efficiency;
use super::file::{Calibration, Cluster, Partition};
use super::layout::{Layout, Recompute, layouts, tensors};
use super::memory::{Memory, RankMemory, memory};
use super::time::{Software, StepTime, step_time};
use super::transformer::{Transformer, recomputed_flops_per_token};
use crate::compile::SizeError;
use crate::plan::{Plan, PlannedRun};
use isoflop_compiler::config::ModelConfig;
use isoflop_compiler::count::{Convention, Hfu, Mfu, flops_per_token};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::HashMap;

const SECONDS_A_DAY: f64 = 86_400.0;

/// Bytes a second that a node of a cluster writes of a checkpoint at least; assumed.
const SLOWEST_SAVE: f64 = 500e6;
/// More jobs than this for one run are a plan that went wrong.
const MOST_SEGMENTS: f64 = 1_000.0;

/// Seconds before its limit at which a job must be told to save: a minute, since signals may come so much early, three steps,
/// and the time to write weights and moments, 12 bytes a parameter, from all nodes.
pub fn lead_seconds(step_seconds: f64, params: u64, nodes: usize) -> f64 {
    60.0 + 3.0 * step_seconds + 12.0 * params as f64 / (SLOWEST_SAVE * nodes.max(1) as f64)
}

/// Jobs of at most `limit` seconds that a run of `seconds` takes one after the other. Half of a job is for work at least,
/// whatever the lead.
pub fn segments(seconds: f64, limit: f64, lead: f64) -> u64 {
    if seconds <= limit {
        return 1;
    }
    (seconds / (limit - lead).max(0.5 * limit)).ceil().clamp(2.0, MOST_SEGMENTS) as u64
}

/// A sweep's runs on a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterPlan {
    pub sweep: String,
    pub cluster: String,
    pub gpu: String,
    /// FLOP/s of one GPU that utilisations are of.
    pub peak_flops: f64,
    /// The factors that the expected times rest on, those of the device filled in.
    pub efficiency: Efficiency,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    pub runs: Vec<RunPlan>,
    pub warnings: Vec<String>,
}

/// One run: the layout to choose and why, and the others.
#[derive(Clone, Debug, Serialize)]
pub struct RunPlan {
    pub id: String,
    pub size: String,
    pub params: u64,
    pub tokens: u64,
    pub steps: u64,
    /// Sequences of a step.
    pub batch: usize,
    /// None where no layout fits.
    pub chosen: Option<Estimate>,
    /// Why this one; or what is missing.
    pub reason: String,
    /// Layouts that divide model and batch, and those of them that fit the memory.
    pub layouts: usize,
    pub fitting: usize,
    /// The fastest that fits of each number of GPUs, the fewest first.
    pub by_gpus: Vec<Estimate>,
}

/// What a layout takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub layout: Layout,
    pub gpus: usize,
    pub nodes: usize,
    pub partition: String,
    /// Of each GPU.
    pub memory: Memory,
    /// Expected, by what it is spent on.
    pub time: StepTime,
    /// Seconds of a step that no factor can lower; expected; and expected times the calibration, where there is one.
    pub bound_seconds: f64,
    pub step_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibrated_seconds: Option<f64>,
    pub tokens_per_second: f64,
    pub mfu: f64,
    pub mfu_convention: Convention,
    /// With what is computed again.
    pub hfu: Hfu,
    /// Of the run, by the calibrated time where there is one.
    pub days: f64,
    pub gpu_hours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Jobs one after the other, by the partition's limit.
    pub segments: u64,
}

/// A layout of a step, before it is known how many steps there are.
#[derive(Clone, Copy)]
struct Candidate {
    layout: Layout,
    memory: Memory,
    time: StepTime,
}

/// What runs of one model and batch share.
struct Step {
    layouts: usize,
    fitting: usize,
    /// The fastest that fits of each number of GPUs.
    best: Vec<Candidate>,
    /// The least memory of any layout, where none fits.
    least: Option<(Layout, u64)>,
}

/// Plans every run of a sweep on a cluster.
///
/// # Errors
/// When the compiler refuses a model.
pub fn plan(sweep: &Plan, cluster: &Cluster) -> Result<ClusterPlan, SizeError> {
    let mut distinct: Vec<&PlannedRun> = Vec::new();
    let mut places: HashMap<(String, usize), usize> = HashMap::new();
    let mut of_run = Vec::with_capacity(sweep.runs.len());
    for run in &sweep.runs {
        // Runs of one size and batch are equal but for their length.
        let place = *places.entry((run.size.clone(), run.batch)).or_insert_with(|| {
            distinct.push(run);
            distinct.len() - 1
        });
        of_run.push(place);
    }
    let ranks = ranks(&distinct, cluster)?;
    let steps: Vec<Step> =
        distinct.par_iter().map(|run| step(&run.model, run.batch, cluster, &ranks[&run.size])).collect();
    let bound = Efficiency::ideal();
    let runs: Vec<RunPlan> = sweep
        .runs
        .par_iter()
        .zip(&of_run)
        .map(|(run, place)| of_steps(run, &steps[*place], cluster, &bound))
        .collect();
    let mut warnings = sweep.warnings.clone();
    let unplanned: Vec<&str> = runs.iter().filter(|r| r.chosen.is_none()).map(|r| r.id.as_str()).collect();
    if !unplanned.is_empty() {
        warnings.push(format!("no layout fits `{}` for {}", cluster.name, unplanned.join(", ")));
    }
    let efficiency = Efficiency {
        products: cluster.efficiency.products.or(Some(cluster.machine.products)),
        attention: cluster.efficiency.attention.or(Some(cluster.machine.attention)),
        ..cluster.efficiency
    };
    Ok(ClusterPlan {
        sweep: sweep.sweep.clone(),
        cluster: cluster.name.clone(),
        gpu: cluster.gpu.name.clone(),
        peak_flops: cluster.machine.peak,
        efficiency,
        calibration: cluster.calibration,
        runs,
        warnings,
    })
}

/// The memory of every size's ranks, by how many GPUs share a layer.
type Ranks = HashMap<usize, RankMemory>;

fn ranks(distinct: &[&PlannedRun], cluster: &Cluster) -> Result<HashMap<String, Ranks>, SizeError> {
    let mut wanted: Vec<(&PlannedRun, usize)> = Vec::new();
    for run in distinct {
        if wanted.iter().any(|(other, _)| other.size == run.size) {
            continue;
        }
        let tensors = tensors(&Transformer::from(&run.model), cluster.machine.gpus_per_node);
        wanted.extend(tensors.map(|t| (*run, t)));
    }
    let planned: Vec<(String, usize, RankMemory)> = wanted
        .into_par_iter()
        .with_max_len(1)
        .map(|(run, tensor)| match RankMemory::of(&run.model, tensor) {
            Ok(memory) => Ok((run.size.clone(), tensor, memory)),
            Err(source) => {
                Err(SizeError { size: run.size.clone(), batch: run.batch, source: Box::new(source) })
            }
        })
        .collect::<Result<_, _>>()?;
    let mut ranks: HashMap<String, Ranks> = HashMap::new();
    for (size, tensor, memory) in planned {
        ranks.entry(size).or_default().insert(tensor, memory);
    }
    Ok(ranks)
}

/// Numbers of GPUs that are tried: powers of two within a node, then nodes by powers of two and thrice those.
fn gpu_counts(cluster: &Cluster) -> Vec<usize> {
    let per_node = cluster.machine.gpus_per_node;
    let most = cluster.partitions.iter().map(|p| p.nodes).max().unwrap_or(cluster.nodes);
    let within = (0..).map(|i| 1 << i).take_while(|g| *g < per_node);
    let powers = (0..).map(|i| 1usize << i).take_while(|n| *n <= most);
    let mut nodes: Vec<usize> = powers.flat_map(|n| [n, 3 * n]).filter(|n| *n <= most).collect();
    nodes.sort_unstable();
    within.chain(nodes.into_iter().map(|n| n * per_node)).collect()
}

fn step(model: &ModelConfig, batch: usize, cluster: &Cluster, ranks: &Ranks) -> Step {
    let transformer = Transformer::from(model);
    let room = cluster.machine.memory_bytes - cluster.reserve as f64;
    let mut found = Step { layouts: 0, fitting: 0, best: Vec::new(), least: None };
    let Some(whole) = ranks.get(&1) else { return found };
    for gpus in gpu_counts(cluster) {
        let mut best: Option<Candidate> = None;
        for layout in layouts(&transformer, batch, gpus, cluster.machine.gpus_per_node) {
            let Some(split) = ranks.get(&layout.tensor) else { continue };
            found.layouts += 1;
            let memory = memory(model, &layout, whole, split);
            if found.least.is_none_or(|(_, least)| memory.total() < least) {
                found.least = Some((layout, memory.total()));
            }
            if memory.total() as f64 > room {
                continue;
            }
            found.fitting += 1;
            let time =
                step_time(&transformer, &layout, &cluster.machine, &Software::OURS, &cluster.efficiency);
            if best.is_none_or(|b| time.seconds() < b.time.seconds()) {
                best = Some(Candidate { layout, memory, time });
            }
        }
        found.best.extend(best);
    }
    found
}

/// The cheapest partition that grants so many nodes; the first of equals.
fn partition(cluster: &Cluster, nodes: usize) -> Option<&Partition> {
    let price = |p: &Partition| p.price.unwrap_or(0.0);
    let able = cluster.partitions.iter().filter(|p| p.nodes >= nodes);
    able.min_by(|a, b| price(a).total_cmp(&price(b)))
}

fn of_steps(run: &PlannedRun, step: &Step, cluster: &Cluster, ideal: &Efficiency) -> RunPlan {
    let estimates = step.best.iter().filter_map(|c| estimate(run, c, cluster, ideal));
    let by_gpus: Vec<Estimate> = estimates.collect();
    let in_time = by_gpus.iter().filter(|e| e.days <= cluster.max_days);
    let cheapest = in_time.min_by(|a, b| a.gpu_hours.total_cmp(&b.gpu_hours));
    let days = |d: f64| crate::display::seconds(d * SECONDS_A_DAY);
    let (chosen, reason) = match (cheapest, by_gpus.iter().min_by(|a, b| a.days.total_cmp(&b.days))) {
        (Some(e), _) => {
            (Some(e.clone()), format!("fewest GPU hours of those that end in {}", days(cluster.max_days)))
        }
        (None, Some(fastest)) => {
            let words = format!("the fastest; none ends in max_days = {}", cluster.max_days);
            (Some(fastest.clone()), words)
        }
        (None, None) => (None, what_is_missing(step, cluster, run.batch)),
    };
    RunPlan {
        id: run.id.clone(),
        size: run.size.clone(),
        params: run.params,
        tokens: run.tokens,
        steps: run.steps,
        batch: run.batch,
        chosen,
        reason,
        layouts: step.layouts,
        fitting: step.fitting,
        by_gpus,
    }
}

fn what_is_missing(step: &Step, cluster: &Cluster, batch: usize) -> String {
    let room = (cluster.machine.memory_bytes - cluster.reserve as f64) as u64;
    let bytes = crate::display::bytes;
    match step.least {
        Some((layout, least)) => {
            format!("the least that a GPU must hold is {} of {} ({layout})", bytes(least), bytes(room))
        }
        None => format!("{batch} sequences a step cannot be shared by any number of GPUs that is tried"),
    }
}

fn estimate(run: &PlannedRun, c: &Candidate, cluster: &Cluster, ideal: &Efficiency) -> Option<Estimate> {
    let gpus = c.layout.gpus();
    let nodes = gpus.div_ceil(cluster.machine.gpus_per_node);
    let partition = partition(cluster, nodes)?;
    let transformer = Transformer::from(&run.model);
    let bound = step_time(&transformer, &c.layout, &cluster.machine, &Software::OURS, ideal).seconds();
    let expected = c.time.seconds();
    let calibrated = cluster.calibration.map(|c| c.factor * expected);
    let seconds = calibrated.unwrap_or(expected);
    let tokens_per_second = run.batch_tokens as f64 / seconds;
    let (convention, peak) = (Convention::ExactCausal, cluster.machine.peak);
    let mfu = Mfu::new(&run.model, convention, run.batch, tokens_per_second / gpus as f64, peak);
    let again = match c.layout.recompute {
        Recompute::Full => recomputed_flops_per_token(&run.model, run.batch),
        Recompute::None | Recompute::Selective => 0.0,
    };
    let executed = (flops_per_token(&run.model, convention, run.batch) + again) * run.batch_tokens as f64;
    let days = run.steps as f64 * seconds / SECONDS_A_DAY;
    let gpu_hours = days * 24.0 * gpus as f64;
    let lead = lead_seconds(seconds, run.params, nodes);
    let segments = partition.hours.map_or(1, |hours| segments(days * SECONDS_A_DAY, hours * 3_600.0, lead));
    Some(Estimate {
        layout: c.layout,
        gpus,
        nodes,
        partition: partition.name.clone(),
        memory: c.memory,
        time: c.time,
        bound_seconds: bound,
        step_seconds: expected,
        calibrated_seconds: calibrated,
        tokens_per_second,
        mfu: mfu.fraction,
        mfu_convention: convention,
        hfu: Hfu::new(executed / gpus as f64, seconds, peak),
        days,
        gpu_hours,
        cost: partition.price.map(|price| price * gpu_hours),
        segments,
    })
}
