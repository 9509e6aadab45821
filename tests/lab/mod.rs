//! What the end-to-end tests share: a folder with a prepared text and a sweep, and the real program run in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Three sizes and three budgets over the source text of this repository; a run takes well under a second.
pub const SWEEP: &str = r#"
[sweep]
name = "tiny"

[family]
vocab_size = 256
seq_len = 32
shape = [
    { name = "d16", n_layers = 1, n_heads = 1, d_head = 16, d_model = 16 },
    { name = "d24", n_layers = 1, n_heads = 1, d_head = 24, d_model = 24 },
    { name = "d32", n_layers = 1, n_heads = 2, d_head = 16, d_model = 32 },
]

[plan]
kind = "isoflop"
flops = [1e9, 2e9, 4e9]
min_steps = 10

[train]
batch_tokens = 512
lr = { rule = "width", base = 0.16 }
validations = 4
validation_sequences = 64
checkpoints = 8

[data]
train = "corpus"

[fit]
bootstrap = 20
"#;

/// The `isoflop` that was built with these tests.
pub fn isoflop() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_isoflop"))
}

/// A folder with `text.txt`, `corpus/` made of it, and `sweep.toml`; gone when dropped.
pub struct Lab {
    dir: tempfile::TempDir,
}

impl Lab {
    pub fn new(sweep: &str) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().expect("a directory") };
        std::fs::write(lab.path("sweep.toml"), sweep).expect("sweep.toml is written");
        let sources = ["compiler/src", "runtime/src"].map(|p| Path::new(env!("CARGO_MANIFEST_DIR")).join(p));
        let files = sources.iter().flat_map(|folder| walk(folder));
        let text: Vec<u8> = files.flat_map(|file| std::fs::read(file).expect("source text")).collect();
        std::fs::write(lab.path("text.txt"), text).expect("text.txt is written");
        lab.prepare();
        lab
    }

    /// Makes `corpus/` where it is not there or not whole.
    pub fn prepare(&self) {
        let args = ["data", "prepare", "--out", "corpus", "--validation", "0.05", "text.txt"];
        run(self.command(isoflop(), &args)).expect_code(0);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `program` with `args` in this folder. Kernels are cached for all tests together.
    pub fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache");
        command.args(args).current_dir(self.dir.path()).env("ISOFLOP_CACHE", cache).stdin(Stdio::null());
        // No calibrated device of this machine's user changes a plan.
        command.env("XDG_CONFIG_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-config"));
        command
    }

    /// `isoflop run sweep.toml --out STUDY` to its end, with every run finished or diverged.
    pub fn run_study(&self, study: &str, more: &[&str]) -> Ended {
        let args = [&["run", "sweep.toml", "--out", study], more].concat();
        run(self.command(isoflop(), &args)).expect_code(0)
    }
}

/// How a command ended and all that it said.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
}

/// Runs a command to its end. However it ends, it must not panic.
#[track_caller]
pub fn run(mut command: Command) -> Ended {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    Ended { code: output.status.code(), said }
}

impl Ended {
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{}", self.said);
        self
    }

    #[track_caller]
    pub fn expect_words(self, words: &[&str]) -> Ended {
        for word in words {
            assert!(self.said.contains(word), "no `{word}` in: {}", self.said);
        }
        self
    }
}

/// Everything below `root` that must not depend on how, when or how often it was worked on: path and content. Of
/// `status.json` speed, memory and the time of saving are left out; files that hold only clocks, owners and attempts are left out whole, and so are
/// all but the newest checkpoint of a run, for a stop makes one more. A kill may leave a file under a temporary name,
/// which nobody reads; only run directories are cleared of them.
pub fn results(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for path in walk(root) {
        let name = path.strip_prefix(root).expect("below root").display().to_string();
        let last = name.rsplit('/').next().unwrap_or_default();
        let clocks = ["timings.csv", "profile.csv", "lease.json", "lease.lock"].contains(&last)
            || name.contains("/logs/");
        let temporary =
            name.split('/').any(|part| part.starts_with('.')) && !path.iter().any(|part| part == "runs");
        if clocks || temporary {
            continue;
        }
        let checkpoint = path.parent().filter(|dir| dir.parent().is_some_and(|d| d.ends_with("checkpoints")));
        if checkpoint.is_some_and(|dir| !is_newest(dir)) {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if last == "status.json" {
            let mut status: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            status["tokens_per_s"] = serde_json::Value::Null;
            status["memory"] = serde_json::Value::Null;
            status["save_seconds"] = serde_json::Value::Null;
            bytes = status.to_string().into_bytes();
        }
        files.insert(name, bytes);
    }
    files
}

/// True where no checkpoint beside this one has a later step.
fn is_newest(checkpoint: &Path) -> bool {
    let beside = std::fs::read_dir(checkpoint.parent().expect("a parent")).expect("checkpoints");
    beside.map(|entry| entry.expect("an entry").path()).max().as_deref() == Some(checkpoint)
}

/// All files below a folder.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Fails with the names of the files that differ.
#[track_caller]
pub fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>) {
    let names: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let differ: Vec<_> = names.into_iter().filter(|n| found.get(*n) != expected.get(*n)).collect();
    assert!(differ.is_empty(), "these files differ or are not on both sides: {differ:?}");
}
