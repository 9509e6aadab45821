//! Names, paths and values of a sweep reach Slurm as data, whatever they hold.

use crate::cluster::{Cluster, for_slurm};
use crate::lab::{Lab, assert_same, run};
use crate::whole::results_of;

#[test]
fn whatever_names_hold_they_reach_slurm_as_data() {
    let odd = "a b'c\"d$(touch pwned);`touch pwned`\n%j\\%A&é";
    let comment = "$(touch pwned); 'x' \\\"y\\\"\\nz %j";
    let lab = Lab::new(&for_slurm(&format!(
        "account = \"a'b $(touch pwned)\"\nsbatch = [\"--comment={comment}\"]"
    )));
    let cluster = Cluster::start(&[("NODES", "2")]);
    lab.run_study("local", &[]);
    // The program's own path too.
    let program = lab.path(odd).join("isoflop");
    std::fs::create_dir(lab.path(odd)).expect("a folder");
    std::os::unix::fs::symlink(crate::lab::isoflop(), &program).expect("a link");
    let sweep = std::fs::read_to_string(lab.path("sweep.toml")).expect("a sweep");
    // One line of text is all that a worker's name may be.
    let one_line = lab.path(&odd.replace('\n', " "));
    std::os::unix::fs::symlink(lab.path(odd), &one_line).expect("a link");
    let worker = format!("worker = {}", toml::Value::String(one_line.join("isoflop").display().to_string()));
    std::fs::write(lab.path("sweep.toml"), format!("{sweep}{worker}\n")).expect("written");

    let study = lab.path(odd).join("study");
    let study = study.to_str().expect("UTF-8");
    cluster.run(&lab, &["submit", "sweep.toml", "--out", study, "--dry-run"]).expect_code(0);
    cluster
        .run(&lab, &["submit", "sweep.toml", "--out", study])
        .expect_code(0)
        .expect_words(&["9 submitted"]);
    let shown = cluster.ask("squeue", &["--noheader", "--states=all", "--format=%a"]);
    assert!(shown.lines().all(|account| account == "a'b $(touch pwned)"), "{shown}");
    let shown = cluster.ask("squeue", &["--noheader", "--states=all", "--format=%k"]);
    assert!(shown.contains("$(touch pwned); 'x' \"y\""), "{shown}");
    run(cluster.command(&lab, &["wait", study, "--every", "1"])).expect_code(0).expect_words(&["9 done"]);
    let [found, expected] = [study.as_ref(), &*lab.path("local")].map(|study| {
        let mut files = results_of(study);
        // The worker was named since.
        files.remove("sweep.toml");
        files
    });
    assert_same(&found, &expected);
    let pwned = crate::lab::walk(&lab.path(".")).into_iter().find(|p| p.ends_with("pwned"));
    assert_eq!(pwned, None, "a name was run");
}
