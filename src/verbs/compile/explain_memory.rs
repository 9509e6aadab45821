//! `isoflop compile --explain memory`: what is alive at the peak of the training step, and what less memory would cost.

use crate::cli::Format;
use crate::output;
use isoflop_compiler::cost::CostModel;
use isoflop_compiler::driver::ProgramPlan;
use isoflop_compiler::memory::alive::{Alive, Kind, Peak, peak};
use isoflop_compiler::recompute::budget::{Point, Rerun, Search};
use isoflop_compiler::text::any_layer;
use isoflop_kernels::footprint::{COMMAND, Footprint};
use isoflop_sweeps::display;
use miette::IntoDiagnostic;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The peak of `plan`, and the curve of memory and time of the step without a budget, `unlimited`.
pub fn memory(
    plan: &ProgramPlan,
    unlimited: &ProgramPlan,
    cost: &CostModel,
    device: &str,
    format: Format,
) -> miette::Result<String> {
    let peak = peak(&plan.train);
    let footprint = plan.footprint(COMMAND);
    let resident = Resident {
        parts: footprint,
        one_thread: footprint.of_one_thread(),
        each_further_thread: footprint.of_each_further_thread(),
    };
    let curve = Search::new(&unlimited.fused, &unlimited.train, cost).curve().into_diagnostic()?;
    let seconds = cost.seconds(&unlimited.train.program);
    if format == Format::Json {
        let all = serde_json::json!({
            "device": device,
            "peak": peak,
            "resident": resident,
            "recomputed": plan.recomputed,
            "step_us": seconds * 1e6,
            "curve": curve,
        });
        return serde_json::to_string_pretty(&all).map(|text| text + "\n").into_diagnostic();
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "peak {} in launch {}, {}",
        display::bytes(peak.bytes),
        peak.during.launch,
        peak.during.label
    );
    let _ = writeln!(out, "{}", kinds(&peak));
    let _ = writeln!(out, "{}", values(&peak));
    let _ = writeln!(out, "{}", resident.text());
    if let Some(point) = &plan.recomputed {
        let _ = writeln!(
            out,
            "within the budget by computing again: {}; +{}\n",
            parts(point).join(", "),
            time(point.extra_us)
        );
    }
    let _ =
        writeln!(out, "what less would cost, of {} a step by the costs of `{device}`", time(seconds * 1e6));
    let _ = writeln!(out, "{}", points(&curve, seconds));
    Ok(out)
}

/// What `isoflop train` has resident at its peak.
#[derive(Serialize)]
struct Resident {
    parts: Footprint,
    one_thread: u64,
    each_further_thread: u64,
}

impl Resident {
    fn text(&self) -> String {
        let Footprint { state, inputs, arena, rounding, batch, programs, base, scratch, further_thread } =
            self.parts;
        let mut table =
            output::table(&["resident memory of isoflop train", "one thread", "each further one"], 1);
        let parts = [
            ("weights and optimiser moments", state, 0),
            ("inputs, outputs, tables", inputs, 0),
            ("arena: activations, temporaries, workspace", arena, 0),
            ("blocks rounded to huge pages", rounding, 0),
            ("batch as it is read", batch, 0),
            ("list of buffers and launches", programs, 0),
            ("packed and transposed operands, scores", scratch, scratch),
            ("heap and stack", base.private, further_thread),
            ("code of the program and its libraries", base.files, 0),
        ];
        let size = |bytes: u64| if bytes == 0 { String::new() } else { display::bytes(bytes) };
        for (what, one, further) in parts {
            table.add_row([what.to_owned(), size(one), size(further)]);
        }
        table.add_row(["peak RSS".to_owned(), size(self.one_thread), size(self.each_further_thread)]);
        table.to_string()
    }
}

fn share(bytes: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * bytes as f64 / of.max(1) as f64)
}

fn kinds(peak: &Peak) -> String {
    let mut table = output::table(&["kind", "values", "size", "share"], 1);
    for kind in Kind::ALL {
        let count = peak.alive.iter().filter(|a| a.kind == kind).count();
        if count > 0 {
            let bytes = peak.of_kind(kind);
            table.add_row([
                kind.words().into(),
                count.to_string(),
                display::bytes(bytes),
                share(bytes, peak.bytes),
            ]);
        }
    }
    if peak.unused > 0 {
        let unused = display::bytes(peak.unused);
        table.add_row(["room between values".into(), String::new(), unused, share(peak.unused, peak.bytes)]);
    }
    table.to_string()
}

/// Values of one meaning are a row; layers' values are alike but for the layer.
fn values(peak: &Peak) -> String {
    let mut rows: BTreeMap<(Kind, String), Vec<&Alive>> = BTreeMap::new();
    for value in &peak.alive {
        rows.entry((value.kind, any_layer(&value.source))).or_default().push(value);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    let bytes = |row: &[&Alive]| row.iter().map(|a| a.bytes).sum::<u64>();
    rows.sort_by_key(|((kind, _), row)| (*kind, std::cmp::Reverse(bytes(row))));
    let mut table = output::table(&["value", "kind", "made", "last read", "values", "size", "share"], 4);
    let (mut rest, mut rest_values) = (0, 0);
    for ((kind, name), row) in rows {
        let size = bytes(&row);
        // A thousandth of the peak.
        if size * 1000 < peak.bytes {
            (rest, rest_values) = (rest + size, rest_values + row.len());
            continue;
        }
        let launches = |at: &dyn Fn(&Alive) -> Option<usize>| {
            let places: Vec<usize> = row.iter().filter_map(|a| at(a)).collect();
            match (places.iter().min(), places.iter().max()) {
                (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
                (Some(first), _) => first.to_string(),
                _ => "always".into(),
            }
        };
        table.add_row([
            if row.len() == 1 { row[0].source.clone() } else { name },
            kind.words().to_owned(),
            launches(&|a| a.made.as_ref().map(|m| m.launch)),
            launches(&|a| a.last_read.as_ref().map(|r| r.launch)),
            row.len().to_string(),
            display::bytes(size),
            share(size, peak.bytes),
        ]);
    }
    if rest > 0 {
        let empty = String::new;
        let (values, size) = (rest_values.to_string(), display::bytes(rest));
        table.add_row(["smaller".into(), empty(), empty(), empty(), values, size, share(rest, peak.bytes)]);
    }
    table.to_string()
}

fn points(curve: &[Point], seconds: f64) -> String {
    let mut table = output::table(&["computed again", "memory", "time", "more"], 1);
    for (i, point) in curve.iter().enumerate() {
        // Mostly a point has all that the one before has, and one group more.
        let before = i.checked_sub(1).map(|i| &curve[i]).filter(|b| !b.rerun.is_empty());
        let more = before.filter(|b| b.rerun.iter().all(|r| point.rerun.contains(r)));
        let words = match more {
            Some(before) => {
                let new = point.rerun.iter().filter(|r| !before.rerun.contains(r)).map(part);
                format!("and {}", new.collect::<Vec<_>>().join(", "))
            }
            None if point.rerun.is_empty() => "nothing".to_owned(),
            None => parts(point).chunks(3).map(|c| c.join(", ")).collect::<Vec<_>>().join(",\n"),
        };
        table.add_row([
            words,
            display::bytes(point.bytes),
            format!("+{}", time(point.extra_us)),
            format!("+{:.1} %", 100.0 * point.extra_us * 1e-6 / seconds),
        ]);
    }
    table.to_string()
}

/// `85 us`, `12 ms`, `3 min 20 s`.
fn time(us: f64) -> String {
    if us < 10_000.0 { format!("{us:.0} us") } else { display::seconds(us * 1e-6) }
}

/// `layers.*.gelu mul`, and how many of its values where it is not all.
fn part(r: &Rerun) -> String {
    match (r.values, r.of) {
        (values, of) if values == of => r.group.clone(),
        (values, of) => format!("{} ({values} of {of})", r.group),
    }
}

fn parts(point: &Point) -> Vec<String> {
    point.rerun.iter().map(part).collect()
}
