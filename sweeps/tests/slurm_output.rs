//! What Slurm prints, as recorded in tests/slurm: 22.05 from a real one, 20.11 and 25.05 written after their manuals.

use isoflop_sweeps::slurm::parse::{self, JobState};
use std::path::Path;

fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn configurations_of_three_versions() {
    for (version, accounting, max_array_size, max_array_tasks) in [
        ("20.11.9", true, 1_001, Some(500)),
        ("22.05.8", false, 10_001, None),
        ("25.05.2", true, 100_001, None),
    ] {
        let major = &version[..5];
        let config = parse::config(&recorded(&format!("config-{major}.txt")));
        assert_eq!(config.version, version);
        assert_eq!((config.accounting, config.max_array_size), (accounting, max_array_size), "{version}");
        assert_eq!(config.max_array_tasks, max_array_tasks, "{version}");
        assert!(!config.cluster.is_empty() && config.max_job_count.is_some());
        let partitions = parse::partitions(&recorded(&format!("partitions-{major}.txt")));
        assert!(partitions.iter().filter(|p| p.is_default).count() == 1, "{version}");
        assert!(partitions.iter().any(|p| p.max_time.is_some()), "{version}");
    }
}

#[test]
fn partitions_with_and_without_limits() {
    let partitions = parse::partitions(&recorded("partitions-25.05.txt"));
    let short: Vec<_> = partitions
        .iter()
        .map(|p| (p.name.as_str(), p.state.as_str(), p.max_time, p.default_time, p.qos.as_deref()))
        .collect();
    let expected = [
        ("gpu", "UP", Some(2 * 86_400), Some(3_600), Some("gpu-part")),
        ("long", "UP", None, None, None),
        ("old", "INACTIVE", Some(3_600), None, None),
    ];
    assert_eq!(short, expected);
}

#[test]
fn queues_of_three_versions() {
    for version in ["20.11", "22.05", "25.05"] {
        let rows = parse::queue(&recorded(&format!("squeue-{version}.txt")));
        let states: Vec<JobState> = rows.iter().map(|r| r.state).collect();
        for wanted in [JobState::Pending, JobState::Running, JobState::Held] {
            assert!(states.contains(&wanted), "{version}: {states:?}");
        }
        assert!(
            rows.iter().all(|r| r.name.starts_with("tiny-")),
            "{version}: rows that are no arrays are left out"
        );
        assert!(
            rows.iter().filter(|r| r.state == JobState::Running).all(|r| !r.nodes.is_empty()),
            "{version}"
        );
    }
    let rows = parse::queue(&recorded("squeue-25.05.txt"));
    let row = rows.iter().find(|r| r.task == (901, 7)).expect("a row");
    assert_eq!(
        (row.reason.as_str(), row.start.as_deref()),
        ("Nodes required for job are DOWN, DRAINED or reserved | soon", Some("2026-11-24T08:00:00"))
    );
}

#[test]
fn accounts_with_young_arrays_and_attempts() {
    for version in ["20.11", "22.05", "25.05"] {
        let rows = parse::account(&recorded(&format!("sacct-{version}.txt")));
        assert!(!rows.is_empty() && rows.iter().all(|r| r.name.starts_with("tiny-")), "{version}");
    }
    let rows = parse::account(&recorded("sacct-20.11.txt"));
    let short: Vec<_> = rows.iter().map(|r| (r.task, r.state, r.exit, r.signal, r.elapsed_s)).collect();
    let expected = [
        ((410, 0), JobState::Completed, 0, 0, 61),
        ((410, 1), JobState::Cancelled, 0, 0, 5),
        ((410, 2), JobState::OutOfMemory, 0, 125, 12),
        ((410, 3), JobState::NodeFail, 0, 0, 300),
        ((410, 4), JobState::Timeout, 0, 0, 3_630),
        ((410, 5), JobState::Failed, 0, 9, 8),
    ];
    assert_eq!(short, expected);
}

#[test]
fn limits_of_accounts() {
    let qos = parse::qos(&recorded("qos.txt"));
    let short: Vec<_> =
        qos.iter().map(|q| (q.name.as_str(), q.max_submit, q.group_submit, q.max_wall)).collect();
    let expected = [
        ("normal", None, None, None),
        ("short", Some(500), Some(5_000), Some(4 * 3_600)),
        ("gpu-part", Some(64), None, Some(2 * 86_400)),
    ];
    assert_eq!(short, expected);
    let associations = parse::associations(&recorded("associations.txt"));
    let short: Vec<_> = associations
        .iter()
        .map(|(a, p)| (a.name.as_str(), a.max_submit, a.default_qos.as_deref(), p.as_str()))
        .collect();
    assert_eq!(
        short,
        [("lab", Some(1_000), Some("short"), ""), ("lab", None, None, "gpu"), ("root", None, None, "")]
    );
}
