//! Tests of the compiler that are text: files of cases, each a graph and what actions make of it. `isoflop opt --check`
//! and the tests of this repository run them through [`check`]. The form of a file is in tests/filetests/README.md.

mod actions;
mod case;
mod machine;
mod plan;

pub use case::{Case, File, cases};
pub use machine::{Job, JobInput, Outputs};

use crate::passes::Registry;
use actions::{Action, Made};
use case::Section;
use std::path::{Path, PathBuf};

/// Machine code for many graphs at once, compiled and run: for each job the outputs by name, or why there are none.
/// Execution needs a runtime, which this crate has not: the caller brings it.
pub type Execute<'a> = &'a dyn Fn(&[Job]) -> Vec<Result<Outputs, String>>;

/// What files are checked with.
#[derive(Clone, Copy)]
pub struct Harness<'a> {
    pub registry: &'a Registry,
    /// Without it, `run cpu` is not judged, and [`Report::not_run`] counts it.
    pub execute: Option<Execute<'a>>,
    /// Only cases in whose `PATH:LINE ACTIONS` this text occurs.
    pub filter: Option<&'a str>,
    /// Write what was found over what was expected.
    pub bless: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum FiletestError {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path}: no case in this file; a case begins with a line `// test: ACTION`")]
    NoCase { path: PathBuf },
    #[error("no .graph file under {0}")]
    NoFile(PathBuf),
}

/// What differs from what was expected.
#[derive(Clone, Debug)]
pub struct Failure {
    pub path: PathBuf,
    /// Of the case's `// test: ` line, from 1.
    pub line: usize,
    pub action: String,
    /// A unified diff, or a sentence.
    pub what: String,
}

/// What became of a file.
#[derive(Clone, Debug)]
pub struct Checked {
    pub path: PathBuf,
    /// Actions that were judged.
    pub actions: usize,
    pub failed: usize,
    pub blessed: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub files: Vec<Checked>,
    pub failures: Vec<Failure>,
    /// Actions that need machine code and were not judged.
    pub not_run: usize,
}

impl Report {
    pub fn actions(&self) -> usize {
        self.files.iter().map(|f| f.actions).sum()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} ({})\n{}", self.path.display(), self.line, self.action, self.what.trim_end())
    }
}

/// Files as they are, and every `.graph` file below folders, in order of their names.
pub fn graph_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FiletestError> {
    let mut found = vec![];
    for path in paths {
        let before = found.len();
        match path.is_dir() {
            true => below(path, &mut found)?,
            false => found.push(path.clone()),
        }
        if found.len() == before {
            return Err(FiletestError::NoFile(path.clone()));
        }
    }
    Ok(found)
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), FiletestError> {
    let failed = |source| FiletestError::Io { action: "read", path: folder.into(), source };
    let mut entries = vec![];
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            below(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "graph") {
            found.push(path);
        }
    }
    Ok(())
}

/// Runs the cases of these files and folders, all machine code of all files in one go.
pub fn check(paths: &[PathBuf], harness: &Harness) -> Result<Report, FiletestError> {
    let mut files: Vec<(PathBuf, File)> = vec![];
    for path in graph_files(paths)? {
        let failed = |source| FiletestError::Io { action: "read", path: path.clone(), source };
        let file = cases(&std::fs::read_to_string(&path).map_err(failed)?);
        if file.cases.is_empty() {
            return Err(FiletestError::NoCase { path });
        }
        files.push((path, file));
    }
    let found = outcomes(&files, harness);
    let mut report = Report::default();
    for ((path, file), found) in files.into_iter().zip(found) {
        report.not_run += found.iter().flatten().filter(|s| matches!(s, Section::NotRun)).count();
        judge(path, file, &found, harness, &mut report)?;
    }
    Ok(report)
}

/// For each file, for each case, what each of its actions gave. Machine code is run when all of it is known.
fn outcomes(files: &[(PathBuf, File)], harness: &Harness) -> Vec<Vec<Vec<Section>>> {
    let mut jobs: Vec<Job> = vec![];
    let mut of_job: Vec<[usize; 3]> = vec![];
    let mut all: Vec<Vec<Vec<Section>>> = vec![];
    for (f, (path, file)) in files.iter().enumerate() {
        let mut of_file = vec![];
        for (c, case) in file.cases.iter().enumerate() {
            let name = format!("{}:{} {}", path.display(), case.line, case.actions.join(" "));
            let chosen = harness.filter.is_none_or(|part| name.contains(part));
            let mut sections = vec![];
            for (a, action) in case.actions.iter().enumerate().filter(|_| chosen) {
                let made =
                    Action::parse(action, harness.registry).and_then(|action| action.make(case, jobs.len()));
                sections.push(match made {
                    Ok(Made::Text(text)) => Section::Text(text),
                    Ok(Made::Job(job)) if harness.execute.is_some() => {
                        jobs.push(*job);
                        of_job.push([f, c, a]);
                        Section::NotRun
                    }
                    Ok(Made::Job(_)) => Section::NotRun,
                    Err(message) => Section::Text(format!("error: {message}")),
                });
            }
            of_file.push(sections);
        }
        all.push(of_file);
    }
    if let Some(execute) = harness.execute.filter(|_| !jobs.is_empty()) {
        let ran = execute(&jobs);
        for (([f, c, a], job), ran) in of_job.into_iter().zip(&jobs).zip(ran) {
            let text = ran.map_err(|m| job.in_short(&m)).and_then(|outputs| job.judge(&outputs));
            all[f][c][a] = Section::Text(text.unwrap_or_else(|m| format!("error: {m}")));
        }
    }
    all
}

fn judge(
    path: PathBuf,
    file: File,
    found: &[Vec<Section>],
    harness: &Harness,
    report: &mut Report,
) -> Result<(), FiletestError> {
    let mut checked = Checked { path: path.clone(), actions: 0, failed: 0, blessed: false };
    for (case, sections) in file.cases.iter().zip(found) {
        for (k, section) in sections.iter().enumerate() {
            let Section::Text(text) = section else { continue };
            checked.actions += 1;
            let Some(what) = case.wrong(k, text) else { continue };
            if harness.bless && !case.partial {
                checked.blessed = true;
                continue;
            }
            checked.failed += 1;
            let (line, action) = (case.line, case.actions[k].clone());
            report.failures.push(Failure { path: path.clone(), line, action, what });
        }
    }
    if checked.blessed {
        let failed = |source| FiletestError::Io { action: "write", path: path.clone(), source };
        std::fs::write(&path, file.blessed(found)).map_err(failed)?;
    }
    if checked.actions > 0 {
        report.files.push(checked);
    }
    Ok(())
}
