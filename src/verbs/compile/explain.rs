//! `isoflop compile --explain`: why the compiler did what it did, as a table or JSON.

use crate::cli::Format;
use crate::output;
use isoflop_compiler::driver::ProgramPlan;
use isoflop_compiler::fuse::decision::Outcome;
use isoflop_sweeps::display;
use miette::IntoDiagnostic;

/// What fusion decided, pair by pair. Ids are nodes of the graph before fusion.
pub fn fusion(plan: &ProgramPlan, device: &str, format: Format) -> miette::Result<String> {
    let log = &plan.fusion;
    if format == Format::Json {
        let all = serde_json::json!({
            "device": device,
            "decisions": log.decisions,
            "kernels": log.kernels,
            "fused_kernels": log.fused_kernels,
        });
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").into_diagnostic();
    }
    let headings = ["producer", "consumer", "", "saves", "launches", "estimate"];
    let mut table = output::table(&headings, 3);
    for d in &log.decisions {
        let verdict = match d.outcome {
            Outcome::Fused { kernel } if d.siblings => {
                format!("fused into %{kernel}, as readers of one value")
            }
            Outcome::Fused { kernel } => format!("fused into %{kernel}"),
            Outcome::Refused(reason) => format!("refused: {}", reason.sentence()),
        };
        table.add_row([
            format!("%{} {}", d.producer, d.producer_name),
            format!("%{} {}", d.consumer, d.consumer_name),
            verdict,
            display::bytes(d.bytes_saved),
            d.launches_saved.to_string(),
            format!("{:.1} us", d.estimated_us),
        ]);
    }
    let fused = log.decisions.iter().filter(|d| matches!(d.outcome, Outcome::Fused { .. })).count();
    Ok(format!(
        "{table}\n{} pairs looked at, {fused} fused; {} kernels, {} of more than one operation; estimates for `{device}`\n",
        log.decisions.len(),
        log.kernels,
        log.fused_kernels
    ))
}
