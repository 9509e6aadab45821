//! What the cluster allows: read from it each time, never assumed.

use super::SlurmError;
use super::command::Slurm;
use super::parse::{self, AccountLimits, Config, Partition};
use crate::file::SlurmSpec;
use serde::Serialize;

/// Limits that hold for the jobs of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    pub config: Config,
    /// Name, or names apart by commas, as given to sbatch.
    pub partition: String,
    /// Longest job in seconds, and what sets it. None is no limit.
    pub max_seconds: Option<(u64, String)>,
    /// Most jobs of this user in the queue, and what sets it. None is no limit.
    pub max_submit: Option<(u64, String)>,
}

impl Cluster {
    /// Tasks that one array can have.
    pub fn max_tasks(&self) -> u32 {
        self.config.max_array_size.min(self.config.max_array_tasks.unwrap_or(u32::MAX)).max(1)
    }

    /// How many tasks more may be submitted now; one query where there is a limit, none where there is not.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub fn room(&self, slurm: &Slurm) -> Result<u64, SlurmError> {
        let Some((limit, _)) = &self.max_submit else { return Ok(u64::MAX) };
        let user = format!("--user={}", user_id());
        let rows = slurm.ask("squeue", &["--noheader", "--array", "--format=%i", &user])?;
        Ok(limit.saturating_sub(rows.lines().count() as u64))
    }
}

/// Number of the user that this process works for.
pub fn user_id() -> u32 {
    // SAFETY: geteuid has no arguments, no effects and cannot fail.
    unsafe { libc::geteuid() }
}

/// Asks the cluster for its limits: two commands, and three more where it keeps accounts.
///
/// # Errors
/// When it cannot be asked, or has no such partition, or one that takes no jobs.
pub fn probe(slurm: &Slurm, spec: &SlurmSpec) -> Result<Cluster, SlurmError> {
    let config = parse::config(&slurm.ask("scontrol", &["show", "config"])?);
    let all = parse::partitions(&slurm.ask("scontrol", &["--oneliner", "show", "partition"])?);
    let chosen = chosen(&all, spec.partition.as_deref())?;
    let partition = chosen.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(",");
    let (mut seconds, mut submit) = (Limit::default(), Limit::default());
    for p in &chosen {
        seconds.lower(p.max_time, || format!("MaxTime of partition {}", p.name));
    }
    if config.accounting {
        let user = slurm.ask("id", &["-un"])?;
        for (limits, what) in of_accounts(slurm, &config, spec, &chosen, user.trim())? {
            seconds.lower(limits.max_wall, || format!("MaxWall of {what}"));
            submit.lower(limits.max_submit, || format!("MaxSubmitJobs of {what}"));
            submit.lower(limits.group_submit, || format!("GrpSubmitJobs of {what}"));
        }
    }
    Ok(Cluster { config, partition, max_seconds: seconds.0, max_submit: submit.0 })
}

/// The lowest limit met, and what set it.
#[derive(Default)]
struct Limit(Option<(u64, String)>);

impl Limit {
    fn lower(&mut self, limit: Option<u64>, what: impl FnOnce() -> String) {
        if let Some(limit) = limit
            && self.0.as_ref().is_none_or(|(lowest, _)| limit < *lowest)
        {
            self.0 = Some((limit, what()));
        }
    }
}

/// The partitions that jobs may go to.
fn chosen<'p>(all: &'p [Partition], wanted: Option<&str>) -> Result<Vec<&'p Partition>, SlurmError> {
    let known = || all.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    let found: Vec<&Partition> = match wanted {
        None => all.iter().filter(|p| p.is_default).collect(),
        Some(names) => names
            .split(',')
            .map(|name| {
                let found = all.iter().find(|p| p.name == name.trim());
                found.ok_or_else(|| SlurmError::Partition {
                    found: name.trim().to_owned(),
                    known: known().join(", "),
                })
            })
            .collect::<Result<_, _>>()?,
    };
    if found.is_empty() {
        return Err(SlurmError::NoPartition { known: known().join(", ") });
    }
    if let Some(down) = found.iter().find(|p| matches!(p.state.as_str(), "INACTIVE" | "DRAIN")) {
        return Err(SlurmError::PartitionClosed { name: down.name.clone(), state: down.state.clone() });
    }
    Ok(found)
}

/// Limits of the associations and the QOS that the jobs will have, each with words for it.
fn of_accounts(
    slurm: &Slurm,
    config: &Config,
    spec: &SlurmSpec,
    partitions: &[&Partition],
    user: &str,
) -> Result<Vec<(AccountLimits, String)>, SlurmError> {
    let options = ["--noheader", "--parsable2", "show"];
    let associations = slurm.ask(
        "sacctmgr",
        &[
            &options[..],
            &[
                "associations",
                &format!("cluster={}", config.cluster),
                &format!("user={user}"),
                &format!("format={}", parse::ASSOCIATION_FORMAT),
            ],
        ]
        .concat(),
    )?;
    let mine: Vec<AccountLimits> = parse::associations(&associations)
        .into_iter()
        .filter(|(a, partition)| {
            spec.account.as_ref().is_none_or(|account| *account == a.name)
                && (partition.is_empty() || partitions.iter().any(|p| p.name == *partition))
        })
        .map(|(a, _)| a)
        .collect();
    let qos = slurm
        .ask("sacctmgr", &[&options[..], &["qos", &format!("format={}", parse::QOS_FORMAT)]].concat())?;
    let default = mine.iter().find_map(|a| a.default_qos.clone()).unwrap_or_else(|| "normal".into());
    let job_qos = spec.qos.clone().unwrap_or(default);
    let named = |name: &str| name == job_qos || partitions.iter().any(|p| p.qos.as_deref() == Some(name));
    let mut limits: Vec<(AccountLimits, String)> = Vec::new();
    for a in mine {
        let what = format!("user {user} in account {}", a.name);
        limits.push((a, what));
    }
    for q in parse::qos(&qos).into_iter().filter(|q| named(&q.name)) {
        let what = format!("QOS {}", q.name);
        limits.push((q, what));
    }
    Ok(limits)
}
