//! What the job of one run asks for, and into how many segments a run is cut that is longer than a job may be.

use crate::cluster::estimate;
use crate::file::SlurmSpec;
use crate::plan::PlannedRun;
use isoflop_runtime::layout::RunLayout;
use serde::{Deserialize, Serialize};

/// Resources of one job. Runs with equal resources share arrays.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resources {
    /// None is the sweep's, or the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    pub nodes: u32,
    /// As many tasks are on each node; 0 is one task on CPUs.
    pub gpus_per_node: u32,
    pub cpus_per_task: u32,
    /// MiB on each node; none asks for nothing, and the partition's default holds.
    pub mem_mib: Option<u64>,
    /// Limit of the job.
    pub seconds: u64,
    /// Seconds before the limit at which the job is told to save and stop.
    pub lead_seconds: u64,
}

impl Resources {
    pub fn tasks_per_node(&self) -> u32 {
        self.gpus_per_node.max(1)
    }

    pub fn tasks(&self) -> u32 {
        self.nodes * self.tasks_per_node()
    }

    /// GPUs of the job, or its CPUs where it has none.
    pub fn units(&self) -> u32 {
        self.tasks() * if self.gpus_per_node > 0 { 1 } else { self.cpus_per_task }
    }
}

/// A job, and how many of them one after the other a run needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub resources: Resources,
    pub segments: u32,
}

/// A time limit is this many times the prediction, since predictions of time are no promises.
const TIME_MARGIN: f64 = 2.0;
/// Added to it, where no limit is given: to load, and to write checkpoints.
const TIME_SPARE: f64 = 600.0;
/// Of the planned peak of memory, which is within 5 % of what is measured.
const MEMORY_MARGIN: f64 = 1.25;
const MEMORY_SPARE: u64 = 128 << 20;
/// Without limit and prediction.
const UNKNOWN_SECONDS: u64 = 4 * 3_600;
/// More segments than this are a plan that went wrong.
const MOST_SEGMENTS: f64 = 1_000.0;
/// Slurm sends a signal up to a minute early and looks at limits twice a minute.
const LEAD_SPARE: f64 = 60.0;
/// A file system that writes slower than this loses work to limits of time, until a save was measured; bytes per second.
const SLOWEST_SAVE: f64 = 50e6;
/// A save may take so many times what the longest until now took.
const SAVE_MARGIN: f64 = 2.0;

/// What is known of how fast a run goes, measured where it has run already.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    pub step_seconds: Option<f64>,
    /// Steps not done yet.
    pub steps_left: u64,
    /// The longest that writing a checkpoint took.
    pub save_seconds: Option<f64>,
}

/// What one run asks for. `most_seconds` is the cluster's limit of a job; `more_memory` the factor that came of running
/// out of it.
pub fn demand(
    run: &PlannedRun,
    spec: &SlurmSpec,
    most_seconds: Option<u64>,
    pace: Pace,
    more_memory: f64,
) -> Demand {
    let step = pace.step_seconds.or(run.seconds.map(|s| s / run.steps.max(1) as f64));
    let whole = step.map(|step| TIME_MARGIN * step * pace.steps_left as f64);
    let asked =
        spec.time_limit.or(whole.map(|s| rounded_up(s + TIME_SPARE, 1_800))).unwrap_or(UNKNOWN_SECONDS);
    let seconds = asked.min(most_seconds.unwrap_or(u64::MAX)).max(60);
    // A signal cannot come before the job begins: at least half of a job is for work.
    let save = pace.save_seconds.map_or_else(|| save_seconds(run), |s| SAVE_MARGIN * s);
    let lead_seconds = (LEAD_SPARE + 3.0 * step.unwrap_or(0.0) + save).ceil().min(seconds as f64 / 2.0);
    let work = seconds as f64 - lead_seconds;
    let segments = match whole {
        Some(whole) if whole > work => (whole / work).ceil().clamp(2.0, MOST_SEGMENTS) as u32,
        _ => 1,
    };
    let resources = Resources {
        partition: None,
        nodes: 1,
        gpus_per_node: 0,
        cpus_per_task: spec.cpus_per_task,
        mem_mib: memory(run, spec, more_memory),
        seconds,
        lead_seconds: lead_seconds as u64,
    };
    Demand { resources, segments }
}

/// A limit of a job on GPUs is so many times its expected time, where it needs no chain.
const LAYOUT_TIME_MARGIN: f64 = 1.25;

/// What one run on GPUs asks for: its layout, and as many jobs as the plan says where it is longer than one may be.
pub fn demand_of_layout(
    run: &PlannedRun,
    layout: &RunLayout,
    spec: &SlurmSpec,
    most_seconds: Option<u64>,
    steps_left: u64,
) -> Demand {
    let most = spec.time_limit.into_iter().chain(most_seconds).min();
    let expected = layout.step_seconds * steps_left as f64;
    let lead = estimate::lead_seconds(layout.step_seconds, run.params, layout.nodes);
    let segments = most.map_or(1, |most| estimate::segments(expected, most as f64, lead));
    let asked = rounded_up(LAYOUT_TIME_MARGIN * expected + TIME_SPARE, 1_800);
    let seconds = asked.min(most.unwrap_or(u64::MAX)).max(60);
    let resources = Resources {
        partition: layout.partition.clone(),
        nodes: layout.nodes as u32,
        gpus_per_node: layout.gpus_per_node as u32,
        cpus_per_task: spec.cpus_per_task,
        mem_mib: spec.mem.map(|bytes| bytes.div_ceil(1 << 20)),
        seconds,
        lead_seconds: lead.ceil().min(seconds as f64 / 2.0) as u64,
    };
    Demand { resources, segments: segments as u32 }
}

/// MiB to ask for: what the sweep says to the byte, or what is planned, rounded up so that runs of about one size share an
/// array; times what running out of it before has come to.
fn memory(run: &PlannedRun, spec: &SlurmSpec, factor: f64) -> Option<u64> {
    let mebibytes = |bytes: u64| ((bytes as f64 * factor / f64::from(1 << 20)).ceil() as u64).max(1);
    let planned = || planned_memory(run, spec.cpus_per_task).map(mebibytes).map(coarse);
    spec.mem.map(mebibytes).or_else(planned)
}

/// Bytes that a run with so many threads is planned to take, with a margin; none where its plan does not know.
fn planned_memory(run: &PlannedRun, threads: u32) -> Option<u64> {
    let one = run.peak_rss_bytes?;
    let further = run.peak_rss_bytes_per_further_thread.unwrap_or(0) * u64::from(threads.saturating_sub(1));
    Some(((one + further) as f64 * MEMORY_MARGIN) as u64 + MEMORY_SPARE)
}

/// MiB rounded up to sixteenths of a power of two.
fn coarse(mib: u64) -> u64 {
    mib.next_multiple_of((mib.next_power_of_two() / 16).max(64))
}

/// Seconds rounded up to 1, 2, 4, 8... times `unit`.
fn rounded_up(seconds: f64, unit: u64) -> u64 {
    let units = (seconds / unit as f64).ceil().clamp(1.0, 1e9) as u64;
    unit * units.next_power_of_two()
}

/// Parameters and two moments in f32, at the slowest file system.
fn save_seconds(run: &PlannedRun) -> f64 {
    run.params as f64 * 12.0 / SLOWEST_SAVE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;
    use crate::plan::plan;

    const SWEEP: &str = "[sweep]\nname = \"s\"\n[family]\nname = \"nano\"\n[plan]\nkind = \"isoflop\"\nflops = [1e11]\n\
                         sizes = [\"21k\"]\n[train]\nbatch_tokens = 1024\nlr = 0.001\n[executor]\nkind = \"slurm\"\n";

    fn run_and_spec(executor: &str) -> (PlannedRun, SlurmSpec) {
        let sweep = file::parse("s.toml".as_ref(), &format!("{SWEEP}{executor}")).unwrap();
        let mut run = plan(&sweep).unwrap().runs.remove(0);
        (run.seconds, run.peak_rss_bytes) = (Some(10.0 * run.steps as f64), Some(300 << 20));
        run.peak_rss_bytes_per_further_thread = Some(10 << 20);
        (run, sweep.slurm.unwrap())
    }

    fn of(executor: &str, most: Option<u64>, steps_left: u64, step_seconds: Option<f64>) -> Demand {
        let (run, spec) = run_and_spec(executor);
        demand(&run, &spec, most, Pace { step_seconds, steps_left, save_seconds: None }, 1.0)
    }

    #[test]
    fn time_follows_from_the_prediction_until_it_is_measured() {
        // 300 steps of 10 s, doubled, and ten minutes: the next of half hours in powers of two.
        let planned = of("", None, 300, None);
        assert_eq!((planned.resources.seconds, planned.segments), (7_200, 1));
        assert_eq!(of("", None, 300, Some(1.0)).resources.seconds, 1_800);
        let lead = planned.resources.lead_seconds;
        assert!((60 + 30..120).contains(&lead), "a minute, three steps and a checkpoint: {lead}");
    }

    #[test]
    fn the_time_to_save_is_as_measured_once_it_is() {
        let (run, spec) = run_and_spec("time_limit = \"1h\"");
        let lead = |save_seconds| {
            let pace = Pace { step_seconds: Some(2.0), steps_left: 10, save_seconds };
            demand(&run, &spec, None, pace, 1.0).resources.lead_seconds
        };
        // A minute and three steps; of these small models the estimate is less than a second.
        assert_eq!([None, Some(0.001), Some(40.0)].map(lead), [67, 67, 146]);
    }

    #[test]
    fn what_is_longer_than_a_job_may_be_is_a_chain() {
        let chain = of("", Some(3_600), 3_000, None);
        assert_eq!(chain.resources.seconds, 3_600);
        let work = 3_600 - chain.resources.lead_seconds;
        assert_eq!(u64::from(chain.segments), (2 * 30_000u64).div_ceil(work));
        assert_eq!(
            of("time_limit = \"1min\"", None, 1, None).resources,
            Resources { seconds: 60, lead_seconds: 30, ..chain.resources }
        );
        assert!(of("time_limit = \"1min\"", None, 300, None).segments > 100);
    }

    #[test]
    fn memory_is_planned_with_a_margin_or_as_the_sweep_says() {
        // 1.25 times 300 and 3 times 10 MiB, 128 MiB more, rounded up to 64.
        assert_eq!(of("cpus_per_task = 4", None, 1, None).resources.mem_mib, Some(576));
        assert_eq!(of("mem = \"1GiB\"", None, 1, None).resources.mem_mib, Some(1_024));
        let (run, spec) = run_and_spec("mem = \"1GiB\"");
        let more = demand(&run, &spec, None, Pace::default(), 1.5);
        assert_eq!(more.resources.mem_mib, Some(1_536));
    }
}
