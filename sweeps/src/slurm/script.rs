//! The job script, the options of its sbatch, and the files it reads. Nothing that a user named is ever part of the script's
//! text: runs and the program are data in files, and the study is the job's working directory.

use super::SlurmError;
use super::journal::Intent;
use super::probe::Cluster;
use crate::file::SlurmSpec;
use crate::slurm::time;
use isoflop_runtime::rundir::{FileError, replace, sync_dir};
use isoflop_runtime::train::{EXIT_CONTINUE, EXIT_NOT_OWNER};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How often a job puts itself back into the queue before a person should look at it.
const MOST_REQUEUES: u32 = 200;
/// Attempts to take a run from an owner that is about to end, 5 s apart.
const HELD_ATTEMPTS: u32 = 24;

/// `<study>/slurm/<tag>`: what belongs to one call of sbatch.
pub fn folder(study: &Path, tag: &str) -> PathBuf {
    study.join("slurm").join(tag)
}

/// Where a task writes when it began and ended: lines `start JOB RESTART NODE SECONDS` and `end CODE SECONDS`.
pub fn ledger(study: &Path, tag: &str, index: u32) -> PathBuf {
    folder(study, tag).join(format!("{index}.attempts"))
}

/// What a task and its worker said.
pub fn output(study: &Path, tag: &str, index: u32) -> PathBuf {
    folder(study, tag).join(format!("{index}.out"))
}

/// A submission that was given up: should its job appear after all, it ends at once.
pub fn void(study: &Path, tag: &str) -> PathBuf {
    folder(study, tag).join("void")
}

/// The script of one call of sbatch. It differs from others by tag, numbers and whether it is a chain, and by nothing
/// else.
pub fn script(intent: &Intent) -> String {
    let threads = intent.resources.cpus_per_task;
    let last = intent.runs.len().saturating_sub(1);
    let (tag, chain) = (&intent.tag, u8::from(intent.chain));
    let does = if intent.check { "checks" } else { "trains" };
    let command = command(intent);
    format!(
        r#"#!/bin/bash
# Written by isoflop. Each task of this array {does} one run of a study, which is the job's working directory.
# slurm/{tag}/runs names a run for each task and slurm/{tag}/worker the program, each name ended by a NUL.
set -u
batch=slurm/{tag} last={last} chain={chain} threads={threads}
task=${{SLURM_ARRAY_TASK_ID:?not a task of an array}}
job=$SLURM_ARRAY_JOB_ID
say() {{ printf 'isoflop: %s\n' "$*"; }}
note() {{ printf '%s %(%s)T\n' "$*" -1 >>"$batch/$task.attempts"; }}

# Slurm would replace these in the name of the output, which it was not given then.
case $PWD in *[%\\]*) [ ! -d "$batch" ] || exec >>"$batch/$task.out" 2>&1 ;; esac
if [ ! -r "$batch/runs" ]; then
    say "no $batch/runs in $PWD on $(hostname): is the file system of the study mounted there?"
    exit 1
fi
if [ -e "$batch/void" ]; then
    say "this submission was given up before its job appeared: nothing to do"
    exit 0
fi
mapfile -d '' -t runs <"$batch/runs"
IFS= read -r -d '' worker <"$batch/worker"
run=${{runs[task]}}
{command}

# A signal of Slurm's goes on to the worker, which saves and ends.
signal= signals=0 child=
pass_on() {{
    signal=$1 signals=$((signals + 1))
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null
}}
trap 'pass_on USR2' USR2
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

say "$(date -u +%FT%TZ) job ${{job}}_$task on ${{SLURMD_NODENAME:-unknown}}, restart ${{SLURM_RESTART_COUNT:-0}}: $run"
note "start ${{job}}_$task ${{SLURM_RESTART_COUNT:-0}} ${{SLURMD_NODENAME:-unknown}}"
code={not_owner} attempt=0
while [ -z "$signal" ]; do
    "${{command[@]}}" &
    child=$!
    [ -z "$signal" ] || kill -s "$signal" "$child" 2>/dev/null
    while :; do
        before=$signals
        wait "$child"
        got=$?
        # A status that is gone was the one before.
        [ "$got" = 127 ] && [ "$signals" != 0 ] || code=$got
        # Not the worker ended, but a signal came.
        [ "$signals" != "$before" ] || break
    done
    child=
    attempt=$((attempt + 1))
    # Slurm can start a second copy while the first still writes; the first goes before long.
    [ "$code" = {not_owner} ] && [ "$attempt" -lt {HELD_ATTEMPTS} ] || break
    say "another process owns $run; trying again in 5 s"
    sleep 5 &
    wait $!
done
note "end $code"
say "$(date -u +%FT%TZ) $run ended with $code"

if [ "$signal" = USR2 ] && {{ [ "$code" = {again} ] || [ "$code" = 140 ]; }}; then
    # Near the limit of time: the next segment goes on, or this job does once more.
    [ "$chain" = 0 ] || [ "$task" = "$last" ] || exit 0
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {MOST_REQUEUES} ] && scontrol requeue "${{job}}_$task"; then
        sleep 60 &
        wait $!
    fi
    exit {again}
fi
case $code in
{again} | {not_owner} | 1[3-9][0-9]) ;;
*) [ "$chain" = 0 ] || [ "$task" = "$last" ] || scancel --state=PENDING "$job" ;;
esac
exit "$code"
"#,
        again = EXIT_CONTINUE,
        not_owner = EXIT_NOT_OWNER,
    )
}

/// The line that says what is started. Options of srun are said again where it would not take them from the job.
fn command(intent: &Intent) -> String {
    let r = &intent.resources;
    if !intent.check {
        return r#"command=("$worker" train "runs/$run" --threads "$threads")"#.to_owned();
    }
    format!(
        "command=(srun --kill-on-bad-exit=1 --nodes={} --ntasks={} --ntasks-per-node={} --cpus-per-task={}\n    \
         --distribution=block \"$worker\" train \"runs/$run\" --check)",
        r.nodes,
        r.tasks(),
        r.tasks_per_node(),
        r.cpus_per_task
    )
}

/// Arguments of sbatch, without the script: `study` is absolute.
pub fn options(
    intent: &Intent,
    spec: &SlurmSpec,
    cluster: &Cluster,
    study: &Path,
    exclude: &[String],
) -> Vec<OsString> {
    let r = &intent.resources;
    let most = if intent.chain { Some(1) } else { spec.max_running };
    let throttle = most.map_or_else(String::new, |n| format!("%{n}"));
    let array = format!("--array=0-{}{throttle}", intent.runs.len().saturating_sub(1));
    let mut chdir = OsString::from("--chdir=");
    chdir.push(study);
    let mut options: Vec<OsString> = vec![
        "--parsable".into(),
        format!("--job-name={}", intent.name).into(),
        array.into(),
        chdir,
        output_option(intent, study).into(),
        "--open-mode=append".into(),
        "--requeue".into(),
        format!("--nodes={}", r.nodes).into(),
        format!("--ntasks={}", r.tasks()).into(),
        format!("--cpus-per-task={}", r.cpus_per_task).into(),
        format!("--time={}", time::print(r.seconds)).into(),
        format!("--signal=B:USR2@{}", r.lead_seconds).into(),
        format!("--partition={}", cluster.partition).into(),
    ];
    if r.gpus_per_node > 0 {
        options.push(format!("--ntasks-per-node={}", r.tasks_per_node()).into());
        options.push(format!("--gpus-per-node={}", r.gpus_per_node).into());
    }
    if let Some(mib) = r.mem_mib {
        options.push(format!("--mem={mib}M").into());
    }
    let named = [("account", &spec.account), ("qos", &spec.qos), ("constraint", &spec.constraint)];
    for (key, value) in named {
        options.extend(value.as_ref().map(|v| format!("--{key}={v}").into()));
    }
    if !exclude.is_empty() {
        options.push(format!("--exclude={}", exclude.join(",")).into());
    }
    options.extend(spec.sbatch.iter().map(OsString::from));
    options
}

/// Where Slurm writes what a task says. It looks for `%` and `\` to replace in the whole path, that of the study included,
/// and the script writes itself where there are any.
fn output_option(intent: &Intent, study: &Path) -> String {
    if study.as_os_str().as_bytes().iter().any(|b| b"%\\".contains(b)) {
        "--output=/dev/null".into()
    } else {
        format!("--output=slurm/{}/%a.out", intent.tag)
    }
}

/// Writes what the script reads, and the script, and waits until all is on the disk. Returns the script's path.
///
/// # Errors
/// When something cannot be written.
pub fn write(intent: &Intent, study: &Path, worker: &Path) -> Result<PathBuf, SlurmError> {
    let folder = folder(study, &intent.tag);
    std::fs::create_dir_all(&folder).map_err(|e| FileError::new("create", &folder, e))?;
    let runs: Vec<u8> = intent.runs.iter().flat_map(|run| [run.as_bytes(), b"\0"].concat()).collect();
    replace(&folder.join("runs"), &runs, true)?;
    replace(&folder.join("worker"), &[worker.as_os_str().as_bytes(), b"\0"].concat(), true)?;
    let path = folder.join("job.sh");
    replace(&path, script(intent).as_bytes(), true)?;
    sync_dir(&study.join("slurm"))?;
    Ok(path)
}

/// A command as a shell would take it, for people to read and repeat. Words of plain characters are not quoted.
pub fn shown(program: &str, arguments: &[OsString]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=./:,@%+".contains(b);
    let quoted = |word: &[u8]| match shlex::bytes::try_quote(word) {
        Ok(quoted) if word.is_empty() || !word.iter().all(plain) => quoted.into_owned(),
        _ => word.to_vec(),
    };
    let words = std::iter::once(program.as_bytes()).chain(arguments.iter().map(|a| a.as_bytes()));
    String::from_utf8_lossy(&words.map(quoted).collect::<Vec<_>>().join(&b' ')).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// What is shown, given to bash, is what was meant.
        #[test]
        fn shown_commands_are_read_back_by_a_shell(words in prop::collection::vec("[^\\x00]{0,12}", 1..5)) {
            let format = [OsString::from("%s\\0")];
            let arguments: Vec<OsString> = format.into_iter().chain(words.iter().map(OsString::from)).collect();
            let output = Command::new("bash").args(["-c", &shown("printf", &arguments)]).output().unwrap();
            let printed: Vec<Vec<u8>> = output.stdout.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
            let meant: Vec<Vec<u8>> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
            prop_assert_eq!(&printed[..words.len()], &meant[..]);
        }
    }
}
