//! What Slurm's commands print, as values. Only formats that are asked for by name are read, so that columns which other
//! versions add or widen change nothing.

use super::time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// State of a job or of one task of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    Pending,
    Running,
    /// Its processes end, or its node is cleaned up after them.
    Completing,
    /// Put back by Slurm with a hold: somebody must release it.
    Held,
    Completed,
    Failed,
    Timeout,
    Preempted,
    NodeFail,
    BootFail,
    OutOfMemory,
    Cancelled,
    /// A state of Slurm that means an end which is none of the others.
    Other,
}

impl JobState {
    /// Of a state's long name in `squeue` or `sacct`, where `CANCELLED by 1000` and `COMPLETED+` are found too.
    pub fn parse(text: &str) -> JobState {
        let word = text.split([' ', '+', ',']).next().unwrap_or_default();
        match word {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" => JobState::Pending,
            "RUNNING" | "CONFIGURING" | "SUSPENDED" | "RESIZING" | "SIGNALING" | "STAGE_OUT" | "STOPPED"
            | "POWER_UP_NODE" | "EXPEDITING" | "UPDATE_DB" => JobState::Running,
            "COMPLETING" => JobState::Completing,
            "REQUEUE_HOLD" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => JobState::Held,
            "COMPLETED" => JobState::Completed,
            "FAILED" => JobState::Failed,
            "TIMEOUT" | "DEADLINE" => JobState::Timeout,
            "PREEMPTED" => JobState::Preempted,
            "NODE_FAIL" => JobState::NodeFail,
            "BOOT_FAIL" | "LAUNCH_FAILED" | "RECONFIG_FAIL" => JobState::BootFail,
            "OUT_OF_MEMORY" => JobState::OutOfMemory,
            "CANCELLED" => JobState::Cancelled,
            _ => JobState::Other,
        }
    }

    /// True where Slurm still has something to do for it.
    pub fn is_live(self) -> bool {
        matches!(self, JobState::Pending | JobState::Running | JobState::Completing | JobState::Held)
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            JobState::Pending => "pending",
            JobState::Running => "running",
            JobState::Completing => "completing",
            JobState::Held => "held",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Timeout => "timeout",
            JobState::Preempted => "preempted",
            JobState::NodeFail => "node-fail",
            JobState::BootFail => "boot-fail",
            JobState::OutOfMemory => "out-of-memory",
            JobState::Cancelled => "cancelled",
            JobState::Other => "ended",
        })
    }
}

/// One task of an array: the array's job number, and the task's index.
pub type TaskId = (u64, u32);

/// What `squeue` says of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueRow {
    pub task: TaskId,
    pub name: String,
    pub state: JobState,
    /// Why it is pending, or how it ended: one of Slurm's words, such as `Priority` or `JobHeldUser`.
    pub reason: String,
    pub nodes: String,
    /// When Slurm expects to start it, or did: `2026-11-23T18:00:00`. None where it does not say.
    pub start: Option<String>,
}

/// For `squeue --format`: job of the array, index, name, state, nodes, start, reason. The last may hold any text.
pub const QUEUE_FORMAT: &str = "%F|%K|%j|%T|%N|%S|%r";

/// Rows of `squeue --noheader --array --format=QUEUE_FORMAT`. Lines that are no rows of arrays are left out: they are of
/// other jobs.
pub fn queue(text: &str) -> Vec<QueueRow> {
    let row = |line: &str| {
        let mut fields = line.splitn(7, '|').map(str::trim);
        let mut next = || fields.next();
        let task = (next()?.parse().ok()?, next()?.parse().ok()?);
        let (name, state) = (next()?.to_owned(), JobState::parse(next()?));
        let known = |text: &str| !matches!(text, "" | "N/A" | "(null)" | "None assigned" | "Unknown");
        let nodes = Some(next()?).filter(|n| known(n)).unwrap_or_default().to_owned();
        let start = Some(next()?).filter(|s| known(s)).map(str::to_owned);
        let reason = next()?.trim_matches(['(', ')']).to_owned();
        let held = state == JobState::Pending && (reason.starts_with("JobHeld") || reason.ends_with("held"));
        let state = if held { JobState::Held } else { state };
        Some(QueueRow { task, name, state, reason, nodes, start })
    };
    text.lines().filter_map(row).collect()
}

/// What `sacct` says of one attempt at a task: one of several where it was put back into the queue.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountRow {
    pub task: TaskId,
    pub name: String,
    pub state: JobState,
    pub exit: i32,
    pub signal: i32,
    pub elapsed_s: u64,
    pub nodes: String,
}

/// For `sacct --format`.
pub const ACCOUNT_FORMAT: &str = "JobID,JobName,State,ExitCode,ElapsedRaw,NodeList";

/// Rows of `sacct --noheader --parsable2 --allocations --format=ACCOUNT_FORMAT`, in their order. A row that stands for
/// several tasks (`12_[0-3]`, which also is how a young array is shown as a whole) says nothing of any of them and is
/// left out, like rows of other jobs.
pub fn account(text: &str) -> Vec<AccountRow> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [id, name, state, exit, elapsed, nodes] = fields.as_slice() else { return None };
        let (job, index) = id.split_once('_')?;
        let (exit, signal) = exit.split_once(':')?;
        Some(AccountRow {
            task: (job.parse().ok()?, index.parse().ok()?),
            name: (*name).to_owned(),
            state: JobState::parse(state),
            exit: exit.parse().ok()?,
            signal: signal.parse().ok()?,
            elapsed_s: elapsed.parse().ok()?,
            nodes: (*nodes).to_owned(),
        })
    };
    text.lines().filter_map(row).collect()
}

/// What `scontrol show config` says that matters here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Such as `22.05.8`.
    pub version: String,
    pub cluster: String,
    /// Indices of an array are below this.
    pub max_array_size: u32,
    /// Tasks of one array, where the scheduler has a limit of its own for it.
    pub max_array_tasks: Option<u32>,
    pub max_job_count: Option<u64>,
    /// True where slurmdbd keeps accounts, so that `sacct` and `sacctmgr` answer.
    pub accounting: bool,
}

/// Reads `scontrol show config`: lines `Key = value`.
pub fn config(text: &str) -> Config {
    let values: BTreeMap<&str, &str> =
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.trim(), v.trim())).collect();
    let of = |key: &str| values.get(key).copied().unwrap_or_default();
    let parameters = of("SchedulerParameters");
    let max_array_tasks = parameters.split(',').find_map(|p| p.trim().strip_prefix("max_array_tasks="));
    Config {
        version: of("SLURM_VERSION").to_owned(),
        cluster: of("ClusterName").to_owned(),
        // Slurm's own default, where a version prints another name for it.
        max_array_size: of("MaxArraySize").parse().unwrap_or(1001),
        max_array_tasks: max_array_tasks.and_then(|n| n.parse().ok()),
        max_job_count: of("MaxJobCount").parse().ok(),
        accounting: of("AccountingStorageType").ends_with("/slurmdbd"),
    }
}

/// A partition, of `scontrol --oneliner show partition`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partition {
    pub name: String,
    pub is_default: bool,
    /// `UP` takes and runs jobs.
    pub state: String,
    /// Seconds; none is no limit.
    pub max_time: Option<u64>,
    /// Seconds, of a job that names none; none is the limit.
    pub default_time: Option<u64>,
    /// A QOS whose limits hold for all jobs of the partition.
    pub qos: Option<String>,
}

/// Reads partitions: one a line, pairs `Key=value` apart by blanks.
pub fn partitions(text: &str) -> Vec<Partition> {
    let partition = |line: &str| {
        let values: BTreeMap<&str, &str> =
            line.split_whitespace().filter_map(|p| p.split_once('=')).collect();
        let of = |key: &str| values.get(key).copied().unwrap_or_default();
        Some(Partition {
            name: values.get("PartitionName")?.to_string(),
            is_default: of("Default") == "YES",
            state: of("State").to_owned(),
            max_time: time::parse(of("MaxTime")),
            default_time: time::parse(of("DefaultTime")),
            qos: Some(of("QoS"))
                .filter(|q| !q.is_empty() && *q != "N/A" && *q != "(null)")
                .map(str::to_owned),
        })
    };
    text.lines().filter_map(partition).collect()
}

/// Limits of a QOS or of an association that a submission can meet. None is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccountLimits {
    pub name: String,
    /// Jobs of one user in the queue, tasks of arrays counted one by one.
    pub max_submit: Option<u64>,
    /// As `max_submit`, of all users together.
    pub group_submit: Option<u64>,
    /// Seconds of one job.
    pub max_wall: Option<u64>,
    pub default_qos: Option<String>,
}

/// For `sacctmgr show qos`.
pub const QOS_FORMAT: &str = "Name,MaxSubmitJobsPU,GrpSubmit,MaxWall";
/// For `sacctmgr show associations`.
pub const ASSOCIATION_FORMAT: &str = "Account,MaxSubmit,GrpSubmit,MaxWall,DefaultQOS,Partition";

/// Rows of `sacctmgr --noheader --parsable2 show qos format=QOS_FORMAT`.
pub fn qos(text: &str) -> Vec<AccountLimits> {
    limits(text, 4).into_iter().map(|(limits, _)| limits).collect()
}

/// Rows of `sacctmgr ... show associations format=ASSOCIATION_FORMAT`, each with the partition it is for, empty for all.
pub fn associations(text: &str) -> Vec<(AccountLimits, String)> {
    limits(text, 6)
}

fn limits(text: &str, columns: usize) -> Vec<(AccountLimits, String)> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        if fields.len() != columns {
            return None;
        }
        let of = |i: usize| fields.get(i).copied().unwrap_or_default();
        let limits = AccountLimits {
            name: of(0).to_owned(),
            max_submit: of(1).parse().ok(),
            group_submit: of(2).parse().ok(),
            max_wall: time::parse(of(3)),
            default_qos: Some(of(4)).filter(|q| !q.is_empty()).map(str::to_owned),
        };
        Some((limits, of(5).to_owned()))
    };
    text.lines().filter_map(row).collect()
}
