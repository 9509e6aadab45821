//! What the verbs of a cluster have in common: arguments, a study that was submitted, and the report of a submission.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use isoflop_sweeps::file::{self, SlurmSpec};
use isoflop_sweeps::plan::Plan;
use isoflop_sweeps::slurm::command::Slurm;
use isoflop_sweeps::slurm::history::History;
use isoflop_sweeps::slurm::layouts::Layouts;
use isoflop_sweeps::slurm::resources::Resources;
use isoflop_sweeps::slurm::standing::{Standings, standings};
use isoflop_sweeps::slurm::submit::{Context, Proposed, Report, Which, submit};
use isoflop_sweeps::slurm::{self, SlurmError, nodes, script, time};
use isoflop_sweeps::study::Study;
use miette::miette;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The study that a verb is about, and how it prints.
#[derive(clap::Args)]
pub struct StudyArgs {
    /// The study's directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub study: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// Runs of a study.
#[derive(clap::Args)]
pub struct RunsArgs {
    #[command(flatten)]
    pub of: StudyArgs,
    /// Names of runs; all that the verb is for by default
    pub runs: Vec<String>,
}

impl StudyArgs {
    /// Opens the study, which was submitted before.
    pub fn open(&self) -> miette::Result<Job> {
        Job::open(&self.study)
    }

    /// Prints a value as JSON, or these lines for people.
    pub fn print<T: serde::Serialize>(&self, value: &T, lines: &[String]) -> miette::Result<()> {
        match self.output {
            Format::Json => output::json(value),
            Format::Table => lines.iter().try_for_each(|line| output::line(line)),
        }
    }
}

impl RunsArgs {
    /// The named runs, or all of them.
    pub fn named<'j>(&self, job: &'j Job) -> miette::Result<HashSet<&'j str>> {
        Ok(slurm::named(&job.plan, &self.runs).map_err(|e| miette!("{e}"))?.into_iter().collect())
    }
}

/// A study that was submitted, with the plan and the cluster that its own copy of the sweep names.
pub struct Job {
    pub study: Study,
    pub plan: Plan,
    pub spec: SlurmSpec,
    pub slurm: Slurm,
}

impl Job {
    /// Opens a study of this user's that was submitted before.
    pub fn open(dir: &Path) -> miette::Result<Job> {
        let study = Study::new(dir);
        let plan = study.read_plan().map_err(|e| miette!("{e}"))?;
        slurm::check_owner(dir).map_err(|e| miette!("{e}"))?;
        let study = slurm::absolute(&study).map_err(|e| miette!("{e}"))?;
        let never = || miette!("{}", SlurmError::NeverSubmitted { dir: dir.to_owned() });
        History::read(study.dir()).map_err(|e| miette!("{e}"))?.ok_or_else(never)?;
        let spec = file::read(&study.sweep_file())?.slurm.ok_or_else(never)?;
        Ok(Job { study, plan, spec, slurm: Slurm::new() })
    }

    /// What the journal says, and where all runs stand now: asks Slurm once.
    pub fn look(&self) -> Result<(History, Standings), SlurmError> {
        let history = History::read(self.study.dir())?.unwrap_or_default();
        let now = standings(&self.slurm, &self.study, &self.plan, &history)?;
        Ok((history, now))
    }

    /// Submits, with the study locked for as long as it takes.
    pub fn submit(&self, which: Which<'_>) -> Result<Report, SlurmError> {
        let _lock = self.study.lock()?;
        submit_prepared(&self.study, &self.plan, &self.spec, &self.slurm, which)
    }
}

/// Submits runs of a study that is locked and whose run directories are ready.
pub fn submit_prepared(
    study: &Study,
    plan: &Plan,
    spec: &SlurmSpec,
    slurm: &Slurm,
    which: Which<'_>,
) -> Result<Report, SlurmError> {
    let layouts = Layouts::read(study, plan)?.probe(slurm, spec)?;
    let cluster = layouts.usual(slurm, spec)?;
    let worker = worker(spec)?;
    submit(
        &Context { slurm, study, plan, spec, cluster: &cluster, layouts: &layouts, worker: &worker },
        which,
    )
}

/// The program that trains on the nodes: the sweep's, else this one.
pub fn worker(spec: &SlurmSpec) -> Result<PathBuf, SlurmError> {
    let this = || {
        std::env::current_exe().map_err(|e| {
            isoflop_runtime::rundir::FileError::new("find", Path::new("/proc/self/exe"), e).into()
        })
    };
    spec.worker.clone().map_or_else(this, Ok)
}

/// What was submitted and what was not, for people.
pub fn lines(report: &Report, dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for submitted in &report.submitted {
        let what = &submitted.what;
        let r = &what.resources;
        let memory = r.mem_mib.map_or_else(String::new, |mib| format!(", {mib} MiB"));
        let runs = tasks_in_words(what);
        let recovered = if submitted.recovered { ", found again after a crash" } else { "" };
        lines.push(format!(
            "job {}: {runs}, each {}{memory}, {}{recovered}",
            submitted.job,
            machine_in_words(r),
            time::print(r.seconds),
        ));
    }
    let new: usize = report.submitted.iter().map(|s| if s.what.chain { 1 } else { s.what.runs.len() }).sum();
    lines.push(format!(
        "{} runs: {} done, {} had a job, {new} submitted, {} cancelled, {} given up, {} without room",
        report.runs,
        report.done,
        report.live,
        report.cancelled,
        report.given_up.len(),
        report.no_room
    ));
    lines.extend(nodes::in_words(&report.left_out));
    let out = dir.display();
    if let (Some(limit), true) = (&report.limit, report.no_room > 0) {
        lines.push(format!(
            "{limit} is reached; `isoflop wait {out} --resubmit` submits the rest as others end"
        ));
    }
    if !report.given_up.is_empty() {
        lines.push(format!(
            "`isoflop explain {out}` says why runs were given up; `isoflop retry {out}` tries again"
        ));
    }
    lines
}

/// `4 cpus`, or `16 nodes of 8 GPUs in gpu`.
fn machine_in_words(r: &Resources) -> String {
    match (r.gpus_per_node, &r.partition) {
        (0, _) => format!("{} cpus", r.cpus_per_task),
        (gpus, partition) => {
            let partition = partition.as_ref().map_or_else(String::new, |p| format!(" in {p}"));
            let plural = |n: u32| if n == 1 { "" } else { "s" };
            format!("{} node{} of {gpus} GPU{}{partition}", r.nodes, plural(r.nodes), plural(gpus))
        }
    }
}

/// `12 runs`, or `4 segments of d2e4-n10k-s0`.
pub fn tasks_in_words(what: &Proposed) -> String {
    match (what.chain, what.runs.as_slice()) {
        (true, [run, ..]) => format!("{} segments of {run}", what.runs.len()),
        (_, [run]) => run.clone(),
        (_, runs) => format!("{} runs", runs.len()),
    }
}

/// What the newest job of a run printed, and the file it is in. Attempts on this machine are no jobs and not meant.
pub fn newest_output(study: &Study, history: &History, run: &str) -> Option<PathBuf> {
    let files =
        history.tasks(run).map(|(intent, (_, index))| script::output(study.dir(), &intent.tag, index));
    let newest = files.filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    newest.map(|(_, path)| path)
}
