//! Submitting what is left of a study, so that nothing is lost or doubled whenever a process dies.

use super::command::{CommandError, SUBMIT_LIMIT, Slurm};
use super::history::History;
use super::journal::{self, Intent, Journal, Record};
use super::layouts::Layouts;
use super::nodes::BadNode;
use super::policy::{Cause, MORE_MEMORY};
use super::probe::Cluster;
use super::resources::{Pace, Resources, demand, demand_of_layout};
use super::standing::{Standing, Standings, Verdict, standings};
use super::{SlurmError, script, view};
use crate::file::SlurmSpec;
use crate::plan::Plan;
use crate::study::Study;
use isoflop_runtime::rundir::{FileError, replace};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// What a submission works with. The study's path is absolute, and its lock held.
pub struct Context<'a> {
    pub slurm: &'a Slurm,
    pub study: &'a Study,
    pub plan: &'a Plan,
    pub spec: &'a SlurmSpec,
    /// What jobs in the sweep's partition may be.
    pub cluster: &'a Cluster,
    /// Of runs on GPUs, which are only checked.
    pub layouts: &'a Layouts,
    /// The program that trains on the nodes.
    pub worker: &'a Path,
}

impl Context<'_> {
    /// What jobs may be in a partition.
    fn limits(&self, partition: Option<&str>) -> &Cluster {
        partition.and_then(|p| self.layouts.partition(p)).unwrap_or(self.cluster)
    }

    fn intent(&self, tag: String, what: &Proposed) -> Intent {
        Intent {
            name: format!("{}-{tag}", self.plan.sweep),
            tag,
            runs: what.runs.clone(),
            chain: what.chain,
            resources: what.resources.clone(),
            check: what.resources.gpus_per_node > 0,
            causes: what.causes.clone(),
            faults: what.faults.clone(),
            time: journal::now(),
        }
    }

    /// Arguments of sbatch, without the script.
    fn options(&self, intent: &Intent, exclude: &[String]) -> Vec<OsString> {
        let cluster = self.limits(intent.resources.partition.as_deref());
        script::options(intent, self.spec, cluster, self.study.dir(), exclude)
    }
}

/// Which runs to submit.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// Those that were never submitted, and those that the policy continues.
    Rest,
    /// These, whatever ended them; they are only left alone where they are done or have a job.
    These(&'a HashSet<&'a str>),
}

/// One call of sbatch to be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proposed {
    pub runs: Vec<String>,
    /// Segments of one run, one after the other.
    pub chain: bool,
    pub resources: Resources,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub causes: BTreeMap<String, Cause>,
    /// As in [`Intent`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, String>,
}

/// What a submission will do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Proposal {
    pub batches: Vec<Proposed>,
    /// Runs for which the cluster has no room now, and what sets the limit.
    pub no_room: usize,
    pub limit: Option<String>,
    /// Nodes that its jobs avoid.
    pub left_out: Vec<BadNode>,
}

/// One call of sbatch that was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Submitted {
    pub job: u64,
    pub tag: String,
    #[serde(flatten)]
    pub what: Proposed,
    /// An earlier submission made it and died before it could say so.
    pub recovered: bool,
}

/// What a submission did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    pub runs: usize,
    pub done: usize,
    /// Runs that had a job already.
    pub live: usize,
    pub submitted: Vec<Submitted>,
    /// Runs that only `isoflop retry` takes up, by what ended them.
    pub given_up: BTreeMap<String, Cause>,
    pub cancelled: usize,
    pub no_room: usize,
    pub limit: Option<String>,
    /// Nodes that the jobs submitted now avoid.
    pub left_out: Vec<BadNode>,
}

/// A run, and what ended it before.
type Again = (String, Option<Cause>);

/// Groups runs into calls of sbatch: arrays of runs with equal resources, none longer than the cluster lets, and chains.
/// `room` is the number of tasks that may be submitted.
pub fn propose(
    context: &Context<'_>,
    history: &History,
    now: &Standings,
    which: Which<'_>,
    room: u64,
) -> Proposal {
    let most_seconds = context.cluster.max_seconds.as_ref().map(|(s, _)| *s);
    let mut groups: Vec<(Resources, Vec<Again>)> = Vec::new();
    let mut chains = Vec::new();
    for (run, standing) in context.plan.runs.iter().zip(&now.runs) {
        let Some(cause) = wanted(standing, which) else { continue };
        let row = &standing.row;
        let step_seconds = (row.tokens_per_s > 0.0).then(|| run.batch_tokens as f64 / row.tokens_per_s);
        let pace = Pace {
            step_seconds,
            steps_left: run.steps.saturating_sub(row.step),
            save_seconds: row.save_seconds,
        };
        let more = history.more_memory(&run.id) + usize::from(cause == Some(Cause::OutOfMemory));
        let demand = match context.layouts.of_run(&run.id) {
            Some(layout) => {
                let most = context.limits(layout.partition.as_deref()).max_seconds.as_ref().map(|(s, _)| *s);
                demand_of_layout(run, layout, context.spec, most, pace.steps_left)
            }
            None => demand(run, context.spec, most_seconds, pace, MORE_MEMORY.powi(more.min(8) as i32)),
        };
        if demand.segments > 1 {
            chains.push((demand, run.id.clone(), cause));
        } else if let Some((_, runs)) = groups.iter_mut().find(|(r, _)| *r == demand.resources) {
            runs.push((run.id.clone(), cause));
        } else {
            groups.push((demand.resources, vec![(run.id.clone(), cause)]));
        }
    }
    let mut proposal = Proposal {
        left_out: now.bad_nodes.clone(),
        limit: context.cluster.max_submit.as_ref().map(|(_, l)| l.clone()),
        ..Proposal::default()
    };
    let mut room = room;
    let largest = context.cluster.max_tasks();
    for (demand, run, cause) in chains {
        let segments = u64::from(demand.segments.min(largest)).min(room) as usize;
        if segments == 0 {
            proposal.no_room += 1;
            continue;
        }
        room -= segments as u64;
        let causes = cause.map(|c| (run.clone(), c)).into_iter().collect();
        let runs = vec![run; segments];
        let faults = faults(now, &runs[..1]);
        let resources = demand.resources;
        proposal.batches.push(Proposed { runs, chain: segments > 1, resources, causes, faults });
    }
    for (resources, mut runs) in groups {
        while !runs.is_empty() && room > 0 {
            let rest = runs
                .split_off(runs.len().min(largest as usize).min(usize::try_from(room).unwrap_or(usize::MAX)));
            room -= runs.len() as u64;
            let causes = runs.iter().filter_map(|(run, cause)| Some((run.clone(), (*cause)?))).collect();
            let runs: Vec<String> =
                std::mem::replace(&mut runs, rest).into_iter().map(|(run, _)| run).collect();
            let resources = resources.clone();
            let faults = faults(now, &runs);
            proposal.batches.push(Proposed { runs, chain: false, resources, causes, faults });
        }
        proposal.no_room += runs.len();
    }
    proposal
}

/// The jobs of these runs that ended by a fault of their node, and the node.
fn faults(now: &Standings, runs: &[String]) -> BTreeMap<String, String> {
    let runs: HashSet<&str> = runs.iter().map(String::as_str).collect();
    let is_fault = |s: &&Standing| {
        let cause = match s.verdict {
            Verdict::Continues { cause } | Verdict::GivenUp { cause } => Some(cause),
            _ => None,
        };
        matches!(cause, Some(Cause::NodeFail | Cause::BootFail)) && runs.contains(s.row.id.as_str())
    };
    let jobs = now.runs.iter().filter(is_fault).filter_map(|s| s.job.as_ref());
    jobs.map(|job| (job.id.clone(), job.nodes.clone())).collect()
}

/// Whether a run is to be submitted, and what ended it before.
fn wanted(standing: &Standing, which: Which<'_>) -> Option<Option<Cause>> {
    let named = match which {
        Which::Rest => false,
        Which::These(runs) if !runs.contains(standing.row.id.as_str()) => return None,
        Which::These(_) => true,
    };
    match standing.verdict {
        Verdict::Done | Verdict::Live => None,
        Verdict::New => Some(None),
        Verdict::Continues { cause } => Some(Some(cause)),
        Verdict::GivenUp { cause } => named.then_some(Some(cause)),
        Verdict::Cancelled => named.then_some(Some(Cause::Cancelled)),
    }
}

/// Submits. What an earlier process left open is settled first.
///
/// # Errors
/// When Slurm refuses or does not answer, or a file cannot be written. The same call goes on from there.
pub fn submit(context: &Context<'_>, which: Which<'_>) -> Result<Report, SlurmError> {
    let mut journal = Journal::open(context.study.dir())?;
    let mut report = Report { runs: context.plan.runs.len(), ..Report::default() };
    settle(context, &mut journal, &mut report)?;
    if let Which::These(runs) = which {
        let runs =
            context.plan.runs.iter().map(|r| r.id.clone()).filter(|id| runs.contains(id.as_str())).collect();
        journal.write(Record::Retried { runs, time: journal::now() })?;
    }
    let history = History::of(journal.records());
    let now = standings(context.slurm, context.study, context.plan, &history)?;
    if let Some(said) = now.incomplete {
        return Err(SlurmError::Incomplete { said });
    }
    for standing in &now.runs {
        match standing.verdict {
            Verdict::Done => report.done += 1,
            Verdict::Live => report.live += 1,
            Verdict::GivenUp { cause } if wanted(standing, which).is_none() => {
                report.given_up.insert(standing.row.id.clone(), cause);
            }
            Verdict::Cancelled if wanted(standing, which).is_none() => report.cancelled += 1,
            _ => {}
        }
    }
    let is_wanted = |s: &Standing| wanted(s, which).is_some();
    let room = if now.runs.iter().any(is_wanted) { context.cluster.room(context.slurm)? } else { 0 };
    let proposal = propose(context, &history, &now, which, room);
    (report.no_room, report.limit, report.left_out) = (proposal.no_room, proposal.limit, proposal.left_out);
    let exclude: Vec<String> = report.left_out.iter().map(|n| n.node.clone()).collect();
    for what in proposal.batches {
        let submitted = one(context, &mut journal, what, &exclude)?;
        report.submitted.push(submitted);
    }
    Ok(report)
}

/// Finds out what became of submissions that the journal leaves open.
fn settle(context: &Context<'_>, journal: &mut Journal, report: &mut Report) -> Result<(), SlurmError> {
    let open: Vec<Intent> = History::of(journal.records()).open().cloned().collect();
    for intent in open {
        if let Some(job) = settled(context, journal, &intent)? {
            let Intent { tag, runs, chain, resources, causes, faults, .. } = intent;
            let what = Proposed { runs, chain, resources, causes, faults };
            report.submitted.push(Submitted { job, tag, what, recovered: true });
        }
    }
    Ok(())
}

/// The job of an intent, by its tag. Where there is none it can do nothing any more, should it appear after all.
fn settled(context: &Context<'_>, journal: &mut Journal, intent: &Intent) -> Result<Option<u64>, SlurmError> {
    let tag = intent.tag.clone();
    let found = view::find(context.slurm, context.study.dir(), intent)?;
    if let Some(job) = found {
        journal.write(Record::Submitted { tag, job, recovered: true })?;
    } else {
        let void = script::void(context.study.dir(), &tag);
        let folder = script::folder(context.study.dir(), &tag);
        std::fs::create_dir_all(&folder).map_err(|e| FileError::new("create", &folder, e))?;
        replace(&void, b"no job with this tag was found\n", true)?;
        journal.write(Record::Absent { tag })?;
    }
    Ok(found)
}

/// Seconds between attempts where the controller is away.
const PAUSES: [u64; 5] = [1, 2, 4, 8, 16];

/// One call of sbatch, made again only when it is known that the one before made no job.
fn one(
    context: &Context<'_>,
    journal: &mut Journal,
    what: Proposed,
    exclude: &[String],
) -> Result<Submitted, SlurmError> {
    let mut pauses = PAUSES.into_iter();
    loop {
        journal.check()?;
        let tag = journal::tag();
        let intent = context.intent(tag.clone(), &what);
        journal.write(Record::Intent(intent.clone()))?;
        let path = script::write(&intent, context.study.dir(), context.worker)?;
        let mut options = context.options(&intent, exclude);
        options.push(path.into());
        journal.step();
        let answer = context.slurm.run("sbatch", &options, SUBMIT_LIMIT);
        journal.step();
        let source = match answer {
            Ok((said, _)) => {
                let job = job_number(&said)?;
                journal.write(Record::Submitted { tag: tag.clone(), job, recovered: false })?;
                return Ok(Submitted { job, tag, what, recovered: false });
            }
            Err(e) => e,
        };
        if !source.is_away() {
            journal.write(Record::Refused { tag, reason: source.to_string() })?;
            return Err(refused(context, &what, source));
        }
        // The answer is lost, the job perhaps not.
        loop {
            let Some(seconds) = pauses.next() else { return Err(refused(context, &what, source)) };
            std::thread::sleep(Duration::from_secs(seconds));
            match settled(context, journal, &intent) {
                Ok(Some(job)) => return Ok(Submitted { job, tag, what, recovered: true }),
                Ok(None) => break,
                Err(e) if e.is_away() => {}
                Err(e) => return Err(e),
            }
        }
    }
}

fn refused(context: &Context<'_>, what: &Proposed, source: CommandError) -> SlurmError {
    let runs = if what.chain { 1 } else { what.runs.len() };
    SlurmError::Submit {
        what: format!("{}: an array of {runs} runs was not submitted", context.plan.sweep),
        source,
    }
}

/// Of `sbatch --parsable`: `12`, or `12;cluster`.
fn job_number(said: &str) -> Result<u64, SlurmError> {
    let line = said.lines().last().unwrap_or_default();
    let number = line.split(';').next().unwrap_or_default().trim();
    number.parse().map_err(|_| SlurmError::NoJobNumber { said: line.to_owned() })
}

/// One call of sbatch that a submission would make.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    pub what: Proposed,
    /// As a shell would take it.
    pub command: String,
    pub script: String,
    /// What Slurm says of when and where it would start.
    pub estimate: Option<String>,
}

/// What a submission would do; nothing is written or submitted. The tag, which a submission draws, is shown as `TAG`.
///
/// # Errors
/// When Slurm or the study cannot be read.
pub fn dry_run(context: &Context<'_>) -> Result<(Proposal, Vec<Shown>), SlurmError> {
    let history = History::read(context.study.dir())?.unwrap_or_default();
    let now = standings(context.slurm, context.study, context.plan, &history)?;
    let proposal = propose(context, &history, &now, Which::Rest, context.cluster.room(context.slurm)?);
    let exclude: Vec<String> = proposal.left_out.iter().map(|n| n.node.clone()).collect();
    let mut shown = Vec::new();
    for what in &proposal.batches {
        let intent = context.intent("TAG".into(), what);
        let options = context.options(&intent, &exclude);
        let test: Vec<OsString> = [OsString::from("--test-only"), "--wrap=true".into()]
            .into_iter()
            .chain(options.clone())
            .collect();
        let estimate = context.slurm.run("sbatch", &test, SUBMIT_LIMIT);
        let estimate = estimate.map_or_else(
            |e| e.to_string(),
            |(_, said)| said.trim().trim_start_matches("sbatch: ").to_owned(),
        );
        let path = script::folder(context.study.dir(), "TAG").join("job.sh");
        let arguments: Vec<OsString> = options.into_iter().chain([path.into()]).collect();
        shown.push(Shown {
            what: what.clone(),
            command: script::shown("sbatch", &arguments),
            script: script::script(&intent),
            estimate: Some(estimate).filter(|e| !e.is_empty()),
        });
    }
    Ok((proposal, shown))
}
