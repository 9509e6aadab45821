//! A difference of dumps as text: a summary, totals of each program, then every kernel that differs.

use crate::output;
use isoflop_compiler::compare::{CallChange, Change, Code, Difference, KernelChange, ProgramChange, Uses};
use isoflop_sweeps::display;
use std::fmt::Write;

/// Totals with a column of their own; the others stand in the last one where they differ.
const COLUMNS: [(&str, &str); 5] = [
    ("launches", "launches"),
    ("kernels", "kernels"),
    ("launch_bytes", "bytes moved"),
    ("arena_bytes", "arena"),
    ("instructions", "instructions"),
];
/// Width of the last column, and of lists.
const REST: usize = 34;
const WIDTH: usize = 110;

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// The whole difference. `mlir` shows the MLIR also where the operations differ already.
pub fn text(d: &Difference, mlir: bool, colour: bool) -> String {
    let mut out = summary(d) + "\n";
    for (name, [before, after]) in &d.options {
        let _ = writeln!(out, "made with another {name}: {before} -> {after}");
    }
    for (which, names) in [("first", &d.only_before), ("second", &d.only_after)] {
        if !names.is_empty() {
            let _ = writeln!(out, "only in the {which}, not compared: {}", names.join(", "));
        }
    }
    let differ: Vec<&ProgramChange> =
        d.programs.iter().filter(|p| p.totals.iter().any(|(_, [a, b])| a != b)).collect();
    if !differ.is_empty() {
        let _ = writeln!(out, "{}", totals(&differ));
    }
    for group in d.groups() {
        out.push('\n');
        kernels(&mut out, &group, mlir, colour);
    }
    let calls = d.call_groups();
    if !calls.is_empty() {
        let _ = writeln!(out, "\n{}", painted(BOLD, "library calls", colour));
    }
    calls.iter().for_each(|group| call(&mut out, group, colour));
    out
}

fn summary(d: &Difference) -> String {
    if d.is_equal() {
        return format!("no difference: {} kernels in {} programs", d.kernels_same, d.programs_compared);
    }
    let count = |change| d.kernels.iter().filter(|k| k.change == change).count();
    let counts = [
        (count(Change::Changed), "changed"),
        (count(Change::Added), "added"),
        (count(Change::Removed), "removed"),
        (count(Change::Code), "with other machine code"),
        (count(Change::Used), "used otherwise"),
    ];
    let mut parts: Vec<String> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!("{n} {words}")).collect();
    parts.push(format!("{} the same", d.kernels_same - count(Change::Used)));
    let calls = match d.calls.len() {
        0 => String::new(),
        n => format!("; {n} library calls differ"),
    };
    let (differ, all) = (d.programs.len(), d.programs_compared);
    let same = d.programs.iter().filter(|p| p.totals.iter().all(|(_, [a, b])| a == b)).count();
    let totals = match same {
        0 => String::new(),
        n if n == differ => ", with the same totals".to_owned(),
        n => format!(", {n} of them with the same totals"),
    };
    format!("kernels: {}{calls}; {differ} of {all} programs differ{totals}", parts.join(", "))
}

/// `12`, or `12 -> 14`.
fn step<T: PartialEq + std::fmt::Display>(before: T, after: T) -> String {
    if before == after { after.to_string() } else { format!("{before} -> {after}") }
}

/// `1.57 MB -> 1.49 MB (-5.1 %)`.
fn bytes([before, after]: [u64; 2]) -> String {
    if before == after {
        return display::bytes(after);
    }
    if before == 0 {
        return format!("0 B -> {}", display::bytes(after));
    }
    let share = 100.0 * (after as f64 - before as f64) / before as f64;
    format!("{} -> {} ({share:+.1} %)", display::bytes(before), display::bytes(after))
}

fn totals(programs: &[&ProgramChange]) -> String {
    let known: Vec<&(&str, &str)> = COLUMNS
        .iter()
        .filter(|(n, _)| programs.iter().any(|p| p.totals.iter().any(|(t, _)| t == n)))
        .collect();
    let mut headings = vec!["program"];
    headings.extend(known.iter().map(|(_, heading)| *heading));
    headings.push("other");
    let mut table = output::table(&headings, 1);
    if let Some(last) = table.column_mut(headings.len() - 1) {
        last.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    for p in programs {
        let mut row = vec![p.program.clone()];
        for (name, _) in &known {
            let total = p.totals.iter().find(|(t, _)| t == name);
            row.push(match total {
                Some((_, both)) if name.ends_with("_bytes") => bytes(*both),
                Some((_, [a, b])) => step(a, b),
                None => String::new(),
            });
        }
        // The bound follows the arena all but always.
        let own = |t: &str| t == "arena_lower_bound" || COLUMNS.iter().any(|(n, _)| *n == t);
        let others = p.totals.iter().filter(|(t, [a, b])| a != b && !own(t));
        let others: Vec<String> = others
            .map(|(t, both)| match t.strip_suffix("_bytes") {
                Some(name) => format!("{name} {}", bytes(*both)),
                None => format!("{} {}", t.replace('_', " "), step(both[0], both[1])),
            })
            .collect();
        row.push(in_lines(&others, REST));
        table.add_row(row);
    }
    table.to_string()
}

fn in_lines(parts: &[String], width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut().filter(|line| line.len() + part.len() + 2 <= width) {
            Some(line) => *line = format!("{line}, {part}"),
            None => lines.push(part.clone()),
        }
    }
    lines.join(",\n")
}

fn painted(paint: &str, text: &str, colour: bool) -> String {
    if colour { format!("{paint}{text}{PLAIN}") } else { text.to_owned() }
}

/// One kernel, and where others changed in the same way.
fn kernels(out: &mut String, group: &[&KernelChange], mlir: bool, colour: bool) {
    let Some(k) = group.first() else { return };
    let Some(side) = k.after.as_ref().or(k.before.as_ref()) else { return };
    let what = match k.change {
        Change::Changed => "changed",
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Code => "other machine code",
        Change::Used => "used otherwise",
    };
    let mut labels: Vec<&str> = Vec::new();
    let sides = group.iter().filter_map(|k| k.after.as_ref().or(k.before.as_ref()));
    for label in sides.flat_map(|s| &s.labels) {
        if !labels.contains(&label.as_str()) {
            labels.push(label);
        }
    }
    let title = format!("{what}: {}", labels.join(", "));
    let _ = writeln!(out, "{}", painted(BOLD, &title, colour));
    let ids = [&k.before, &k.after].map(|s| s.as_ref().or(Some(side)).map_or("", |s| &s.id));
    let _ = writeln!(out, "  {}", step(ids[0], ids[1]));
    let code = [&k.before, &k.after].map(|s| s.as_ref().and_then(|s| s.code));
    if code.iter().any(Option::is_some) {
        let _ = writeln!(out, "  {}", machine_code(code));
    }
    wrapped(out, "in", &places(&k.programs, k.change));
    if group.len() > 1 {
        let mut models: Vec<&str> = Vec::new();
        let programs = group[1..].iter().flat_map(|k| &k.programs);
        for model in programs.filter_map(|u| u.program.rsplit_once(' ')).map(|(model, _)| model) {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        let models: Vec<String> = models.into_iter().map(str::to_owned).collect();
        wrapped(out, &format!("and {} more in the same way, in", group.len() - 1), &models);
    }
    let shown = [(&k.body, true), (&k.mlir, mlir || k.body.is_empty())];
    let whole = matches!(k.change, Change::Added | Change::Removed);
    let lines = shown.iter().filter(|(_, show)| *show).flat_map(|(diff, _)| diff.lines());
    for line in lines.filter(|line| !(whole && line.starts_with('@'))) {
        let paint = match line.as_bytes().first() {
            Some(b'-') => RED,
            Some(b'+') => GREEN,
            Some(b'@') => CYAN,
            _ => PLAIN,
        };
        let _ = writeln!(out, "{}", painted(paint, line, colour));
    }
}

fn machine_code([a, b]: [Option<Code>; 2]) -> String {
    let (x, y) = (a.or(b).unwrap_or_default(), b.or(a).unwrap_or_default());
    format!(
        "{} instructions, {} vector, {} scalar, {} fma, {} bytes",
        step(x.instructions, y.instructions),
        step(x.vector, y.vector),
        step(x.scalar, y.scalar),
        step(x.fma, y.fma),
        step(x.bytes, y.bytes)
    )
}

/// `nano-21k batch 8 (train 5 -> 6; eval 1)`; with bytes where those are what differs.
fn places(uses: &[Uses], change: Change) -> Vec<String> {
    let mut models: Vec<(&str, Vec<String>)> = Vec::new();
    for u in uses {
        let (model, program) = u.program.rsplit_once(' ').unwrap_or((&u.program, ""));
        let times = match change {
            Change::Added | Change::Removed => u.times[0].max(u.times[1]).to_string(),
            _ => step(u.times[0], u.times[1]),
        };
        let mut words = format!("{program} {times}");
        if change == Change::Used && u.bytes[0] != u.bytes[1] {
            words += &format!(", {}", bytes(u.bytes));
        }
        match models.iter_mut().find(|(m, _)| *m == model) {
            Some((_, programs)) => programs.push(words),
            None => models.push((model, vec![words])),
        }
    }
    models.iter().map(|(model, programs)| format!("{model} ({})", programs.join("; "))).collect()
}

/// A list after its first words, in lines that fit a terminal.
fn wrapped(out: &mut String, words: &str, list: &[String]) {
    let text = in_lines(list, WIDTH - 4).replace('\n', "\n    ");
    let _ = match text.contains('\n') || words.len() + text.len() + 3 > WIDTH {
        true => writeln!(out, "  {words}\n    {text}"),
        false => writeln!(out, "  {words} {text}"),
    };
}

fn call(out: &mut String, group: &[&CallChange], colour: bool) {
    let Some(c) = group.first() else { return };
    let more = match group.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more with other numbers"),
    };
    let line = format!(
        "{} at {}: {}{more}",
        c.call,
        c.labels.join(", "),
        places(&c.programs, Change::Changed).join(", ")
    );
    let less = c.programs.iter().all(|u| u.times[1] <= u.times[0]);
    let (mark, paint) = if less { ('-', RED) } else { ('+', GREEN) };
    let _ = writeln!(out, "{}", painted(paint, &format!("{mark} {line}"), colour));
}
