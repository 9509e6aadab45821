//! What `[executor]` means for a cluster, with values that no scheduler could take refused.

use super::SlurmSpec;
use super::error::Source;
use super::resolve::{Checked, at_least_one};
use super::schema::{ExecutorKind, ExecutorTable};
use crate::display::parse_bytes;
use crate::slurm::time::parse_limit;
use serde_spanned::Spanned;

/// Options that isoflop gives itself, or that would make of a job something else than what it counts on.
const OURS: [&str; 34] = [
    "-A",
    "--account",
    "-a",
    "--array",
    "-C",
    "--constraint",
    "-c",
    "--cpus-per-task",
    "-D",
    "--chdir",
    "-J",
    "--job-name",
    "--mem",
    "-N",
    "--nodes",
    "-n",
    "--ntasks",
    "-o",
    "--output",
    "--open-mode",
    "-p",
    "--partition",
    "--parsable",
    "-q",
    "--qos",
    "--requeue",
    "--no-requeue",
    "--signal",
    "-t",
    "--time",
    "--test-only",
    "--wait",
    "-W",
    "--wrap",
];

/// The cluster that the sweep file describes; none where it says `kind = "local"`.
pub(super) fn slurm(source: &Source<'_>, table: &ExecutorTable) -> Checked<Option<SlurmSpec>> {
    let local = table.kind == ExecutorKind::Local;
    let name = |key: &str, value: &Option<Spanned<String>>| -> Checked<Option<String>> {
        let Some(text) = value else { return Ok(None) };
        if local {
            return Err(no_use(source, key, text.span()));
        }
        if text.get_ref().is_empty() || text.get_ref().chars().any(char::is_control) {
            let found = format!("{:?}", text.get_ref());
            return Err(source.bad_value(text.span(), key, found, "one line of text that is not empty"));
        }
        Ok(Some(text.get_ref().clone()))
    };
    let number = |key: &str, value: &Option<Spanned<u32>>| -> Checked<Option<u32>> {
        match value {
            Some(v) if local => Err(no_use(source, key, v.span())),
            given => at_least_one(source, key, given.as_ref()),
        }
    };
    let time = name("executor.time_limit", &table.time_limit)?;
    let time_limit = match (&table.time_limit, time) {
        (Some(value), Some(text)) => Some(parse_limit(&text).filter(|s| *s >= 60).ok_or_else(|| {
            let allowed = "a time from one minute, such as \"4h\", \"30min\", \"04:00:00\" or \"1-12:00:00\"";
            source.bad_value(value.span(), "executor.time_limit", format!("{text:?}"), allowed)
        })?),
        _ => None,
    };
    let mem = match (&table.mem, name("executor.mem", &table.mem)?) {
        (Some(value), Some(text)) => Some(parse_bytes(&text).map_err(|_| {
            let allowed = "an amount of memory above 0, such as \"4GB\" or \"512MiB\"";
            source.bad_value(value.span(), "executor.mem", format!("{text:?}"), allowed)
        })?),
        _ => None,
    };
    let spec = SlurmSpec {
        partition: name("executor.partition", &table.partition)?,
        account: name("executor.account", &table.account)?,
        qos: name("executor.qos", &table.qos)?,
        constraint: name("executor.constraint", &table.constraint)?,
        time_limit,
        cpus_per_task: number("executor.cpus_per_task", &table.cpus_per_task)?.unwrap_or(1),
        mem,
        max_running: number("executor.max_running", &table.max_running)?,
        worker: name("executor.worker", &table.worker)?.map(Into::into),
        sbatch: raw(source, table, local)?,
    };
    Ok((!local).then_some(spec))
}

fn no_use(source: &Source<'_>, key: &str, span: std::ops::Range<usize>) -> Box<super::FileError> {
    let short = key.strip_prefix("executor.").unwrap_or(key);
    let message = format!("`{short}` has no use with kind = \"local\"");
    let help = "write kind = \"slurm\" for a cluster".to_owned();
    source.error(span, key, message, help)
}

/// The options that are passed on. `--option=value` is one of them; a value of its own would be taken for the script.
fn raw(source: &Source<'_>, table: &ExecutorTable, local: bool) -> Checked<Vec<String>> {
    let key = "executor.sbatch";
    let Some(list) = &table.sbatch else { return Ok(Vec::new()) };
    if local {
        return Err(no_use(source, key, list.span()));
    }
    let mut options = Vec::new();
    for option in list.get_ref() {
        let text = option.get_ref();
        let shown = format!("{text:?}");
        if !text.starts_with('-') || text == "-" || text == "--" || text.contains('\0') {
            let allowed = "options such as \"--mail-type=END\", each with its value after a `=`";
            return Err(source.bad_value(option.span(), key, shown, allowed));
        }
        let name = text.split('=').next().unwrap_or(text);
        let short = name.get(..2).filter(|_| !name.starts_with("--"));
        // Slurm's commands take the beginning of a long option for the whole.
        let begins = |ours: &str| name.starts_with("--") && ours.starts_with(name);
        if let Some(ours) = OURS.iter().find(|o| **o == name || Some(**o) == short || begins(o)) {
            let message = format!("`{ours}` is isoflop's own to give");
            let help = "it follows from the runs and from the keys of [executor]".to_owned();
            return Err(source.error(option.span(), key, message, help));
        }
        options.push(text.clone());
    }
    Ok(options)
}
