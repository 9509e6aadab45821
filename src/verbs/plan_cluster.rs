//! `isoflop plan --cluster`: the tables of a sweep's runs on a described cluster.

use crate::output;
use comfy_table::Table;
use isoflop_sweeps::cluster::estimate::{ClusterPlan, Estimate, RunPlan};
use isoflop_sweeps::cluster::file::Cluster;
use isoflop_sweeps::display;

/// What every run should use and what that takes; with `layouts` also the best of every number of GPUs.
pub fn tables(plan: &ClusterPlan, cluster: &Cluster, layouts: bool) -> String {
    let mut text = format!("{}\n", chosen(plan));
    for (heading, table) in [("memory of a GPU", memory(plan, cluster)), ("seconds of a step", seconds(plan))]
    {
        text.push_str(&format!("{heading}:\n{table}\n"));
    }
    for run in plan.runs.iter().filter(|_| layouts) {
        text.push_str(&format!(
            "{}: {} of {} layouts fit; the fastest of each number of GPUs:\n{}\n",
            run.id,
            run.fitting,
            run.layouts,
            by_gpus(run)
        ));
    }
    for run in &plan.runs {
        text.push_str(&format!("{}: {}\n", run.id, run.reason));
    }
    text.push_str(&totals(plan));
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn days(d: f64) -> String {
    display::seconds(d * 86_400.0)
}

fn hours(h: f64) -> String {
    display::count(h.round() as u64)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn step_seconds(e: &Estimate) -> f64 {
    e.calibrated_seconds.unwrap_or(e.step_seconds)
}

fn cost(e: &Estimate) -> String {
    e.cost.map_or_else(|| "-".into(), |c| display::count(c.round() as u64))
}

fn chosen(plan: &ClusterPlan) -> Table {
    let headings =
        ["run", "layout", "params", "GPUs", "step", "MFU", "HFU", "time", "jobs", "GPU hours", "cost"];
    let mut table = output::table(&headings, 2);
    for run in &plan.runs {
        let row = match &run.chosen {
            Some(e) => [
                run.id.clone(),
                e.layout.to_string(),
                display::count(run.params),
                e.gpus.to_string(),
                display::seconds(step_seconds(e)),
                percent(e.mfu),
                percent(e.hfu.0),
                days(e.days),
                e.segments.to_string(),
                hours(e.gpu_hours),
                cost(e),
            ],
            None => {
                let mut row = [const { String::new() }; 11];
                row[..3].clone_from_slice(&[run.id.clone(), "none fits".into(), display::count(run.params)]);
                row
            }
        };
        table.add_row(row);
    }
    table
}

fn memory(plan: &ClusterPlan, cluster: &Cluster) -> Table {
    let headings =
        ["run", "weights", "gradients", "optimiser", "activations", "buffers", "reserve", "in all", "of"];
    let mut table = output::table(&headings, 1);
    for (run, e) in planned(plan) {
        let m = e.memory;
        let bytes = [m.weights, m.gradients, m.optimizer, m.activations, m.buffers, cluster.reserve];
        let mut row = vec![run.id.clone()];
        row.extend(bytes.map(display::bytes));
        row.push(display::bytes(bytes.iter().sum()));
        row.push(display::bytes(cluster.machine.memory_bytes as u64));
        table.add_row(row);
    }
    table
}

fn seconds(plan: &ClusterPlan) -> Table {
    let headings = [
        "run",
        "bound",
        "expected",
        "calibrated",
        "layers",
        "head",
        "optimiser",
        "tensor",
        "data",
        "pipeline",
        "bubble",
        "other",
    ];
    let mut table = output::table(&headings, 1);
    for (run, e) in planned(plan) {
        let t = e.time;
        let mut row =
            vec![run.id.clone(), display::seconds(e.bound_seconds), display::seconds(e.step_seconds)];
        row.push(e.calibrated_seconds.map_or_else(|| "-".into(), display::seconds));
        let parts = [t.layers, t.head, t.optimizer, t.tensor, t.data, t.pipeline, t.bubble, t.overhead];
        row.extend(parts.map(|s| percent(s / e.step_seconds)));
        table.add_row(row);
    }
    table
}

fn planned(plan: &ClusterPlan) -> impl Iterator<Item = (&RunPlan, &Estimate)> {
    plan.runs.iter().filter_map(|run| Some((run, run.chosen.as_ref()?)))
}

fn by_gpus(run: &RunPlan) -> Table {
    let headings = ["", "GPUs", "layout", "memory", "step", "MFU", "time", "GPU hours", "cost"];
    let mut table = output::table(&headings, 3);
    for e in &run.by_gpus {
        let mark = if run.chosen.as_ref() == Some(e) { "*" } else { "" };
        table.add_row([
            mark.into(),
            e.gpus.to_string(),
            e.layout.to_string(),
            display::bytes(e.memory.total()),
            display::seconds(step_seconds(e)),
            percent(e.mfu),
            days(e.days),
            hours(e.gpu_hours),
            cost(e),
        ]);
    }
    table
}

fn totals(plan: &ClusterPlan) -> String {
    let sum = |of: &dyn Fn(&Estimate) -> f64| planned(plan).map(|(_, e)| of(e)).sum::<f64>();
    let price = planned(plan).map(|(_, e)| e.cost).sum::<Option<f64>>();
    let price = price.map_or_else(String::new, |c| format!(", cost {}", display::count(c.round() as u64)));
    let rests = match plan.calibration {
        Some(c) => {
            format!("calibrated by {:.3} from {} steps, to {:.0} %", c.factor, c.steps, 100.0 * c.error)
        }
        None => "expected; not calibrated".into(),
    };
    format!(
        "{} on {} ({}): {} GPU hours{price}; {rests}\n",
        plan.sweep,
        plan.cluster,
        plan.gpu,
        hours(sum(&|e| e.gpu_hours)),
    )
}
