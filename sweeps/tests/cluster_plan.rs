//! The Gopher family planned on described clusters: what is chosen, what is refused, and what a calibration changes.

use isoflop_sweeps::cluster::estimate::{self, ClusterPlan, Estimate};
use isoflop_sweeps::cluster::file::Cluster;
use isoflop_sweeps::{file, plan};
use std::path::Path;

fn example(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The example cluster with some lines changed.
fn cluster(changes: &[(&str, &str)]) -> Cluster {
    let mut text = std::fs::read_to_string(example("cluster.toml")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Cluster::parse(Path::new("cluster.toml"), &text).unwrap()
}

fn family(cluster: &Cluster) -> ClusterPlan {
    let sweep = file::read(&example("gopher.toml")).unwrap();
    estimate::plan(&plan::plan(&sweep).unwrap(), cluster).unwrap()
}

fn chosen<'p>(plan: &'p ClusterPlan, size: &str) -> &'p Estimate {
    let run = plan.runs.iter().find(|r| r.size == size).unwrap();
    run.chosen.as_ref().unwrap_or_else(|| panic!("{}: {}", run.id, run.reason))
}

#[test]
fn every_size_of_the_family_fits_and_says_why() {
    let cluster = cluster(&[]);
    let plan = family(&cluster);
    assert_eq!(plan.runs.len(), 6);
    for run in &plan.runs {
        let e = run.chosen.as_ref().unwrap();
        let room = cluster.machine.memory_bytes as u64 - cluster.reserve;
        assert!(e.memory.total() <= room && e.days <= cluster.max_days, "{}", run.id);
        assert!(e.bound_seconds < e.step_seconds && e.calibrated_seconds.is_none(), "{}", run.id);
        assert!(e.mfu > 0.1 && e.mfu < 0.7 && e.hfu.0 >= e.mfu, "{} {}", run.id, e.mfu);
        assert_eq!(e.layout.gpus(), e.gpus);
        assert_eq!(e.layout.data * e.layout.micro_batch * e.layout.accumulation, run.batch, "{}", run.id);
        let parts = e.time.seconds();
        assert!((parts / e.step_seconds - 1.0).abs() < 1e-12);
        assert!(run.by_gpus.windows(2).all(|w| w[0].gpus < w[1].gpus), "{}", run.id);
        let cheapest = run.by_gpus.iter().filter(|o| o.days <= cluster.max_days);
        assert!(cheapest.map(|o| o.gpu_hours).all(|h| h >= e.gpu_hours), "{}", run.id);
        assert!(run.reason.contains("fewest GPU hours") && run.fitting <= run.layouts, "{}", run.reason);
    }
    // 280B parameters of 18 bytes are 5 TB: no single node holds them.
    let largest = chosen(&plan, "280B");
    assert!(largest.nodes > 8 && largest.partition == "gpu" && largest.segments > 1, "{largest:?}");
    let state = (largest.memory.weights + largest.memory.gradients) as f64 * largest.layout.pipeline as f64;
    assert!(state * largest.layout.tensor as f64 > 6.0 * 279.7e9);
    // The small partition is cheaper and grants two nodes.
    assert_eq!(chosen(&plan, "44M").partition, "small");
    let cost = chosen(&plan, "44M");
    assert!((cost.cost.unwrap() - 2.0 * cost.gpu_hours).abs() < 1e-6);
}

#[test]
fn less_time_takes_more_gpus_and_more_gpu_hours() {
    let slow = family(&cluster(&[]));
    let fast = family(&cluster(&[("max_days = 90", "max_days = 10")]));
    for size in ["1.4B", "7.1B", "280B"] {
        let [a, b] = [chosen(&slow, size), chosen(&fast, size)];
        assert!(b.days <= 10.0 && b.gpus > a.gpus && b.gpu_hours > a.gpu_hours, "{size}");
    }
    let hopeless = family(&cluster(&[("max_days = 90", "max_days = 0.01")]));
    let run = &hopeless.runs[5];
    assert!(run.reason.contains("the fastest; none ends in max_days = 0.01"), "{}", run.reason);
    assert_eq!(run.chosen.as_ref(), run.by_gpus.last());
}

#[test]
fn a_run_that_fits_nowhere_says_what_is_missing() {
    let plan = family(&cluster(&[("nodes = 512", "nodes = 4")]));
    let run = &plan.runs[5];
    assert!(run.chosen.is_none() && run.fitting == 0 && run.layouts > 0);
    assert!(run.reason.contains("of 77.0 GB"), "{}", run.reason);
    assert!(plan.warnings.iter().any(|w| w.contains("no layout fits") && w.contains(&run.id)));
    assert!(plan.runs[..5].iter().all(|r| r.chosen.is_some()));
}

#[test]
fn a_calibration_scales_time_and_leaves_the_rest() {
    let calibration = "\n[calibration]\nfactor = 1.25\nerror = 0.03\nsteps = 20\n";
    let mut text = std::fs::read_to_string(example("cluster.toml")).unwrap();
    text.push_str(calibration);
    let calibrated = family(&Cluster::parse(Path::new("c.toml"), &text).unwrap());
    let plain = family(&cluster(&[]));
    let [a, b] = [&plain.runs[2].by_gpus[0], &calibrated.runs[2].by_gpus[0]];
    assert_eq!((a.layout, a.step_seconds, a.bound_seconds), (b.layout, b.step_seconds, b.bound_seconds));
    assert!((b.days / a.days - 1.25).abs() < 1e-9 && (a.mfu / b.mfu - 1.25).abs() < 1e-9);
    assert_eq!(b.calibrated_seconds, Some(1.25 * b.step_seconds));
    assert_eq!(calibrated.calibration.unwrap().steps, 20);
}

#[test]
fn efficiency_factors_are_the_users_to_change() {
    let plain = family(&cluster(&[]));
    let slow =
        family(&cluster(&[("# [efficiency]", "[efficiency]"), ("# products = 0.74", "products = 0.37")]));
    let [a, b] = [&plain.runs[3].by_gpus[0], &slow.runs[3].by_gpus[0]];
    assert!(b.step_seconds > 1.5 * a.step_seconds && b.bound_seconds == a.bound_seconds);
    assert_eq!((plain.efficiency.products, slow.efficiency.products), (Some(0.74), Some(0.37)));
}
