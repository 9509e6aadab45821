//! Compilers of other revisions: each is built once in a checkout of its own, kept by its commit, and dumps with its own
//! binary.

use super::dump;
use super::models::Selection;
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use isoflop_compiler::compare::Dump;
use isoflop_sweeps::compile::cache;
use isoflop_sweeps::display;
use miette::{IntoDiagnostic, miette};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What builds `isoflop` where nothing else is said.
pub const BUILD: &str = "cargo build --release --locked --bin isoflop";
/// A revision without this file has no `isoflop kernels dump`.
const DUMPS: &str = "src/verbs/kernels/dump.rs";
/// Lines of a failed build that are shown.
const LAST_LINES: usize = 20;

/// A commit, and what the user called it.
pub struct Revision {
    root: PathBuf,
    name: String,
    commit: String,
}

/// Standard output of a git command that succeeds, without its line end; else its error.
fn git(folder: &Path, args: &[&str]) -> miette::Result<Result<String, String>> {
    // A hook's index is not that of another checkout.
    let command = Command::new("git").args(args).current_dir(folder).env_remove("GIT_INDEX_FILE").output();
    let output = command.map_err(|e| miette!("cannot start git: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

impl Revision {
    /// The commit that `name` names in the repository around the current folder.
    ///
    /// # Errors
    /// When there is no repository, no such commit, or a commit without `isoflop kernels dump`.
    pub fn find(name: &str) -> miette::Result<Revision> {
        let root = git(Path::new("."), &["rev-parse", "--show-toplevel"])?
            .map_err(|e| miette!("--rev needs a git repository of isoflop around the current folder: {e}"))?;
        let root = PathBuf::from(root);
        let wanted = format!("{name}^{{commit}}");
        let commit = git(&root, &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted])?
            .map_err(|_| miette!("{} has no revision `{name}`", root.display()))?;
        let revision = Revision { root, name: name.to_owned(), commit };
        let place = format!("{}:{DUMPS}", revision.commit);
        match git(&revision.root, &["cat-file", "-e", &place])? {
            Ok(_) => Ok(revision),
            Err(_) => Err(miette!(
                "revision {revision} has no `isoflop kernels dump` ({DUMPS}): it is older than that, or no isoflop"
            )),
        }
    }

    /// What the compiler of this revision makes of the models.
    ///
    /// # Errors
    /// When it cannot be built, or refuses the models.
    pub fn dump(
        &self,
        files: &[PathBuf],
        selection: &Selection,
        disabled: &[String],
        build: &str,
    ) -> miette::Result<Dump> {
        let binary = self.binary(build)?;
        let folder = tempfile::tempdir().into_diagnostic()?;
        let out = folder.path().join("dump.json");
        let output = Command::new(&binary)
            .args(["kernels", "dump"])
            .args(selection.arguments())
            .args(disabled.iter().flat_map(|pass| ["--disable-pass", pass]))
            .arg("--out")
            .arg(&out)
            .arg("--")
            .args(files)
            .output()
            .map_err(|e| miette!("cannot start {}: {e}", binary.display()))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(miette!("isoflop of {self} makes no dump ({}):\n{}", output.status, why.trim_end()));
        }
        dump::read(&out).map_err(|e| miette!("the dump of {self}: {e}"))
    }

    /// The `isoflop` of this revision, built now if it was not before.
    fn binary(&self, build: &str) -> miette::Result<PathBuf> {
        let revisions = cache().join("revisions");
        let how = blake3::hash(build.as_bytes()).to_hex();
        let folder = revisions.join(format!("{}-{}", self.commit, &how[..8]));
        let binary = folder.join("isoflop");
        let io = |what: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |e: std::io::Error| miette!("cannot {what} {path}: {e}")
        };
        if binary.is_file() {
            return Ok(binary);
        }
        std::fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        // One build at a time: checkout and target folder are shared, so that dependencies are built once.
        let lock_path = revisions.join("lock");
        let lock = std::fs::File::create(&lock_path).map_err(io("create", &lock_path))?;
        lock.lock().map_err(io("lock", &lock_path))?;
        if binary.is_file() {
            return Ok(binary);
        }
        let target = revisions.join("target");
        let built = target.join("release/isoflop");
        if built.exists() {
            std::fs::remove_file(&built).map_err(io("remove", &built))?;
        }
        let checkout = Checkout::new(self, revisions.join("checkout"))?;
        self.build(&checkout.path, &target, build)?;
        let made = folder.join("isoflop.made");
        std::fs::copy(&built, &made)
            .map_err(|e| miette!("`{build}` left no {} for revision {self}: {e}", built.display()))?;
        std::fs::rename(&made, &binary).map_err(io("write", &binary))?;
        Ok(binary)
    }

    fn build(&self, checkout: &Path, target: &Path, build: &str) -> miette::Result<()> {
        let began = Instant::now();
        output::note(&format!("building isoflop of {self}: {build}"));
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec 2>&1\n{build}"))
            .current_dir(checkout)
            .env("CARGO_TARGET_DIR", target)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| miette!("cannot start sh: {e}"))?;
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(200));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        let mut last: VecDeque<String> = VecDeque::new();
        let printed = child.stdout.take().ok_or_else(|| miette!("sh has no output"))?;
        for line in BufReader::new(printed).split(b'\n') {
            let line = String::from_utf8_lossy(&line.into_diagnostic()?).into_owned();
            if let Some(bar) = &bar {
                bar.set_message(line.trim().to_owned());
            }
            last.push_back(line);
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
        let status = child.wait().into_diagnostic()?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        if !status.success() {
            let last = Vec::from(last).join("\n");
            return Err(miette!("`{build}` failed for revision {self} ({status}); its last lines:\n{last}"));
        }
        output::note(&format!("built in {}", display::seconds(began.elapsed().as_secs_f64())));
        Ok(())
    }
}

/// `HEAD~1 (1a2b3c4d5e)`.
impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ({})", self.name, self.commit.get(..10).unwrap_or(&self.commit))
    }
}

/// A git worktree that goes when the build is done.
struct Checkout<'r> {
    revision: &'r Revision,
    path: PathBuf,
}

impl<'r> Checkout<'r> {
    fn new(revision: &'r Revision, path: PathBuf) -> miette::Result<Checkout<'r>> {
        let checkout = Checkout { revision, path };
        // What a build that was killed left behind.
        checkout.remove();
        let path = checkout.path.display().to_string();
        git(&revision.root, &["worktree", "add", "--quiet", "--force", "--detach", &path, &revision.commit])?
            .map_err(|e| miette!("cannot check out revision {revision} in {path}: {e}"))?;
        Ok(checkout)
    }

    /// A checkout that cannot be removed is in nobody's way until the next one, which says so.
    fn remove(&self) {
        let path = self.path.display().to_string();
        let _ = git(&self.revision.root, &["worktree", "remove", "--force", &path]);
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
