//! A study directory keeps to the sweep it was made for, and belongs to one process at a time.

use isoflop_runtime::config::DataConfig;
use isoflop_runtime::status::{RunStatus, State};
use isoflop_sweeps::file::{self, Sweep};
use isoflop_sweeps::fit::{RunStatus as Outcome, read_runs};
use isoflop_sweeps::plan::{Plan, plan};
use isoflop_sweeps::status::rows;
use isoflop_sweeps::study::{Study, StudyError};
use std::path::Path;

const SWEEP: &str = "[sweep]\nname = \"s\"\n[family]\nname = \"nano\"\n[plan]\nkind = \"isoflop\"\nflops = [1e11]\n\
                     sizes = [\"21k\", \"35k\"]\n[train]\nbatch_tokens = 1024\nlr = 0.001\n[executor]\njobs = 1\n";

fn read(text: &str) -> (Sweep, Plan) {
    let sweep = file::parse(Path::new("s.toml"), text).expect("a sweep");
    let plan = plan(&sweep).expect("a plan");
    (sweep, plan)
}

fn data() -> DataConfig {
    DataConfig {
        train: vec!["/d/train.tok".into()],
        validation: vec!["/d/v.tok".into()],
        validation_sequences: 8,
        fingerprint: Some("one text".into()),
    }
}

#[test]
fn only_executor_fit_and_device_may_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let study = Study::new(dir.path().join("study"));
    let (_, plan) = read(SWEEP);
    study.adopt(SWEEP, &plan).expect("a new study");
    for free in [
        SWEEP.replace("jobs = 1", "jobs = 4"),
        format!("# a comment\n{SWEEP}[fit]\nbootstrap = 7\n"),
        SWEEP.replace("flops = [1e11]", "flops = [ 1e11 ]\ndevice = \"h100-sxm\""),
    ] {
        study.adopt(&free, &plan).expect("a change that no result depends on");
    }
    assert!(std::fs::read_to_string(study.sweep_file()).expect("the copy").contains("h100-sxm"));
    let other = SWEEP.replace("lr = 0.001", "lr = 0.002");
    let message = study.adopt(&other, &read(&other).1).expect_err("another sweep").to_string();
    assert!(message.contains("train.lr: 0.001 -> 0.002"), "{message}");
    let more = SWEEP.replace("[train]", "[train]\nvalidations = 9");
    let message = study.adopt(&more, &read(&more).1).expect_err("another sweep").to_string();
    assert!(message.contains("train.validations: (absent) -> 9"), "{message}");
    assert_eq!(study.read_plan().expect("the plan"), plan);
}

#[test]
fn a_directory_without_a_plan_is_no_study() {
    let dir = tempfile::tempdir().expect("a directory");
    let e = Study::new(dir.path()).read_plan().expect_err("no plan");
    assert!(
        matches!(e, StudyError::NotAStudy { .. }) && e.to_string().contains("isoflop run SWEEP.toml"),
        "{e}"
    );
}

#[test]
fn the_lock_is_held_by_one_and_freed_by_dropping() {
    let dir = tempfile::tempdir().expect("a directory");
    let study = Study::new(dir.path());
    let lock = study.lock().expect("free");
    assert!(matches!(study.lock(), Err(StudyError::Busy { .. })));
    drop(lock);
    study.lock().expect("free again");
}

#[test]
fn configurations_are_final_equal_and_guarded() {
    let dir = tempfile::tempdir().expect("a directory");
    let study = Study::new(dir.path());
    let (sweep, plan) = read(SWEEP);
    let artifact = study.artifacts().join("0123abcd");
    let write = |sweep: &Sweep| study.write_config(&plan.runs[0], sweep, &data(), &artifact);
    write(&sweep).expect("written");
    let config = isoflop_runtime::rundir::RunDir::new(study.run_dir("c1e11-n21k-s0")).read_config();
    let config = config.expect("the runtime accepts it");
    assert_eq!(config.artifact, Path::new("../../artifacts/0123abcd"));
    assert_eq!(
        (config.steps, config.batch, config.validate_every),
        (plan.runs[0].steps, 8, plan.runs[0].steps.div_ceil(4))
    );
    assert_eq!(config.flops_convention, "6nd");
    assert_eq!(study.artifact_of("c1e11-n21k-s0"), None, "nothing is compiled yet");
    write(&sweep).expect("the same again");
    let mut other = sweep.clone();
    other.train.keep_checkpoints = 5;
    let message = write(&other).expect_err("another version").to_string();
    assert!(message.contains("keep_checkpoints: 2 -> 5"), "{message}");
    let text = DataConfig { fingerprint: Some("another".into()), ..data() };
    let message =
        study.write_config(&plan.runs[0], &sweep, &text, &artifact).expect_err("another text").to_string();
    assert!(message.contains("data.fingerprint") && message.contains("another"), "{message}");
}

#[test]
fn runs_csv_says_where_every_run_stands_in_plan_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let study = Study::new(dir.path());
    let (_, plan) = read(SWEEP);
    study.adopt(SWEEP, &plan).expect("a new study");
    let run = &plan.runs[1];
    std::fs::create_dir_all(study.run_dir(&run.id)).expect("a run directory");
    let status = RunStatus {
        state: State::Diverged,
        step: 7,
        steps: run.steps,
        tokens: 7 * run.batch_tokens,
        train_loss: Some(20.0),
        validation_loss: None,
        reason: Some("train loss 20 at step 7".into()),
        tokens_per_s: 0.0,
        memory: None,
        save_seconds: None,
    };
    isoflop_runtime::rundir::RunDir::new(study.run_dir(&run.id))
        .write_status(&status, true)
        .expect("a status");
    study.write_runs(&plan).expect("written");
    let records = read_runs(study.runs_file()).expect("the fit reads it");
    let found: Vec<_> = records.iter().map(|r| (r.id.as_str(), r.status)).collect();
    assert_eq!(found, [("c1e11-n21k-s0", Outcome::Pending), ("c1e11-n35k-s0", Outcome::Diverged)]);
    assert_eq!(records[1].reason, "train loss 20 at step 7");
    assert_eq!(records[1].params, 35_104.0);
    let bytes = std::fs::read(study.runs_file()).expect("bytes");
    study.write_runs(&plan).expect("again");
    assert_eq!(bytes, std::fs::read(study.runs_file()).expect("bytes"));
    let rows = rows(&study, &plan).expect("rows");
    assert_eq!((rows[0].state, rows[1].state, rows[1].step), (State::Pending, State::Diverged, 7));
}
