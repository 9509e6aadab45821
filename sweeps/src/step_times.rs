//! From the profiles of a study's runs to where a step's time goes, measured and as the plan's device predicts it.

use crate::plan::{Plan, PlannedRun};
use crate::report::{PartKind, StepPart, StepTime};
use crate::study::Study;
use isoflop_compiler::cost::CostModel;
use isoflop_kernels::artifact::Artifact;
use isoflop_kernels::program::Launch;
use isoflop_runtime::metrics::MetricsError;
use isoflop_runtime::profile::{self, Row};
use isoflop_runtime::rundir::RunDir;
use std::collections::BTreeMap;

/// What a launch counts to.
type Part = (PartKind, String);

/// The steps of every size and batch that a run has profiled, in the order of the plan.
///
/// # Errors
/// When a profile that is there cannot be read.
pub fn step_times(study: &Study, plan: &Plan) -> Result<Vec<StepTime>, MetricsError> {
    let mut groups: Vec<(&PlannedRun, Vec<Vec<Row>>)> = Vec::new();
    for run in &plan.runs {
        let path = RunDir::new(study.run_dir(&run.id)).profile();
        if !path.exists() {
            continue;
        }
        let rows = profile::read(&path)?;
        match groups.iter_mut().find(|(first, _)| first.size == run.size && first.batch == run.batch) {
            // A run that was started anew by another version has other launches.
            Some((_, profiles)) if profiles[0].len() == rows.len() => profiles.push(rows),
            Some(_) => {}
            None => groups.push((run, vec![rows])),
        }
    }
    let batches = |size: &str| groups.iter().filter(|(run, _)| run.size == size).count();
    let name = |run: &PlannedRun| match batches(&run.size) {
        1 => run.size.clone(),
        _ => format!("{}, batch {}", run.size, run.batch),
    };
    Ok(groups
        .iter()
        .map(|(run, profiles)| step(name(run), profiles, &predicted(study, plan, run, profiles)))
        .collect())
}

/// Seconds of each launch by the device of the plan; none where device or artifact are gone or of another version.
fn predicted(study: &Study, plan: &Plan, run: &PlannedRun, profiles: &[Vec<Row>]) -> Option<Vec<f64>> {
    let rows = profiles.first()?;
    let cost: CostModel = plan.device_description.as_ref()?.cost(rows.first()?.threads);
    let artifact = Artifact::open(&study.artifact_of(&run.id)?).ok()?;
    let program = artifact.program("train")?;
    let same = |(launch, row): (&Launch, &Row)| launch.label == row.label && launch.flops == row.flops;
    let matches = program.launches.len() == rows.len() && program.launches.iter().zip(rows).all(same);
    matches.then(|| cost.program(program).iter().map(|c| c.us() * 1e-6).collect())
}

fn step(size: String, profiles: &[Vec<Row>], predicted: &Option<Vec<f64>>) -> StepTime {
    let mut parts: BTreeMap<Part, StepPart> = BTreeMap::new();
    for (i, row) in profiles[0].iter().enumerate() {
        let mut seconds: Vec<f64> = profiles.iter().map(|p| p[i].seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let (kind, label) = part_of(row);
        let part = parts.entry((kind, label.clone())).or_insert(StepPart {
            label,
            kind,
            launches: 0,
            seconds: 0.0,
            predicted: predicted.as_ref().map(|_| 0.0),
        });
        part.launches += 1;
        part.seconds += seconds[(seconds.len() - 1) / 2];
        if let (Some(sum), Some(p)) = (part.predicted.as_mut(), predicted) {
            *sum += p[i];
        }
    }
    let threads = profiles[0].first().map_or(1, |r| r.threads);
    StepTime { size, runs: profiles.len(), threads, parts: parts.into_values().collect() }
}

/// `product ff1 backward` of all layers, `attention`, `kernel adamw`, ...
fn part_of(row: &Row) -> Part {
    let purpose = purpose(&row.label);
    match row.kind.split(' ').next().unwrap_or_default() {
        "gemm" => (PartKind::Product, format!("product {purpose}")),
        "rel-attention-forward" => (PartKind::Attention, "attention".to_owned()),
        "rel-attention-backward" => (PartKind::Attention, "attention backward".to_owned()),
        "generated" => (PartKind::Kernel, format!("kernel {purpose}")),
        other => (PartKind::Movement, format!("{other} {purpose}")),
    }
}

/// What a launch is for, the same in every layer: `layers.3.ff1/grad` is `ff1 backward`. A gradient that is computed in
/// the optimiser's kernel, and a value that is computed again, count to the part they are in.
fn purpose(label: &str) -> String {
    let (path, suffix) = label.split_once('/').unwrap_or((label, ""));
    let mut words = path.split('.').skip_while(|w| *w == "layers" || w.bytes().all(|b| b.is_ascii_digit()));
    let name = words.next().filter(|w| !w.is_empty()).unwrap_or("other");
    match suffix.starts_with("grad") {
        true => format!("{name} backward"),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, label: &str, seconds: f64) -> Row {
        Row {
            launch: 0,
            kind: kind.into(),
            label: label.into(),
            wave: 0,
            tasks: 1,
            threads: 1,
            seconds,
            flops: 0,
            bytes: 0,
        }
    }

    #[test]
    fn launches_of_all_layers_are_one_part() {
        for (label, wanted) in [
            ("layers.3.ff1", "ff1"),
            ("layers.12.ff1/grad", "ff1 backward"),
            ("adamw.layers.0.w2", "adamw"),
            ("layers.0.gelu/recompute", "gelu"),
            ("loss", "loss"),
            ("", "other"),
        ] {
            assert_eq!(purpose(label), wanted, "{label}");
        }
        let kinds = [
            ("gemm", PartKind::Product),
            ("rel-attention-forward", PartKind::Attention),
            ("rel-attention-backward", PartKind::Attention),
            ("generated isoflop_rows_00", PartKind::Kernel),
            ("gather", PartKind::Movement),
            ("scatter-add", PartKind::Movement),
            ("copy", PartKind::Movement),
        ];
        for (kind, part) in kinds {
            assert_eq!(part_of(&row(kind, "loss", 1.0)).0, part, "{kind}");
        }
    }

    #[test]
    fn runs_of_a_size_give_medians() {
        let run = |ff, loss| {
            vec![row("gemm", "layers.0.ff1", ff), row("gemm", "layers.1.ff1", ff), row("copy", "loss", loss)]
        };
        let profiles = [run(1.0, 5.0), run(9.0, 6.0), run(2.0, 7.0)];
        let step = step("21k".into(), &profiles, &Some(vec![1.0, 2.0, 4.0]));
        let parts: Vec<_> =
            step.parts.iter().map(|p| (p.label.as_str(), p.launches, p.seconds, p.predicted)).collect();
        assert_eq!(parts, [("product ff1", 2, 4.0, Some(3.0)), ("copy loss", 1, 6.0, Some(4.0))]);
    }
}
