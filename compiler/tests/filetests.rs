//! Tests that are data: `tests/filetests/<pass>/*.graph`.
//!
//! A file holds cases. A case begins with a line `// test: ACTION` and goes on to the next. It is a graph followed by the
//! text the action must give, every line after `// CHECK: `. Actions:
//!
//! * `parse`: the canonical text, or the error. Line 1 of an error is the case's `// test:` line.
//! * `verify`: every problem, or `ok`; types and operands are taken as the text says them.
//! * `interpret` or `interpret f32`: outputs, for inputs given by lines `// input x = 1, 2, 3` (one number fills any shape).
//! * `kernels`: the operations of every kernel that `fuse` forms; `explain` also what it decided about each pair.
//! * anything else is a list of passes as after `isoflop opt --passes`; the graph after them.
//!
//! `// match: partial` asks only that the CHECK lines are lines of the result in this order, and that no line contains
//! what a `// CHECK-NOT: ` line says. `BLESS=1 cargo test -p isoflop-compiler --test filetests` writes the CHECK
//! lines of all other cases.

use isoflop_compiler::cost::CostModel;
use isoflop_compiler::fuse::body::is_item;
use isoflop_compiler::fuse::decision::Outcome;
use isoflop_compiler::fuse::fuse;
use isoflop_compiler::graph::Op;
use isoflop_compiler::interp::{Precision, Tensor, interpret_in};
use isoflop_compiler::passes::pipeline::{self, Options};
use isoflop_compiler::passes::{Context, Registry};
use isoflop_compiler::text::{number, parse, parse_unverified, print};
use isoflop_compiler::verify::verify;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

struct Case {
    /// Comments directly above, which are about this case.
    above: Vec<String>,
    /// Line of the file, from 1.
    line: usize,
    action: String,
    /// All lines but CHECK lines.
    source: Vec<String>,
    checks: Vec<String>,
    forbidden: Vec<String>,
    partial: bool,
}

fn cases(text: &str) -> (Vec<String>, Vec<Case>) {
    let mut preamble = vec![];
    let mut cases: Vec<Case> = vec![];
    for (k, line) in text.lines().enumerate() {
        if let Some(action) = line.strip_prefix("// test: ") {
            let before = cases.last_mut().map_or(&mut preamble, |c| &mut c.source);
            let from = before.iter().rposition(|l| !l.starts_with("// ")).map_or(0, |i| i + 1);
            let (above, action) = (before.split_off(from), action.trim().to_string());
            let (source, checks, forbidden) = (vec![], vec![], vec![]);
            cases.push(Case { above, line: k + 1, action, source, checks, forbidden, partial: false });
        }
        match cases.last_mut() {
            None => preamble.push(line.to_string()),
            Some(case) => match (line.strip_prefix("// CHECK:"), line.strip_prefix("// CHECK-NOT: ")) {
                (Some(check), _) => case.checks.push(check.strip_prefix(' ').unwrap_or(check).to_string()),
                (None, forbidden) => {
                    case.forbidden.extend(forbidden.map(str::to_string));
                    case.partial |= line.trim() == "// match: partial";
                    case.source.push(line.to_string());
                }
            },
        }
    }
    (preamble, cases)
}

/// What the action of a case gives, or why it fails.
fn outcome(case: &Case) -> Result<String, String> {
    let text = case.source.join("\n");
    match case.action.as_str() {
        "parse" => {
            let printed = print(&parse(&text, "input").map_err(|e| e.to_string())?);
            let again = parse(&printed, "printed").map(|g| print(&g));
            if again.as_ref() != Ok(&printed) {
                return Err(format!("what was printed does not parse back to itself: {again:?}\n{printed}"));
            }
            Ok(printed)
        }
        "verify" => {
            let g = parse_unverified(&text, "input").map_err(|e| e.to_string())?;
            Ok(match verify(&g) {
                Ok(()) => "ok".into(),
                Err(problems) => problems.iter().map(|p| format!("{p}\n")).collect(),
            })
        }
        "interpret" => interpreted(case, &text, Precision::F64),
        "interpret f32" => interpreted(case, &text, Precision::F32),
        "explain" => explained(&text, true),
        "kernels" => explained(&text, false),
        passes => {
            let passes = Registry::default().parse_list(passes).map_err(|e| e.to_string())?;
            let mut g = parse(&text, "input").map_err(|e| e.to_string())?;
            let options = Options { verify: true, ..Options::default() };
            pipeline::run(&mut g, &passes, &options, &mut Context::default()).map_err(|e| e.to_string())?;
            let printed = print(&g);
            match parse(&printed, "printed").map(|g| print(&g)) {
                Ok(again) if again == printed => Ok(printed),
                again => Err(format!("the result does not parse back to itself: {again:?}\n{printed}")),
            }
        }
    }
}

fn explained(text: &str, decisions: bool) -> Result<String, String> {
    let mut g = parse(text, "input").map_err(|e| e.to_string())?;
    let log = fuse(&mut g, &CostModel::default(), true);
    verify(&g).map_err(|problems| format!("fuse broke the graph: {problems:?}"))?;
    let mut out = String::new();
    for d in log.decisions.iter().filter(|_| decisions) {
        let pair = if d.siblings { "beside" } else { "into" };
        let outcome = match d.outcome {
            Outcome::Fused { .. } => format!("fused, {} bytes saved", d.bytes_saved),
            Outcome::Refused(reason) => serde_json::to_string(&reason).unwrap_or_default().replace('"', ""),
        };
        let _ = writeln!(out, "%{} {pair} %{}: {outcome}", d.producer, d.consumer);
    }
    for n in g.topological() {
        let Op::Fused { region } = g.op(n) else { continue };
        let items = region.topological().into_iter().map(|m| region.op(m)).filter(|op| is_item(op));
        let items: Vec<&str> = items.map(Op::mnemonic).collect();
        let _ = writeln!(out, "kernel %{}: {}", g.node(n).id, items.join(" "));
    }
    Ok(out)
}

fn interpreted(case: &Case, text: &str, precision: Precision) -> Result<String, String> {
    let g = parse(text, "input").map_err(|e| e.to_string())?;
    let mut inputs = BTreeMap::new();
    for line in &case.source {
        let Some((name, values)) = line.strip_prefix("// input ").and_then(|l| l.split_once(" = ")) else {
            continue;
        };
        let ty = g.ty(g.input(name).ok_or(format!("the graph has no input {name}"))?);
        let parsed: Result<Vec<f64>, _> = values.split(',').map(|v| v.trim().parse()).collect();
        let mut values = parsed.map_err(|e| format!("input {name}: {e}"))?;
        if let [one] = values[..] {
            values = vec![one; ty.elements()];
        }
        inputs.insert(name.to_string(), Tensor::new(ty, values));
    }
    let outputs = interpret_in(&g, &inputs, precision).map_err(|e| e.to_string())?;
    let mut out = String::new();
    for o in &g.outputs {
        let t = &outputs[&o.name];
        // Ten digits: mathematical libraries differ in the last ones.
        let shown = t.data.iter().map(|x| number(format!("{x:.9e}").parse().unwrap_or(*x)));
        let _ = writeln!(out, "{}: {} = {}", o.name, t.ty(), shown.collect::<Vec<_>>().join(", "));
    }
    Ok(out)
}

/// What is wrong, as a unified diff, if anything is.
fn judge(case: &Case, found: &str) -> Option<String> {
    if case.partial {
        let mut lines = found.lines().map(str::trim);
        for check in &case.checks {
            if !lines.any(|l| l == check.trim()) {
                return Some(format!("no line `{check}` in its place in\n{found}"));
            }
        }
        let hit = case.forbidden.iter().find(|f| found.contains(f.as_str()));
        return hit.map(|f| format!("`{f}` must not be in\n{found}"));
    }
    let expected: String = case.checks.iter().map(|l| format!("{}\n", l.trim_end())).collect();
    let found: String = found.lines().map(|l| format!("{}\n", l.trim_end())).collect();
    if expected == found {
        return None;
    }
    let diff = similar::TextDiff::from_lines(&expected, &found);
    Some(diff.unified_diff().header("expected", "found").to_string())
}

fn bless(path: &Path, preamble: &[String], cases: &[Case], found: &[String]) {
    let mut out: String = preamble.iter().map(|l| format!("{l}\n")).collect();
    for (case, found) in cases.iter().zip(found) {
        case.above.iter().for_each(|l| out.extend([l.as_str(), "\n"]));
        out.push_str(case.source.join("\n").trim_end());
        out.push('\n');
        let checks: Vec<&str> = match case.partial {
            true => case.checks.iter().map(String::as_str).collect(),
            false => found.lines().collect(),
        };
        for line in checks {
            let _ = writeln!(out, "{}", format!("// CHECK: {line}").trim_end());
        }
        out.push('\n');
    }
    std::fs::write(path, format!("{}\n", out.trim_end())).expect("a filetest cannot be written");
}

fn graph_files(folder: &Path) -> Vec<PathBuf> {
    let mut out = vec![];
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            out.extend(graph_files(&path));
        } else if path.extension().is_some_and(|e| e == "graph") {
            out.push(path);
        }
    }
    out.sort();
    out
}

#[test]
fn filetests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/filetests");
    let blessing = std::env::var_os("BLESS").is_some_and(|v| v == "1");
    let (mut failures, mut count) = (String::new(), 0);
    for path in graph_files(&root) {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (preamble, cases) = cases(&text);
        assert!(!cases.is_empty(), "{}: no `// test: ` line", path.display());
        let found: Vec<String> =
            cases.iter().map(|c| outcome(c).unwrap_or_else(|e| format!("error: {e}"))).collect();
        count += cases.len();
        for (case, found) in cases.iter().zip(&found) {
            if let Some(wrong) = judge(case, found)
                && (!blessing || case.partial)
            {
                let _ = writeln!(failures, "{}:{} ({})\n{wrong}", path.display(), case.line, case.action);
            }
        }
        if blessing {
            bless(&path, &preamble, &cases, &found);
        }
    }
    assert!(failures.is_empty(), "{failures}\nBLESS=1 accepts what was found");
    assert!(count > 0, "no filetests under {}", root.display());
}
