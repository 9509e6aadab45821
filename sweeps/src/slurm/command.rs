//! Runs one command of Slurm, in an environment that does not change what it does or prints.

use crate::process::output_within;
use std::ffi::{OsStr, OsString};
use std::process::Command;
use std::time::Duration;

/// Slurm's own way to wait for a controller that is away ends after some 10 s.
pub const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// sbatch sleeps and tries again by itself where the cluster has no room for more jobs.
pub const SUBMIT_LIMIT: Duration = Duration::from_secs(90);

/// Why a command of Slurm gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("there is no `{program}` on the PATH: is this a machine of the cluster? ({source})")]
    Missing { program: &'static str, source: std::io::Error },
    #[error("cannot run {program}: {source}")]
    Start { program: &'static str, source: std::io::Error },
    #[error("{program} gave no answer in {} s: is the controller away? `scontrol ping` says", limit.as_secs())]
    TimedOut { program: &'static str, limit: Duration },
    /// The controller or the database cannot be reached; asking later may help.
    #[error("{program} cannot reach Slurm: {said}")]
    Away { program: &'static str, said: String },
    #[error("{program} refuses: {said}")]
    Refused { program: &'static str, said: String },
}

impl CommandError {
    /// True where the same command may work later.
    pub fn is_away(&self) -> bool {
        matches!(self, CommandError::Away { .. } | CommandError::TimedOut { .. })
    }
}

/// Parts of messages that mean that a daemon did not answer, in versions 20.11 to 25.05.
const AWAY: [&str; 9] = [
    "Unable to contact slurm controller",
    "Unable to contact slurm database",
    "Connection refused",
    "Connection timed out",
    "Socket timed out",
    "Zero Bytes were transmitted or received",
    "Transport endpoint is not connected",
    "Slurm controller not responding",
    "Slurmctld running in standby mode",
];

/// The longest pause while the controller is away.
const LONGEST: Duration = Duration::from_secs(300);

/// The time between two questions to Slurm: longer each time that it does not answer, and at once the usual when it does.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    usual: Duration,
    pause: Duration,
}

impl Patience {
    pub fn new(usual: Duration) -> Patience {
        Patience { usual, pause: usual }
    }

    /// Until the next question.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    pub fn answered(&mut self) {
        self.pause = self.usual;
    }

    pub fn away(&mut self) {
        self.pause = (self.pause * 2).min(LONGEST).max(self.usual);
    }
}

/// Counts the commands that were run: one query of a sweep is few of them.
#[derive(Debug, Default)]
pub struct Slurm {
    ran: std::cell::Cell<usize>,
}

impl Slurm {
    pub fn new() -> Slurm {
        Slurm::default()
    }

    /// How many commands were run.
    pub fn ran(&self) -> usize {
        self.ran.get()
    }

    /// Standard output of a query. While a controller goes, squeue can end well with a part of the answer, or none, and say on
    /// standard error that it was cut off: that is no answer.
    ///
    /// # Errors
    /// When the command cannot be run, is refused, or gives no answer.
    pub fn ask<S: AsRef<OsStr>>(&self, program: &'static str, args: &[S]) -> Result<String, CommandError> {
        let (stdout, stderr) = self.run(program, args, QUERY_LIMIT)?;
        if is_of_absence(&stderr) {
            return Err(CommandError::Away { program, said: one_line(&stderr) });
        }
        Ok(stdout)
    }

    /// Standard output and standard error of a command that succeeds in time.
    ///
    /// # Errors
    /// As [`Slurm::ask`].
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &'static str,
        args: &[S],
        limit: Duration,
    ) -> Result<(String, String), CommandError> {
        self.ran.set(self.ran.get() + 1);
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(environment(std::env::vars_os()));
        let said = output_within(&mut command, limit).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => CommandError::Missing { program, source },
            _ => CommandError::Start { program, source },
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&said.stdout), text(&said.stderr));
        match said.status {
            None => Err(CommandError::TimedOut { program, limit }),
            Some(status) if status.success() => Ok((stdout, stderr)),
            Some(status) => {
                let told = one_line(if stderr.trim().is_empty() { &stdout } else { &stderr });
                let said = if told.is_empty() { format!("it ended with {status}") } else { told };
                Err(if is_of_absence(&said) {
                    CommandError::Away { program, said }
                } else {
                    CommandError::Refused { program, said }
                })
            }
        }
    }
}

/// What is left of an environment: Slurm's commands take defaults from variables such as SBATCH_ACCOUNT and
/// SQUEUE_FORMAT, and within a job from SLURM_MEM_PER_CPU and the like. Which cluster it is may be said.
fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    const OTHERS: [&str; 9] =
        ["SBATCH_", "SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_", "SALLOC_", "SRUN_", "SLURM_"];
    const KEPT: [&str; 3] = ["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"];
    let is_kept = |name: &OsStr| {
        let name = name.to_string_lossy();
        KEPT.contains(&name.as_ref()) || !OTHERS.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut kept: Vec<(OsString, OsString)> = all.filter(|(name, _)| is_kept(name)).collect();
    for (name, value) in [("LC_ALL", "C"), ("SLURM_BITSTR_LEN", "0"), ("SLURM_TIME_FORMAT", "standard")] {
        kept.retain(|(n, _)| n != name);
        kept.push((name.into(), value.into()));
    }
    kept
}

/// True where a message says that a daemon did not answer.
fn is_of_absence(said: &str) -> bool {
    AWAY.iter().any(|words| said.contains(words))
}

/// Lines of a message as one, without the program's name before each.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let bare = |line: &str| {
        let line = line.split_once(": error: ").map_or(line, |(_, rest)| rest);
        line.strip_prefix("sbatch: ").unwrap_or(line).to_owned()
    };
    lines.map(bare).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_environment_do_not_reach_slurm() {
        let given = [
            "SBATCH_ACCOUNT",
            "SQUEUE_FORMAT",
            "SLURM_JOB_ID",
            "SLURM_CONF",
            "PATH",
            "LC_ALL",
            "SLURM_TIME_FORMAT",
        ];
        let left = environment(given.into_iter().map(|n| (n.into(), "given".into())));
        let names: Vec<(String, String)> = left
            .into_iter()
            .map(|(n, v)| (n.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
            .collect();
        let of =
            |name: &str| names.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!([of("SLURM_CONF"), of("PATH")], [["given"], ["given"]]);
        assert_eq!([of("LC_ALL"), of("SLURM_TIME_FORMAT")], [["C"], ["standard"]]);
        assert!([of("SBATCH_ACCOUNT"), of("SQUEUE_FORMAT"), of("SLURM_JOB_ID")].iter().all(Vec::is_empty));
    }

    #[test]
    fn pauses_grow_until_there_is_an_answer() {
        let mut patience = Patience::new(Duration::from_secs(40));
        let pauses: Vec<u64> = (0..5)
            .map(|_| {
                patience.away();
                patience.pause().as_secs()
            })
            .collect();
        assert_eq!(pauses, [80, 160, 300, 300, 300]);
        patience.answered();
        assert_eq!(patience.pause().as_secs(), 40);
        let mut patience = Patience::new(Duration::from_secs(3_600));
        patience.away();
        assert_eq!(patience.pause().as_secs(), 3_600);
    }

    #[test]
    fn messages_are_one_line_and_an_absent_controller_is_told_apart() {
        let said = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n";
        assert_eq!(
            one_line(said),
            "Batch job submission failed: Invalid account or account/partition combination specified"
        );
        let missing = Slurm::new().ask("isoflop-has-no-such-program", &["x"]).unwrap_err();
        assert!(matches!(missing, CommandError::Missing { .. }) && !missing.is_away(), "{missing}");
        let late = Slurm::new().run("sleep", &["5"], Duration::from_millis(50)).unwrap_err();
        assert!(late.is_away(), "{late}");
        let refused = Slurm::new().ask("sh", &["-c", "echo 'squeue: error: bad' >&2; exit 1"]).unwrap_err();
        assert!(!refused.is_away() && refused.to_string() == "sh refuses: bad", "{refused}");
        let away =
            "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1";
        assert!(Slurm::new().ask("sh", &["-c", away]).unwrap_err().is_away());
        let cut =
            "echo 7; echo 'slurm_load_partitions: Unable to contact slurm controller (connect failure)' >&2";
        assert!(Slurm::new().ask("sh", &["-c", cut]).unwrap_err().is_away());
        // What sbatch prints stays known, whatever it says beside.
        assert_eq!(Slurm::new().run("sh", &["-c", cut], QUERY_LIMIT).unwrap().0, "7\n");
    }
}
