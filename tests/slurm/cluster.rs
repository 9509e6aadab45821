//! A private Slurm for one test at a time, and what is asked of it beside isoflop's back.

use crate::lab::{Ended, Lab, isoflop, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Two of them at once would only be slower.
static ONE: Mutex<()> = Mutex::new(());

/// A Slurm that is stopped and removed when dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/slurm").join(name)
}

/// The first of some ports that nobody listens on, different for each process of tests.
fn port() -> String {
    let from = 20_000 + (std::process::id() % 200) * 200;
    let free = |port: &u32| {
        (0..110).step_by(10).all(|i| std::net::TcpListener::bind(("127.0.0.1", (port + i) as u16)).is_ok())
    };
    (from..60_000).step_by(200).find(free).expect("free ports").to_string()
}

impl Cluster {
    /// With knobs of scripts/slurm/up.sh.
    pub fn start(knobs: &[(&str, &str)]) -> Cluster {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("slurm").tempdir().expect("a directory");
        let mut command = Command::new(script("up.sh"));
        command.arg(dir.path()).env("PORT", port()).env("GPUS", "0").envs(knobs.iter().copied());
        // Dropped whatever happens next, so that what did start is stopped.
        let cluster = Cluster { dir, _one: one };
        let log = cluster.dir.path().join("up.log");
        let file = std::fs::File::create(&log).expect("a log");
        let status = command.stdout(file.try_clone().expect("a log")).stderr(file).status().expect("bash");
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(
            status.success(),
            "these tests need Slurm, which scripts/setup.sh installs, and root: {said}"
        );
        cluster
    }

    pub fn conf(&self) -> PathBuf {
        self.dir.path().join("conf/slurm.conf")
    }

    /// `isoflop` with these arguments in the lab's folder, on a machine of this cluster.
    pub fn command(&self, lab: &Lab, args: &[&str]) -> Command {
        let mut command = lab.command(isoflop(), args);
        command.env("SLURM_CONF", self.conf());
        command
    }

    pub fn run(&self, lab: &Lab, args: &[&str]) -> Ended {
        run(self.command(lab, args))
    }

    /// What isoflop prints as JSON.
    #[track_caller]
    pub fn json(&self, lab: &Lab, args: &[&str]) -> serde_json::Value {
        let output = self.command(lab, &[args, &["--output", "json"]].concat()).output().expect("isoflop");
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {stdout}{stderr}"))
    }

    /// A command of Slurm's, which succeeds.
    #[track_caller]
    pub fn ask(&self, program: &str, args: &[&str]) -> String {
        let output = Command::new(program).args(args).env("SLURM_CONF", self.conf()).output().expect(program);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The tasks in the queue, one line each of what `format` names.
    pub fn queue(&self, format: &str) -> Vec<String> {
        let lines = self.ask("squeue", &["--noheader", "--array", "--format", format]);
        lines.lines().map(str::to_owned).collect()
    }

    /// True where a command of Slurm's succeeds and says `word`: the controller may be away.
    pub fn says(&self, program: &str, args: &[&str], word: &str) -> bool {
        let output = Command::new(program).args(args).env("SLURM_CONF", self.conf()).output().expect(program);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(word)
    }

    /// Waits until `happened`; fails after a minute and a half.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let began = Instant::now();
        while !happened() {
            if began.elapsed() > Duration::from_secs(90) {
                panic!("no {what} in 90 s; the queue is\n{}", self.ask("squeue", &["--array"]));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal to a daemon by its pid file, such as `slurmctld`.
    pub fn signal(&self, daemon: &str, signal: libc::c_int) {
        let file = self.dir.path().join(format!("pid/{daemon}.pid"));
        let pid = std::fs::read_to_string(&file).expect("a pid file").trim().parse().expect("a number");
        // SAFETY: kill has no memory effects.
        unsafe { libc::kill(pid, signal) };
    }

    /// Starts a daemon again that was killed.
    pub fn start_again(&self, daemon: &str) {
        let conf = self.conf();
        let mut command = match daemon.split_once('-') {
            Some((program, node)) => {
                let mut command = Command::new(program);
                command.args(["-N", node]);
                command
            }
            None => Command::new(daemon),
        };
        let status = command.arg("-f").arg(&conf).env("SLURM_CONF", &conf).status().expect("a daemon");
        assert!(status.success(), "{daemon} does not start");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let status = Command::new(script("down.sh")).arg(self.dir.path()).status();
        assert!(std::thread::panicking() || status.is_ok_and(|s| s.success()), "the cluster was not stopped");
    }
}

/// A folder with programs that stand before others on the PATH; each writes a line to `calls` and does what it is for.
pub struct Wrapped {
    dir: PathBuf,
}

impl Wrapped {
    /// Wraps `programs`; `before` is done by each before it calls the real one.
    pub fn new(lab: &Lab, programs: &[&str], before: &str) -> Wrapped {
        use std::os::unix::fs::PermissionsExt;
        let dir = lab.path("bin");
        std::fs::create_dir_all(&dir).expect("a folder");
        for program in programs {
            let real = Command::new("which").arg(program).output().expect("which").stdout;
            let real = String::from_utf8(real).expect("a path");
            let text = format!(
                "#!/bin/sh\necho {program} >>{0}/calls\n{before}\nexec {1} \"$@\"\n",
                dir.display(),
                real.trim()
            );
            let path = dir.join(program);
            std::fs::write(&path, text).expect("a wrapper");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Wrapped { dir }
    }

    pub fn put_before(&self, command: &mut Command) {
        command.env("PATH", format!("{}:{}", self.dir.display(), std::env::var("PATH").unwrap_or_default()));
    }

    /// How often a program was called since the last time this was asked of any.
    pub fn calls(&self) -> impl Fn(&str) -> usize + use<> {
        let path = self.dir.join("calls");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        move |program| text.lines().filter(|line| *line == program).count()
    }
}

/// The tests' sweep, for a cluster, with more lines of `[executor]`.
pub fn for_slurm(executor: &str) -> String {
    format!(
        "{}\n[executor]\nkind = \"slurm\"\ntime_limit = \"10min\"\nmem = \"200MB\"\n{executor}\n",
        crate::lab::SWEEP
    )
}
