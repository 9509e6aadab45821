//! Damaged files, full disks and folders that cannot be written: each is named with what to do, and doing it helps.

use crate::lab::{Lab, SWEEP, assert_same, isoflop, results, run, walk};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run of `SWEEP`, and the steps that it is stopped after where it is to have two checkpoints.
const RUN: &str = "study/runs/c4e9-nd16-s0";
const STOP_AFTER: &str = "60";

/// What happens to files.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut,
    Flip,
    Empty,
}

fn damage(path: &Path, how: Damage) {
    let mut bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let middle = bytes.len() / 2;
    match how {
        Damage::Cut => bytes.truncate(middle),
        Damage::Flip => bytes[middle] ^= 0x10,
        Damage::Empty => bytes.clear(),
    }
    std::fs::write(path, bytes).expect("damaged");
}

/// A finished study, its results, and `RUN` taken back to where only its configuration is there.
fn study_with_one_run_left() -> (Lab, BTreeMap<String, Vec<u8>>) {
    let lab = Lab::new(SWEEP);
    lab.run_study("study", &[]);
    let expected = results(&lab.path("study"));
    let config = std::fs::read(lab.path(RUN).join("config.toml")).expect("config.toml");
    std::fs::remove_dir_all(lab.path(RUN)).expect("removed");
    std::fs::create_dir(lab.path(RUN)).expect("made");
    std::fs::write(lab.path(RUN).join("config.toml"), config).expect("written");
    (lab, expected)
}

/// The only file below `folder` whose name ends so.
#[track_caller]
fn only(folder: &Path, end: &str) -> PathBuf {
    let mut found: Vec<PathBuf> =
        walk(folder).into_iter().filter(|p| p.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

#[test]
fn an_artifact_is_checked_before_its_code_is_run() {
    let (lab, expected) = study_with_one_run_left();
    let config = std::fs::read_to_string(lab.path(RUN).join("config.toml")).expect("config.toml");
    let config: toml::Table = toml::from_str(&config).expect("TOML");
    let artifact = lab.path(RUN).join(config["artifact"].as_str().expect("a path"));
    for name in ["programs.json", "kernels.so", "manifest.json"] {
        for how in [Damage::Cut, Damage::Flip] {
            let path = artifact.join(name);
            let whole = std::fs::read(&path).expect("a whole file");
            damage(&path, how);
            let train = run(lab.command(isoflop(), &["train", RUN])).expect_code(1);
            train.expect_words(&[name, "compile it again"]);
            let study = run(lab.command(isoflop(), &["run", "sweep.toml", "--out", "study"])).expect_code(1);
            study.expect_words(&[name, "8 finished, 0 diverged, 1 failed"]);
            std::fs::write(&path, whole).expect("restored");
        }
    }
    damage(&artifact.join("kernels.so"), Damage::Flip);
    // As the message says.
    std::fs::remove_dir_all(&artifact).expect("removed");
    lab.run_study("study", &[]).expect_words(&["8 of 9 runs are done already", "9 finished"]);
    assert_same(&results(&lab.path("study")), &expected);
}

#[test]
fn objects_of_the_kernel_cache_are_checked() {
    let lab = Lab::new(SWEEP);
    let with_own_cache = |study: &str| {
        let mut command = lab.command(isoflop(), &["run", "sweep.toml", "--out", study]);
        command.env("ISOFLOP_CACHE", lab.path("cache"));
        run(command).expect_code(0)
    };
    with_own_cache("first");
    let objects = walk(&lab.path("cache"));
    for (i, path) in objects.iter().enumerate() {
        damage(path, [Damage::Cut, Damage::Flip, Damage::Empty][i % 3]);
    }
    let words = format!(" {} new kernels", objects.len());
    with_own_cache("second").expect_words(&[&words]);
    assert_same(&results(&lab.path("second")), &results(&lab.path("first")));
}

#[test]
fn token_shards_are_checked() {
    let (lab, expected) = study_with_one_run_left();
    for part in ["train", "validation"] {
        for how in [Damage::Cut, Damage::Flip, Damage::Empty] {
            let shard = only(&lab.path("corpus"), &format!("{part}-000.tok"));
            damage(&shard, how);
            let train = run(lab.command(isoflop(), &["train", RUN])).expect_code(1);
            train.expect_words(&[file_name(&shard)]);
            let study = run(lab.command(isoflop(), &["run", "sweep.toml", "--out", "study"])).expect_code(1);
            study.expect_words(&[file_name(&shard), "8 finished, 0 diverged, 1 failed"]);
            lab.prepare();
        }
    }
    lab.run_study("study", &[]);
    assert_same(&results(&lab.path("study")), &expected);
}

#[test]
fn an_older_whole_checkpoint_stands_in_for_a_damaged_one() {
    let (lab, expected) = study_with_one_run_left();
    let train = |more: &[&str]| run(lab.command(isoflop(), &[&["train", RUN], more].concat()));
    train(&["--stop-after-steps", STOP_AFTER]).expect_code(75);
    let mut checkpoints: Vec<PathBuf> = std::fs::read_dir(lab.path(RUN).join("checkpoints"))
        .expect("checkpoints")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    checkpoints.sort();
    let [older, newest] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    assert!(newest.ends_with("step-00000060"), "{}", newest.display());
    let stopped = walk(&lab.path(RUN)).into_iter().map(|p| (p.clone(), std::fs::read(p).expect("a file")));
    let stopped: Vec<(PathBuf, Vec<u8>)> = stopped.collect();

    for (name, how) in [
        ("model.safetensors", Damage::Flip),
        ("model.safetensors", Damage::Cut),
        ("meta.json", Damage::Empty),
    ] {
        std::fs::remove_dir_all(lab.path(RUN)).expect("removed");
        for (path, bytes) in &stopped {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, bytes).expect("restored");
        }
        damage(&newest.join(name), how);
        train(&[]).expect_code(0).expect_words(&["damaged checkpoint passed over", "step-00000060", name]);
        assert_same(&results(&lab.path("study")), &expected_after_train(&expected, &lab));
    }

    std::fs::remove_file(lab.path(RUN).join("status.json")).expect("removed");
    for checkpoint in walk(&lab.path(RUN).join("checkpoints")) {
        damage(&checkpoint, Damage::Cut);
    }
    let none = train(&[]).expect_code(1);
    none.expect_words(&["none of the 2 checkpoints is whole", "move the folder away to start from step 0"]);
    assert!(!older.exists(), "checkpoints older than two are removed");
    std::fs::remove_dir_all(lab.path(RUN).join("checkpoints")).expect("moved away");
    lab.run_study("study", &[]).expect_words(&["9 finished"]);
    assert_same(&results(&lab.path("study")), &expected);
}

/// `train` alone leaves the study's runs.csv as `isoflop run` wrote it last.
fn expected_after_train(expected: &BTreeMap<String, Vec<u8>>, lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let mut expected = expected.clone();
    expected.insert("runs.csv".into(), std::fs::read(lab.path("study/runs.csv")).expect("runs.csv"));
    expected
}

#[test]
fn no_damage_to_a_study_is_a_panic_or_a_wrong_result() {
    let (lab, _) = study_with_one_run_left();
    run(lab.command(isoflop(), &["train", RUN, "--stop-after-steps", STOP_AFTER])).expect_code(75);
    let other = "study/runs/c1e9-nd32-s0";
    for name in [
        "study/plan.json",
        "study/sweep.toml",
        "study/runs.csv",
        &format!("{RUN}/config.toml"),
        &format!("{RUN}/lease.json"),
        &format!("{RUN}/metrics.csv"),
        &format!("{RUN}/status.json"),
        &format!("{other}/status.json"),
        &format!("{other}/metrics.csv"),
        "corpus/manifest.json",
    ] {
        for how in [Damage::Cut, Damage::Flip, Damage::Empty] {
            let path = lab.path(name);
            let whole = std::fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            damage(&path, how);
            for verb in ["status", "fit", "report"] {
                let ended = run(lab.command(isoflop(), &[verb, "study"]));
                let named = ended.said.contains(file_name(&path));
                assert!(ended.code == Some(0) || named, "{how:?} {name}, {verb}: {}", ended.said);
                std::fs::write(&path, &whole).expect("restored");
                damage(&path, how);
            }
            let args = ["train", RUN, "--stop-after-steps", "1"];
            let ended = run(lab.command(isoflop(), &args));
            let named = ended.said.contains(file_name(&path));
            assert!(ended.code == Some(75) || named, "{how:?} {name}, train: {}", ended.said);
            std::fs::write(&path, &whole).expect("restored");
        }
    }
}

#[test]
fn a_full_disk_is_named_and_room_is_all_it_needs() {
    let lab = Lab::new(SWEEP);
    lab.run_study("undisturbed", &[]);
    // The kernels and small models fit below the limit on a file's size, checkpoints of the larger ones do not.
    let script = "trap '' XFSZ; ulimit -f 300; exec \"$0\" run sweep.toml --out study";
    let sh = |script: &str| {
        let program = isoflop().to_str().expect("UTF-8");
        run(lab.command(Path::new("/bin/sh"), &["-c", script, program]))
    };
    let full = sh(script).expect_code(1);
    full.expect_words(&["3 finished", "6 failed", "model.safetensors", "File too large", "free space"]);
    let status = run(lab.command(isoflop(), &["status", "study"])).expect_code(0);
    status.expect_words(&["failed", "free space"]);
    lab.run_study("study", &[]).expect_words(&["3 of 9 runs are done already", "9 finished"]);
    assert_same(&results(&lab.path("study")), &results(&lab.path("undisturbed")));

    // Not even a plan fits, nor a word on standard error.
    let nothing = "trap '' XFSZ; ulimit -f 0; exec \"$0\" run sweep.toml --out none 2>none.log";
    let nothing = sh(nothing);
    assert_eq!((nothing.code, nothing.said.as_str()), (Some(1), ""));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let lab = Lab::new(SWEEP);
    std::fs::write(lab.path("file"), "").expect("written");
    for out in ["file", "file/study", "/proc/study"] {
        let refused = run(lab.command(isoflop(), &["run", "sweep.toml", "--out", out])).expect_code(1);
        refused.expect_words(&["cannot create", out]);
    }
}
