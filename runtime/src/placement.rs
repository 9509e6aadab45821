//! Where a process stands among those of its job: rank, node, and the GPUs it can see, from what Slurm puts into the
//! environment of a task.

use std::num::ParseIntError;

/// One process of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Names this start of the job, the same for all of its processes.
    pub attempt: String,
    pub rank: usize,
    pub ranks: usize,
    pub node: usize,
    pub nodes: usize,
    pub host: String,
    /// GPUs of this node that the job has.
    pub gpus: usize,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("${name} is `{found}`, which is no number: {source}")]
    Number { name: &'static str, found: String, source: ParseIntError },
    #[error("${name} is not set: this is no process that srun started")]
    NotSet { name: &'static str },
}

impl Placement {
    /// Of this process.
    ///
    /// # Errors
    /// Where Slurm started it but does not say where it stands.
    pub fn here() -> Result<Placement, PlacementError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Placement::of(&|name| std::env::var(name).ok(), host)
    }

    /// As [`Placement::here`], of an environment. Outside of a job step it is one process alone.
    ///
    /// # Errors
    /// As there.
    pub fn of(
        var: &dyn Fn(&'static str) -> Option<String>,
        host: String,
    ) -> Result<Placement, PlacementError> {
        let gpus = gpus(var)?;
        if var("SLURM_PROCID").is_none() {
            let attempt = format!("process-{}", std::process::id());
            return Ok(Placement { attempt, rank: 0, ranks: 1, node: 0, nodes: 1, host, gpus });
        }
        let number = |name| var(name).ok_or(PlacementError::NotSet { name }).and_then(|v| parse(name, &v));
        // A job that was put back has the same number and a larger count; another step of it another step.
        let part = |name| var(name).unwrap_or_else(|| "0".into());
        let names = ["SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID"];
        Ok(Placement {
            attempt: names.map(part).join("-"),
            rank: number("SLURM_PROCID")?,
            ranks: number("SLURM_STEP_NUM_TASKS").or_else(|_| number("SLURM_NTASKS"))?,
            node: number("SLURM_NODEID")?,
            nodes: number("SLURM_STEP_NUM_NODES").or_else(|_| number("SLURM_NNODES"))?,
            host: var("SLURMD_NODENAME").unwrap_or(host),
            gpus,
        })
    }
}

/// Those that may be used, as CUDA would see them; else those that the job has on its node.
fn gpus(var: &dyn Fn(&'static str) -> Option<String>) -> Result<usize, PlacementError> {
    if let Some(list) = var("CUDA_VISIBLE_DEVICES") {
        return Ok(list.split(',').filter(|id| !id.trim().is_empty()).count());
    }
    var("SLURM_GPUS_ON_NODE").map_or(Ok(0), |found| parse("SLURM_GPUS_ON_NODE", &found))
}

fn parse(name: &'static str, found: &str) -> Result<usize, PlacementError> {
    found.trim().parse().map_err(|source| PlacementError::Number { name, found: found.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: [(&str, &str); 9] = [
        ("SLURM_JOB_ID", "71"),
        ("SLURM_RESTART_COUNT", "2"),
        ("SLURM_STEP_ID", "0"),
        ("SLURM_PROCID", "13"),
        ("SLURM_STEP_NUM_TASKS", "128"),
        ("SLURM_NODEID", "1"),
        ("SLURM_STEP_NUM_NODES", "16"),
        ("SLURMD_NODENAME", "n2"),
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7"),
    ];

    fn of(change: (&str, Option<&str>)) -> Result<Placement, PlacementError> {
        let var = |name: &str| {
            let usual = TASK.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
            if name == change.0 { change.1 } else { usual }.map(str::to_owned)
        };
        Placement::of(&var, "head".into())
    }

    #[test]
    fn a_task_knows_its_place() {
        let place = of(("", None)).unwrap();
        assert_eq!((place.rank, place.ranks, place.node, place.nodes, place.gpus), (13, 128, 1, 16, 8));
        assert_eq!((place.host.as_str(), place.attempt.as_str()), ("n2", "71-2-0"));
        assert_eq!(of(("CUDA_VISIBLE_DEVICES", Some(""))).unwrap().gpus, 0);
    }

    #[test]
    fn outside_of_a_job_there_is_one_process() {
        let alone = of(("SLURM_PROCID", None)).unwrap();
        assert_eq!((alone.rank, alone.ranks, alone.host.as_str()), (0, 1, "head"));
    }

    #[test]
    fn what_slurm_does_not_say_is_named() {
        let said = of(("SLURM_NODEID", None)).unwrap_err().to_string();
        assert!(said.contains("$SLURM_NODEID is not set"), "{said}");
        let said = of(("SLURM_NODEID", Some("n2"))).unwrap_err().to_string();
        assert!(said.contains("$SLURM_NODEID is `n2`"), "{said}");
    }
}
