//! The documentation against the program: commands run, options exist, links resolve, and lists of names are complete.
//!
//! In Markdown, a comment before a fenced block says what the block is:
//!
//! * `<!-- test -->`: commands, run by bash with the real `isoflop`. Blocks of one page share a directory, in which
//!   there is a text `book.txt` and the repository's folder `sweeps`.
//! * `<!-- file: NAME -->`: a file that is in that directory from here on.
//! * `<!-- source: PATH -->`: a file of this repository, every line of it.
//! * `<!-- prints -->`: what the commands before print, exactly; a line `...` stands for any lines.
//! * `<!-- slurm -->`: as `test`, on a machine of a Slurm cluster: tests/slurm runs these pages.
#![cfg(feature = "study")]

#[path = "pages/mod.rs"]
mod pages;

use isoflop_compiler::fuse::decision::Reason;
use isoflop_compiler::passes;
use pages::{agrees, blocks, read, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

const ISOFLOP: &str = env!("CARGO_BIN_EXE_isoflop");
const VERBS: [&str; 23] = [
    "plan",
    "calibrate",
    "compile",
    "opt",
    "kernels dump",
    "kernels diff",
    "run",
    "train",
    "submit",
    "cancel",
    "retry",
    "wait",
    "explain",
    "logs",
    "status",
    "fit",
    "allocate",
    "simulate",
    "propose",
    "report",
    "devices",
    "data prepare",
    "completions",
];

/// Markdown files at the root, in docs and beside the filetests.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = ["", "docs", "tests/filetests"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(root().join(dir)).expect("a folder"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    pages.sort();
    pages
}

#[test]
fn commands_run_and_print_what_the_page_says() {
    let lab = tempfile::tempdir().expect("a directory");
    let bin = lab.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    std::os::unix::fs::symlink(ISOFLOP, bin.join("isoflop")).expect("a link");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // Any English text will do; this one is always here.
    let book: String = pages().iter().map(read).collect::<String>() + &read("tests/docs.rs");
    let mut ran = 0;
    for page in pages() {
        let name = page.strip_prefix(root()).expect("a page of ours").display().to_string();
        let dir = lab.path().join(name.replace('/', "-"));
        std::fs::create_dir(&dir).expect("a folder");
        std::fs::write(dir.join("book.txt"), book.repeat(4)).expect("written");
        std::os::unix::fs::symlink(root().join("sweeps"), dir.join("sweeps")).expect("a link");
        // None after a block that does not run here.
        let mut printed = Some(String::new());
        for block in blocks(&read(&page)) {
            let place = format!("{name}:{}", block.line);
            if let Some(file) = block.mark.strip_prefix("file: ") {
                std::fs::write(dir.join(file), &block.text).expect("written");
            } else if let Some(source) = block.mark.strip_prefix("source: ") {
                assert!(block.text == read(source), "{place} is not what {source} holds");
            } else if block.mark == "slurm" {
                printed = None;
            } else if block.mark == "prints" {
                let Some(printed) = &printed else { continue };
                let (wanted, found) =
                    (block.text.lines().collect::<Vec<_>>(), printed.lines().collect::<Vec<_>>());
                assert!(agrees(&wanted, &found), "{place}: the page says\n{}\nfound\n{printed}", block.text);
            } else if block.mark == "test" {
                let output = Command::new("bash")
                    .args(["-euo", "pipefail", "-c", &block.text])
                    .current_dir(&dir)
                    .env("PATH", &path)
                    .env("ISOFLOP_CACHE", lab.path().join("cache"))
                    .env("XDG_CONFIG_HOME", lab.path().join("config"))
                    .output()
                    .expect("bash");
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let errors = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{place}: {}\n{text}{errors}", output.status);
                printed = Some(text);
                ran += 1;
            } else {
                assert!(block.mark.is_empty(), "{place}: unknown mark `{}`", block.mark);
            }
        }
    }
    assert!(ran >= 3, "only {ran} blocks are marked");
}

/// Help of every verb, and of the whole under the empty name.
fn helps() -> BTreeMap<&'static str, String> {
    let help = |verb: &str| {
        let output =
            Command::new(ISOFLOP).args(verb.split_whitespace()).arg("--help").output().expect("started");
        assert!(output.status.success(), "isoflop {verb} --help");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    VERBS.into_iter().chain([""]).map(|verb| (verb, help(verb))).collect()
}

/// The command lines of `isoflop` in a piece of code, each as its words.
fn command_lines(code: &str) -> Vec<Vec<&str>> {
    let joined: Vec<&str> = code.split(['|', ';', '&', '\n', '(', ')', '"']).collect();
    joined
        .into_iter()
        .filter_map(|part| {
            let words: Vec<&str> =
                part.split_whitespace().take_while(|w| !w.starts_with(['#', '>'])).collect();
            let at = words.iter().position(|w| *w == "isoflop" || w.ends_with("/isoflop"))?;
            // In `cargo install --bin isoflop` and the like it is no command.
            let is_command =
                words[..at].iter().all(|w| w.contains('=') || ["exec", "srun", "time", "$"].contains(w));
            (is_command && words.len() > at + 1).then(|| words[at + 1..].to_vec())
        })
        .collect()
}

#[track_caller]
fn check_command(words: &[&str], helps: &BTreeMap<&'static str, String>, place: &str) {
    let verb = match words {
        ["data", "prepare", ..] => "data prepare",
        ["kernels", "dump", ..] => "kernels dump",
        ["kernels", "diff", ..] => "kernels diff",
        ["data" | "kernels", ..] => return,
        [flag, ..] if flag.starts_with('-') => "",
        [verb, ..] => verb,
        [] => return,
    };
    if verb.chars().all(|c| c.is_ascii_uppercase()) && !verb.is_empty() {
        return;
    }
    let help = helps.get(verb).unwrap_or_else(|| panic!("{place}: `isoflop {verb}` is no verb"));
    for word in words.iter().filter(|w| w.starts_with("--")) {
        let flag = word.split('=').next().unwrap_or(word).trim_end_matches(['.', ',', '`']);
        let known = help.split([' ', '\n', ',']).any(|h| h == flag);
        assert!(known, "{place}: `isoflop {verb}` has no option `{flag}`");
    }
}

#[test]
fn every_command_and_option_on_a_page_or_in_help_exists() {
    let helps = helps();
    let mut seen = 0;
    for page in pages() {
        let text = read(&page);
        let place = page.display().to_string();
        let code = blocks(&text).into_iter().map(|b| b.text.replace("\\\n", " ")).collect::<Vec<_>>();
        let prose: String = text.split("```").step_by(2).collect();
        let spans = prose.split('`').skip(1).step_by(2).map(|s| s.replace('\n', " "));
        for piece in code.into_iter().chain(spans) {
            for words in command_lines(&piece) {
                check_command(&words, &helps, &place);
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "only {seen} commands found in the pages");
    for (verb, help) in &helps {
        let example =
            help.split("Example").nth(1).unwrap_or_else(|| panic!("`isoflop {verb}` shows no example"));
        let lines = command_lines(example);
        assert!(!lines.is_empty(), "`isoflop {verb}` shows no example");
        lines.iter().for_each(|words| check_command(words, &helps, &format!("help of `{verb}`")));
    }
    let readme = read("README.md");
    for verb in VERBS {
        assert!(readme.contains(&format!("| `isoflop {verb}`")), "README.md lists no `isoflop {verb}`");
    }
}

#[test]
fn relative_links_resolve() {
    for page in pages() {
        let text = read(&page);
        let prose: String = text.split("```").step_by(2).collect();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            assert!(to.exists(), "{}: the link to {target} leads nowhere", page.display());
            if !anchor.is_empty() {
                let anchors: Vec<String> =
                    read(&to).lines().filter(|l| l.starts_with('#')).map(slug).collect();
                assert!(anchors.iter().any(|a| a == anchor), "{}: no heading for {target}", page.display());
            }
        }
    }
}

/// The anchor that a heading gets.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// First cells of the table rows below `heading`, without backquotes.
#[track_caller]
fn first_cells(page: &str, heading: &str) -> BTreeSet<String> {
    let level = heading.split(' ').next().unwrap_or("#").len();
    let below = page.lines().skip_while(|l| *l != heading).skip(1);
    let section =
        below.take_while(|l| !l.starts_with('#') || l.split(' ').next().is_some_and(|h| h.len() > level));
    let cells: BTreeSet<String> =
        section.filter_map(|l| l.strip_prefix("| `")?.split('`').next().map(str::to_owned)).collect();
    assert!(!cells.is_empty(), "no table below `{heading}`");
    cells
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Fields or variants of a type, as serde names them, from its source.
#[track_caller]
fn members(source: &str, item: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once(&format!("pub {item} {{\n")).unwrap_or_else(|| panic!("no `{item}`"));
    let (body, _) = body.split_once("\n}").expect("an end");
    let mut renamed = None;
    let mut names = BTreeSet::new();
    for line in body.lines().map(str::trim) {
        if let Some((_, new)) = line.strip_prefix("#[serde(").and_then(|l| l.split_once("rename = \"")) {
            renamed = new.split('"').next().map(str::to_owned);
        } else if !line.starts_with(['/', '#']) && !line.is_empty() {
            let name = match line.strip_prefix("pub ") {
                Some(field) => field.split(':').next().map(str::to_owned),
                None => line.strip_suffix(',').map(kebab),
            };
            names.extend(renamed.take().or(name));
        }
    }
    assert!(!names.is_empty(), "`{item}` is empty");
    names
}

#[test]
fn every_key_of_the_sweep_file_is_in_the_table() {
    let (page, schema) = (read("docs/researcher.md"), read("sweeps/src/file/schema.rs"));
    for (heading, table) in [
        ("sweep", "SweepTable"),
        ("family", "FamilyTable"),
        ("[family.shape]", "ShapeTable"),
        ("plan", "PlanTable"),
        ("[plan.run]", "RunTable"),
        ("train", "TrainTable"),
        ("train.batch_tokens", "BatchTable"),
        ("train.lr", "LrTable"),
        ("train.schedule", "ScheduleTable"),
        ("train.optimizer", "OptimizerTable"),
        ("data", "DataTable"),
        ("executor", "ExecutorTable"),
        ("fit", "FitTable"),
    ] {
        let mut keys = members(&schema, &format!("struct {table}"));
        for (parent, key) in [("FamilyTable", "shape"), ("PlanTable", "run")] {
            assert!(table != parent || keys.remove(key), "`{key}` has a table of its own");
        }
        assert_eq!(first_cells(&page, &format!("### `[{heading}]`")), keys, "[{heading}]");
    }
    for (file, item) in [
        ("sweeps/src/file/schema.rs", "enum PlanKind"),
        ("sweeps/src/file/schema.rs", "enum BatchRule"),
        ("sweeps/src/file/schema.rs", "enum LrRule"),
        ("sweeps/src/file/schema.rs", "enum ExecutorKind"),
        ("sweeps/src/family.rs", "enum FamilyName"),
        ("compiler/src/count.rs", "enum Convention"),
        ("runtime/src/config.rs", "enum Decay"),
        ("sweeps/src/fit/options.rs", "enum LossColumn"),
        ("sweeps/src/fit/options.rs", "enum ParamCount"),
        ("sweeps/src/fit/options.rs", "enum Objective"),
        ("sweeps/src/fit/options.rs", "enum Starts"),
        ("sweeps/src/fit/options.rs", "enum MinimumMethod"),
        ("sweeps/src/fit/asked.rs", "enum NamedLaw"),
        ("sweeps/src/fit/asked.rs", "enum IntervalKind"),
    ] {
        for name in members(&read(file), item) {
            assert!(page.contains(&format!("`{name}`")), "`{name}` of {item} is not explained");
        }
    }
}

#[test]
fn lists_of_names_are_complete() {
    let codes = members(&read("sweeps/src/fit/result.rs"), "enum WarningCode");
    assert_eq!(first_cells(&read("docs/researcher.md"), "### Warnings"), codes);

    let compiler = read("docs/compiler.md");
    let names: BTreeSet<String> = passes::all().iter().map(|p| p.name.to_owned()).collect();
    assert_eq!(first_cells(&compiler, "## Passes"), names);
    let reasons: BTreeSet<String> = Reason::ALL.iter().map(|r| r.sentence().to_owned()).collect();
    assert_eq!(first_cells(&compiler, "### Why a pair is refused"), reasons);

    use isoflop_runtime::train::{EXIT_CONTINUE, EXIT_DIVERGED, EXIT_FAILED, EXIT_FINISHED, EXIT_NOT_OWNER};
    let exits: BTreeSet<String> = [EXIT_FINISHED, EXIT_FAILED, EXIT_CONTINUE, EXIT_DIVERGED, EXIT_NOT_OWNER]
        .iter()
        .map(i32::to_string)
        .collect();
    assert_eq!(first_cells(&read("docs/cluster.md"), "## Exit codes"), exits);
    let causes = members(&read("sweeps/src/slurm/policy.rs"), "enum Cause");
    assert_eq!(first_cells(&read("docs/cluster.md"), "### When a job ends early"), causes);
}

#[test]
fn test_functions_that_a_page_names_exist() {
    let mut functions = BTreeSet::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !["target", "corpus", "studies"].contains(&&*name) {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = read(&path);
                let starts = text.lines().filter_map(|l| l.trim_start().strip_prefix("fn "));
                functions.extend(starts.filter_map(|l| l.split('(').next()).map(str::to_owned));
            }
        }
    }
    let page = read("docs/architecture.md");
    let mut named = 0;
    for span in page.split('`').skip(1).step_by(2) {
        // `file.rs: test_name`
        if let Some((file, test)) = span.split_once(".rs: ") {
            assert!(root().join(format!("{file}.rs")).is_file(), "docs/architecture.md names {file}.rs");
            assert!(functions.contains(test), "docs/architecture.md names a test `{test}`");
            named += 1;
        }
    }
    assert!(named >= 10, "invariants name their tests: only {named} found");
}
