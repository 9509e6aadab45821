//! Where a whole study stands at one moment: its runs, their jobs, and what they have cost and will. `isoflop status` prints
//! it and its screen shows it; nothing of it is computed elsewhere.

use crate::plan::Plan;
use crate::slurm::SlurmError;
use crate::slurm::command::Slurm;
use crate::slurm::explain::explain;
use crate::slurm::history::History;
use crate::slurm::journal::now;
use crate::slurm::nodes::BadNode;
use crate::slurm::parse::JobState;
use crate::slurm::standing::{JobRow, Standing, Verdict, open, together};
use crate::slurm::view::{View, view};
use crate::status::{RunRow, rows};
use crate::study::Study;
use crate::work::{Timings, Unit, Work, total};
use isoflop_runtime::status::State;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where a run stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// A worker trains it.
    Running,
    /// It has a job that waits in the queue.
    Queued,
    /// It has neither worker nor job, and the next submission or `isoflop run` takes it up.
    Left,
    /// A person took it out of the queue.
    Cancelled,
    /// It failed, or was tried as often as may be: a person must look.
    Failed,
    Diverged,
    Finished,
}

impl Group {
    pub const ALL: [Group; 7] = [
        Group::Running,
        Group::Queued,
        Group::Left,
        Group::Cancelled,
        Group::Failed,
        Group::Diverged,
        Group::Finished,
    ];

    fn of(row: &RunRow, standing: Option<&Standing>) -> Group {
        match (row.state, standing.map(|s| s.verdict)) {
            // Of a study that is only checked nothing more is to be done.
            (State::Finished | State::Checked, _) => Group::Finished,
            (State::Diverged, _) => Group::Diverged,
            (_, Some(Verdict::Live)) => match standing.and_then(|s| s.job.as_ref()?.state) {
                Some(JobState::Running | JobState::Completing) => Group::Running,
                _ => Group::Queued,
            },
            (_, Some(Verdict::Cancelled)) => Group::Cancelled,
            (_, Some(Verdict::GivenUp { .. })) => Group::Failed,
            (_, Some(_)) => Group::Left,
            (State::Running, None) => Group::Running,
            (State::Failed, None) => Group::Failed,
            (State::Pending | State::Interrupted, None) => Group::Left,
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Group::Running => "running",
            Group::Queued => "queued",
            Group::Left => "left",
            Group::Cancelled => "cancelled",
            Group::Failed => "failed",
            Group::Diverged => "diverged",
            Group::Finished => "finished",
        })
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    #[serde(flatten)]
    pub row: RunRow,
    pub group: Group,
    /// None where the study was never submitted, or Slurm was never reached.
    #[serde(flatten)]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRow>,
    /// What it has cost and will.
    pub work: Work,
    /// What `isoflop explain` says of it, where it was submitted.
    #[serde(skip)]
    pub line: Option<String>,
}

/// A study at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overview {
    pub sweep: String,
    /// In the order of the plan.
    pub runs: Vec<RunView>,
    pub work: Work,
    /// Nodes that further jobs avoid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<BadNode>,
    /// When Slurm last answered, in seconds since 1970; none for a study that was never submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<u64>,
    /// What could not be found out of jobs, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slurm_error: Option<String>,
}

impl Overview {
    /// How many runs are in each group that has any.
    pub fn counts(&self) -> impl Iterator<Item = (Group, usize)> {
        let count = |group| self.runs.iter().filter(|r| r.group == group).count();
        Group::ALL.into_iter().map(move |group| (group, count(group))).filter(|(_, n)| *n > 0)
    }
}

/// What Slurm said at one moment of the jobs that there were then.
#[derive(Debug)]
pub struct Answer {
    history: History,
    view: View,
    /// Seconds since 1970.
    at: u64,
}

impl Answer {
    /// What was left out, where the accounts did not answer.
    pub fn incomplete(&self) -> Option<&str> {
        self.view.incomplete.as_deref()
    }
}

/// A study about whose jobs Slurm is asked.
#[derive(Clone, Debug)]
pub struct Asker {
    study: Study,
    plan: Plan,
}

impl Asker {
    /// Asks Slurm once; none for a study that was never submitted, and then no command is run.
    ///
    /// # Errors
    /// When Slurm cannot be asked, or a file not be read.
    pub fn ask(&self, slurm: &Slurm) -> Result<Option<Answer>, SlurmError> {
        let Some(history) = History::read(self.study.dir())? else { return Ok(None) };
        let rows = rows(&self.study, &self.plan)?;
        let view = view(slurm, &history, &open(&rows))?;
        Ok(Some(Answer { history, view, at: now() }))
    }
}

/// A study whose files are read again and again.
#[derive(Debug)]
pub struct Reader {
    study: Study,
    plan: Plan,
    timings: Timings,
}

impl Reader {
    /// # Errors
    /// When `dir` is no study.
    pub fn open(dir: &Path) -> Result<Reader, SlurmError> {
        let study = Study::new(dir);
        let plan = study.read_plan()?;
        Ok(Reader { study, plan, timings: Timings::default() })
    }

    /// Who asks Slurm about this study, on another thread perhaps.
    pub fn asker(&self) -> Asker {
        Asker { study: self.study.clone(), plan: self.plan.clone() }
    }

    /// Reads the files of all runs and puts them beside the newest answer of Slurm.
    ///
    /// # Errors
    /// When a file of the study cannot be read.
    pub fn read(&mut self, answer: Option<&Answer>) -> Result<Overview, SlurmError> {
        let rows = rows(&self.study, &self.plan)?;
        let mut left_out = Vec::new();
        let standings: Vec<Option<Standing>> = match answer {
            Some(Answer { history, view, .. }) => {
                let all = together(&self.study, history, view, rows.clone())?;
                left_out = all.bad_nodes;
                all.runs.into_iter().map(Some).collect()
            }
            None => rows.iter().map(|_| None).collect(),
        };
        let has_gpus = |s: &Standing| s.resources.as_ref().is_some_and(|r| r.gpus_per_node > 0);
        let unit = match answer {
            None => Unit::Worker,
            Some(_) if standings.iter().flatten().any(has_gpus) => Unit::Gpu,
            Some(_) => Unit::Cpu,
        };
        let mut runs = Vec::with_capacity(rows.len());
        for ((run, row), standing) in self.plan.runs.iter().zip(rows).zip(standings) {
            let units = standing.as_ref().map_or(1.0, Standing::units);
            // A run that Slurm knows to be over is no longer running, whatever its files say.
            let row = standing.as_ref().map_or(row, |s| s.row.clone());
            let work = self.timings.work(run, &row, &self.study.run_dir(&run.id), units, unit);
            let group = Group::of(&row, standing.as_ref());
            let line = standing.as_ref().map(|s| explain(s, None));
            let (verdict, job) = standing.map_or((None, None), |s| (Some(s.verdict), s.job));
            runs.push(RunView { row, group, verdict, job, work, line });
        }
        let work = total(runs.iter().map(|r| (r.work, r.group == Group::Running)));
        Ok(Overview {
            sweep: self.plan.sweep.clone(),
            runs,
            work,
            left_out,
            asked: answer.map(|a| a.at),
            slurm_error: answer.and_then(|a| a.incomplete()).map(str::to_owned),
        })
    }

    /// `metrics.csv` of a run.
    pub fn metrics(&self, run: &str) -> PathBuf {
        isoflop_runtime::rundir::RunDir::new(self.study.run_dir(run)).metrics()
    }
}
