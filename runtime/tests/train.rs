//! Runs end to end with a real artifact: kills, stops, second owners, damaged checkpoints, full disks, divergence.

mod tiny;

use isoflop_kernels::footprint::WORKER;
use isoflop_runtime::checkpoint;
use isoflop_runtime::lease::{Lease, read_owner};
use isoflop_runtime::metrics::read_rows;
use isoflop_runtime::rundir::RunDir;
use isoflop_runtime::status::{RunStatus, State};
use isoflop_runtime::train::{
    EXIT_CONTINUE, EXIT_DIVERGED, EXIT_FAILED, EXIT_FINISHED, EXIT_NOT_OWNER, Options, Outcome, TrainError,
    train,
};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

/// Trains in this process; also returns the warnings.
fn go(run: &RunDir, stop_after_steps: Option<u64>) -> (Result<Outcome, TrainError>, Vec<String>) {
    go_with(run, stop_after_steps, None, &mut |_| ())
}

fn go_with(
    run: &RunDir,
    stop_after_steps: Option<u64>,
    threads: Option<usize>,
    progress: &mut dyn FnMut(&RunStatus),
) -> (Result<Outcome, TrainError>, Vec<String>) {
    let mut warnings = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    let warn = &mut |w: &str| warnings.push(w.to_string());
    let outcome =
        train(run.root(), Options { threads, stop, stop_after_steps, base: WORKER, progress, warn });
    (outcome, warnings)
}

/// The example `worker`, which `cargo test` builds beside the tests.
fn worker(run: &RunDir) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/worker");
    assert!(path.exists(), "{} is missing: cargo build -p isoflop-runtime --examples", path.display());
    let mut command = Command::new(path);
    command.arg(run.root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

/// What two equal runs must have in common, byte for byte.
#[derive(Clone, Debug, PartialEq)]
struct Files {
    metrics: String,
    /// Of the last checkpoint.
    meta: String,
    model: blake3::Hash,
}

fn result(run: &RunDir) -> Files {
    let newest = checkpoint::list(&run.checkpoints()).unwrap().remove(0).1;
    Files {
        metrics: fs::read_to_string(run.metrics()).unwrap(),
        meta: fs::read_to_string(newest.join("meta.json")).unwrap(),
        model: blake3::hash(&fs::read(newest.join("model.safetensors")).unwrap()),
    }
}

fn steps_of_checkpoints(run: &RunDir) -> Vec<u64> {
    checkpoint::list(&run.checkpoints()).unwrap().into_iter().map(|(step, _)| step).collect()
}

fn reference(root: &Path, steps: u64) -> Files {
    let run = tiny::run_dir(root, tiny::config(root, "reference", steps));
    let (outcome, warnings) = go(&run, None);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert!(warnings.is_empty(), "{warnings:?}");
    result(&run)
}

#[test]
fn a_shard_cut_while_the_run_reads_it_fails_the_run_by_name() {
    let root = tempfile::tempdir().unwrap();
    let config = tiny::config(root.path(), "a", 500);
    let shard = config.data.train[0].clone();
    let run = tiny::run_dir(root.path(), config);
    let whole = fs::read(&shard).unwrap();
    let (outcome, _) = go_with(&run, None, None, &mut |status| {
        if status.state == State::Running {
            fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(1000).unwrap();
        }
    });
    let error = outcome.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_FAILED);
    let message = error.to_string();
    let expected = format!("the file had {} bytes when it was opened and has 1000 now", whole.len());
    assert!(message.contains("train.tok: no 17 bytes at offset") && message.contains(&expected), "{message}");
    let status = run.read_status().unwrap();
    assert_eq!((status.state, status.reason), (State::Failed, Some(message)));

    // Mended, the run goes on to what it would have been.
    fs::write(&shard, whole).unwrap();
    assert_eq!(go(&run, None).0.unwrap(), Outcome::Finished);
    assert_eq!(result(&run), reference(root.path(), 500));
}

#[test]
fn a_run_learns_and_writes_what_it_promises() {
    let root = tempfile::tempdir().unwrap();
    let mut config = tiny::config(root.path(), "a", 1100);
    config.tensorboard = true;
    let run = tiny::run_dir(root.path(), config);
    let mut states = Vec::new();
    let (outcome, _) = go_with(&run, None, None, &mut |s| states.push(s.state));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!((states[0], *states.last().unwrap()), (State::Running, State::Finished));

    let rows = read_rows(&run.metrics()).unwrap();
    let expected: Vec<u64> = (1..=1100).filter(|s| s % 2 == 0 || s % 70 == 0 || *s == 1100).collect();
    assert_eq!(rows.iter().map(|r| r.step).collect::<Vec<_>>(), expected);
    assert!(rows.iter().all(|r| r.validation_loss.is_some() == (r.step % 70 == 0 || r.step == 1100)));
    let last = rows.last().unwrap();
    assert_eq!((last.tokens, last.flops), (1100 * 64, 1.1e4 * (1100 * 64) as f64));
    let (first, loss) = (rows[0].train_loss, last.validation_loss.unwrap());
    assert!((first - 64f64.ln()).abs() < 0.05, "{first}");
    assert!((4f64.ln()..1.6).contains(&loss), "{loss}");
    assert_eq!(steps_of_checkpoints(&run), [1100, 1080]);
    let status = run.read_status().unwrap();
    assert_eq!((status.state, status.step, status.validation_loss), (State::Finished, 1100, Some(loss)));
    assert_eq!(fs::read_to_string(run.timings()).unwrap().lines().count(), rows.len() + 1);
    let profile = isoflop_runtime::profile::read(&run.profile()).unwrap();
    assert!(profile.iter().enumerate().all(|(i, row)| row.launch == i && row.seconds > 0.0), "{profile:?}");
    assert_eq!(
        profile.iter().find(|row| row.label == "gradient").unwrap().kind,
        "scatter-add",
        "{profile:?}"
    );
    let description: serde_json::Value =
        serde_json::from_slice(&fs::read(run.metrics_sidecar()).unwrap()).unwrap();
    assert_eq!((&description["row_every"], &description["flops_convention"]), (&2.into(), &"6nd".into()));
    assert_eq!(fs::read_dir(run.tensorboard()).unwrap().count(), 1);

    // Started again it is left as it is, without even a new owner.
    let before = (result(&run), read_owner(run.root()).unwrap());
    assert_eq!(go(&run, None).0.unwrap(), Outcome::Finished);
    assert_eq!(before, (result(&run), read_owner(run.root()).unwrap()));
}

#[test]
fn stops_and_threads_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    let expected = reference(root.path(), 150);
    let mut config = tiny::config(root.path(), "a", 150);
    (config.threads, config.checkpoint_every) = (1, 40);
    let run = tiny::run_dir(root.path(), config);
    for (i, steps) in [0, 1, 33, 40, 75].into_iter().enumerate() {
        let (outcome, warnings) = go_with(&run, Some(steps), Some(1 + i % 2), &mut |_| ());
        assert_eq!(outcome.unwrap(), Outcome::Interrupted);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(run.read_status().unwrap().state, State::Interrupted);
    }
    assert_eq!(go(&run, None).0.unwrap(), Outcome::Finished);
    assert_eq!(result(&run), expected);
    assert_eq!(read_owner(run.root()).unwrap().unwrap().epoch, 6);
}

#[test]
fn kills_at_any_instant_change_nothing() {
    let root = tempfile::tempdir().unwrap();
    let steps = 3000;
    let expected = reference(root.path(), steps);
    let run = tiny::run_dir(root.path(), tiny::config(root.path(), "a", steps));
    let (mut kills, mut state) = (0, 17u64);
    for attempt in 0..40 {
        let mut child = worker(&run).spawn().unwrap();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        sleep(Duration::from_millis(10 + 5 * attempt + (state >> 33) % 120));
        let alive = child.try_wait().unwrap().is_none();
        // SIGKILL: the process gets no say.
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        if !alive {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 3, "the run must live long enough to be killed, {kills}");
    let output = worker(&run).output().unwrap();
    assert_eq!(exit_code(&output), EXIT_FINISHED, "{output:?}");
    assert_eq!(result(&run), expected);
    let names =
        |dir: &Path| -> Vec<_> { fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect() };
    let left = names(&run.checkpoints());
    assert_eq!(left.len(), 2, "{left:?}");
    let hidden = names(run.root()).into_iter().filter(|n| n.to_string_lossy().starts_with('.')).count();
    assert_eq!(hidden, 0, "no temporary file stays");
}

/// Starts a worker on a run that is long, and waits until it works.
fn start_long(run: &RunDir) -> Child {
    let child = worker(run).spawn().unwrap();
    wait_for(run, |s| s.state == State::Running && s.step > 0);
    child
}

fn wait_for(run: &RunDir, ready: impl Fn(&RunStatus) -> bool) {
    for _ in 0..3000 {
        if ready(&run.read_status().unwrap()) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{:?} after 30 s", run.read_status());
}

#[test]
fn signals_save_and_ask_to_be_continued() {
    let root = tempfile::tempdir().unwrap();
    for (signal, id) in [(libc::SIGTERM, "term"), (libc::SIGINT, "int"), (libc::SIGUSR2, "usr2")] {
        let mut config = tiny::config(root.path(), id, 100_000_000);
        config.checkpoint_every = 100_000_000;
        let run = tiny::run_dir(root.path(), config);
        let child = start_long(&run);
        // SAFETY: only sends a signal, to a child that is not yet waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let output = child.wait_with_output().unwrap();
        assert_eq!(exit_code(&output), EXIT_CONTINUE, "{output:?}");
        let status = run.read_status().unwrap();
        assert_eq!(status.state, State::Interrupted);
        assert_eq!(steps_of_checkpoints(&run), [status.step]);
    }
}

#[test]
fn a_second_owner_is_refused_and_a_replaced_one_touches_nothing() {
    let root = tempfile::tempdir().unwrap();
    let run = tiny::run_dir(root.path(), tiny::config(root.path(), "a", 100_000_000));
    let child = start_long(&run);
    let (pid, message) = (child.id(), go(&run, None).0.unwrap_err().to_string());
    assert!(message.contains(&format!("process {pid} on host")), "{message}");
    let second = worker(&run).output().unwrap();
    assert_eq!(exit_code(&second), EXIT_NOT_OWNER);
    assert!(String::from_utf8_lossy(&second.stderr).contains(&format!("process {pid} on host")));

    // As on another host: a lock that the first owner's does not exclude.
    fs::remove_file(run.root().join("lease.lock")).unwrap();
    let newer = Lease::acquire(run.root()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(&output), EXIT_NOT_OWNER, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("lost lease"), "{output:?}");
    assert_eq!(run.read_status().unwrap().state, State::Running, "no status by the old owner");
    newer.check().unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let root = tempfile::tempdir().unwrap();
    let expected = reference(root.path(), 150);
    let run = tiny::run_dir(root.path(), tiny::config(root.path(), "a", 150));
    assert_eq!(go(&run, Some(100)).0.unwrap(), Outcome::Interrupted);
    assert_eq!(steps_of_checkpoints(&run), [100, 90]);
    let model = run.checkpoints().join("step-00000100/model.safetensors");
    let mut bytes = fs::read(&model).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&model, bytes).unwrap();
    let (outcome, warnings) = go(&run, Some(5));
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    assert!(warnings.len() == 1 && warnings[0].contains("step-00000100/model.safetensors"), "{warnings:?}");
    assert_eq!(steps_of_checkpoints(&run), [100, 95, 90]);
    assert_eq!(go(&run, None).0.unwrap(), Outcome::Finished);
    assert_eq!(result(&run), expected);
    assert_eq!(steps_of_checkpoints(&run), [150, 120]);
}

#[test]
fn lost_rows_are_told_of() {
    let root = tempfile::tempdir().unwrap();
    let run = tiny::run_dir(root.path(), tiny::config(root.path(), "a", 60));
    go(&run, Some(50)).0.unwrap();
    fs::remove_file(run.metrics()).unwrap();
    let (outcome, warnings) = go(&run, None);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert!(warnings.len() == 1 && warnings[0].contains("0 rows up to step 50"), "{warnings:?}");
}

#[test]
fn another_configuration_does_not_take_up_a_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let config = tiny::config(root.path(), "a", 60);
    let run = tiny::run_dir(root.path(), config.clone());
    go(&run, Some(30)).0.unwrap();
    let mut other = config.clone();
    other.schedule.lr = 0.03;
    tiny::run_dir(root.path(), other);
    let message = go(&run, None).0.unwrap_err().to_string();
    assert!(message.contains("the configuration of this checkpoint"), "{message}");
    let status = run.read_status().unwrap();
    assert_eq!((status.state, status.reason), (State::Failed, Some(message)));
    // What does not change the numbers may change.
    let free = isoflop_runtime::config::RunConfig { checkpoint_every: 7, threads: 3, ..config };
    tiny::run_dir(root.path(), free);
    assert_eq!(go(&run, None).0.unwrap(), Outcome::Finished);
}

#[test]
fn a_full_disk_is_said_clearly_and_leaves_the_old_state() {
    let root = tempfile::tempdir().unwrap();
    let expected = reference(root.path(), 150);
    let run = tiny::run_dir(root.path(), tiny::config(root.path(), "a", 150));
    assert_eq!(go(&run, Some(40)).0.unwrap(), Outcome::Interrupted);
    let old = result(&run);
    let mut command = worker(&run);
    // SAFETY: both calls are async-signal-safe and change only the child.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let output = command.output().unwrap();
    assert_eq!(exit_code(&output), EXIT_FAILED);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("model.safetensors") && message.contains("free space or raise"), "{message}");
    assert_eq!(steps_of_checkpoints(&run), [40, 30]);
    let kept = result(&run);
    assert_eq!((kept.meta, kept.model), (old.meta, old.model));
    assert_eq!(run.read_status().unwrap().state, State::Failed);
    assert_eq!(go(&run, None).0.unwrap(), Outcome::Finished);
    assert_eq!(result(&run), expected);
}

#[test]
fn a_loss_that_is_too_high_or_no_number_ends_the_run_for_good() {
    let root = tempfile::tempdir().unwrap();
    for (id, limit, lr, reason) in [
        ("nan", f64::INFINITY, 1e39, "train loss of step 2 is NaN"),
        ("high", 4.0, 1.0, "above diverged_above = 4"),
    ] {
        let mut config = tiny::config(root.path(), id, 500);
        (config.diverged_above, config.schedule.lr, config.schedule.warmup_steps) = (limit, lr, 0);
        let run = tiny::run_dir(root.path(), config);
        let output = worker(&run).output().unwrap();
        assert_eq!(exit_code(&output), EXIT_DIVERGED, "{output:?}");
        let status = run.read_status().unwrap();
        assert_eq!(status.state, State::Diverged);
        assert!(status.reason.as_ref().unwrap().contains(reason), "{status:?}");
        let files = fs::read(run.status()).unwrap();
        assert_eq!(go(&run, None).0.unwrap(), Outcome::Diverged { step: status.step });
        assert_eq!(fs::read(run.status()).unwrap(), files);
        let rows = read_rows(&run.metrics()).unwrap();
        assert!(rows.iter().all(|r| r.step < status.step && r.train_loss.is_finite()));
    }
}

#[test]
fn bad_inputs_are_named() {
    let root = tempfile::tempdir().unwrap();
    let good = tiny::config(root.path(), "a", 10);
    let fail = |change: &dyn Fn(&mut isoflop_runtime::config::RunConfig)| {
        let mut config = good.clone();
        change(&mut config);
        go(&tiny::run_dir(root.path(), config), None).0.unwrap_err().to_string()
    };
    let message = fail(&|c| c.batch = 5);
    assert!(message.contains("program `train` takes `tokens` of shape [4, 16]"), "{message}");
    let message = fail(&|c| c.vocab_size = 60);
    assert!(message.contains(".tok: token 6") && message.contains("vocab_size 60"), "{message}");
    let message = fail(&|c| c.data.train = vec![PathBuf::from("none.tok")]);
    assert!(message.contains("none.tok"), "{message}");
    let message = fail(&|c| c.artifact = PathBuf::from("nowhere"));
    assert!(message.contains("nowhere"), "{message}");
    let message = fail(&|c| c.checkpoint_every = 0);
    assert!(message.contains("`checkpoint_every` is 0"), "{message}");
    let run = tiny::run_dir(root.path(), good.clone());
    let (outcome, warnings) = go(&run, None);
    assert_eq!((outcome.unwrap(), warnings.len()), (Outcome::Finished, 0));
    let mut long = good.clone();
    (long.id, long.steps) = ("long".into(), 4000);
    let (_, warnings) = go(&tiny::run_dir(root.path(), long), Some(0));
    assert!(warnings[0].contains("200000 training tokens 1.28 times"), "{warnings:?}");
}
