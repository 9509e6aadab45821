//! The training step beside PyTorch's and JAX's, on this machine, in alternated windows: `make bench`.
//!
//! Each competitor is a process of its own (so that peak memory is its own) that runs N steps when asked. The driver asks
//! in turn, for windows of about half a second, and compares medians. Arguments: configuration names; `--peer PYTHON`
//! for a Python that has torch and jax (without it only our figures are printed); `--windows N`; `--profile` for where the
//! time of one step goes; `--csv FILE`; `--threads N`. Another shape is seven numbers: layers, heads, d_head, d_model,
//! vocabulary, sequence and batch, as in `4,4,24,96,256,128,16`.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{CompileOptions, compile};
use isoflop_compiler::mlir::Target;
use isoflop_runtime::exec::Executor;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// name, layers, heads, d_head, d_model, vocabulary, sequence, batch
type Config = (&'static str, [usize; 7]);

const CONFIGS: [Config; 4] = [
    ("nano-a", [4, 4, 16, 64, 256, 128, 16]),
    ("nano-b", [4, 4, 32, 128, 256, 128, 16]),
    ("nano-c", [6, 8, 32, 256, 256, 256, 8]),
    ("44m", [8, 16, 32, 512, 32000, 512, 2]),
];

/// Threads of each competitor.
fn threads() -> usize {
    let args: Vec<String> = std::env::args().collect();
    let given = args.iter().position(|a| a == "--threads").and_then(|i| args.get(i + 1));
    given.and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    if let Some(name) = value("--serve") {
        return serve(config(&name));
    }
    let flags_with_value = ["--peer", "--windows", "--csv", "--threads"];
    let named: Vec<&String> = args
        .iter()
        .enumerate()
        .filter(|(i, a)| !(a.starts_with("--") || *i > 0 && flags_with_value.contains(&args[i - 1].as_str())))
        .map(|(_, a)| a)
        .collect();
    let chosen: Vec<Config> =
        if named.is_empty() { CONFIGS.to_vec() } else { named.iter().map(|n| config(n)).collect() };
    if args.iter().any(|a| a == "--profile") {
        return chosen.into_iter().for_each(profile);
    }
    let windows = value("--windows").and_then(|w| w.parse().ok()).unwrap_or(9);
    let mut csv =
        String::from("config,competitor,median_step_ms,tokens_per_s,peak_bytes,ratio_to_best_peer\n");
    for c in chosen {
        csv.push_str(&compare(c, value("--peer").as_deref(), windows));
    }
    if let Some(path) = value("--csv")
        && let Err(e) = std::fs::write(&path, csv)
    {
        eprintln!("{path}: {e}");
    }
}

fn config(name: &str) -> Config {
    let numbers: Vec<usize> = name.split(',').filter_map(|n| n.parse().ok()).collect();
    if let Ok(shape) = <[usize; 7]>::try_from(numbers) {
        return (String::leak(name.to_owned()), shape);
    }
    CONFIGS.into_iter().find(|c| c.0 == name).unwrap_or_else(|| {
        let names: Vec<&str> = CONFIGS.iter().map(|c| c.0).collect();
        eprintln!("no configuration `{name}`; there are {}", names.join(", "));
        std::process::exit(2)
    })
}

fn executor((_, [n_layers, n_heads, d_head, d_model, vocab_size, seq_len, batch]): Config) -> Executor {
    let model = ModelConfig::gopher(n_layers, n_heads, d_head, d_model, vocab_size, seq_len);
    let step = StepConfig::new(batch);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let options = CompileOptions {
        target: Target::host(),
        artifacts: folder.join("artifacts"),
        cache: folder.join("cache"),
        threads: threads(),
    };
    let artifact = compile(&model, &step, &options).expect("the benchmark's models compile").artifact;
    let mut exec = Executor::load(&artifact, threads()).expect("an artifact just written loads");
    exec.init_state(0).expect("state initialises");
    let ids = |mul: usize, add: usize| -> Vec<i32> {
        (0..batch * seq_len).map(|i| ((i * mul + add) % vocab_size) as i32).collect()
    };
    let inputs = [("tokens", ids(7919, 13)), ("targets", ids(7907, 29))];
    for (name, v) in inputs {
        exec.set_input_i32(name, &v, vocab_size).expect("token ids are in range");
    }
    for (name, v) in [("lr", 3e-4), ("bias_correction1", 0.1), ("bias_correction2", 0.05)] {
        exec.set_input_f32(name, &[v]).expect("a scalar of the step");
    }
    exec
}

/// The same protocol as the scripts in benches/peers.
fn serve(c: Config) {
    let mut exec = executor(c);
    let mut step = || exec.run("train").expect("a step runs");
    (0..3).for_each(|_| step());
    println!("{{\"ready\": true}}");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let Ok(n) = line.trim().parse::<usize>() else { break };
        let times: Vec<f64> = (0..n)
            .map(|_| {
                let t = Instant::now();
                step();
                t.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        println!("{}", serde_json::to_string(&times).unwrap_or_default());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    println!("{{\"peak_bytes\": {}}}", kib.unwrap_or(0) * 1024);
}

struct Competitor {
    name: String,
    child: Child,
    out: BufReader<ChildStdout>,
    /// Steps of one window.
    steps: usize,
    /// Median step of each window, milliseconds.
    medians: Vec<f64>,
    peak_bytes: u64,
}

impl Competitor {
    fn start(name: &str, command: &mut Command) -> Option<Competitor> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let out = BufReader::new(child.stdout.take()?);
        let mut c =
            Competitor { name: name.into(), child, out, steps: 1, medians: Vec::new(), peak_bytes: 0 };
        let ready: serde_json::Value = c.line()?;
        ready.get("ready")?;
        let first: Vec<f64> = c.ask("3")?;
        c.steps = (500.0 / median(&first)).ceil().clamp(1.0, 200.0) as usize;
        Some(c)
    }

    fn line<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        let mut line = String::new();
        self.out.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn ask<T: serde::de::DeserializeOwned>(&mut self, what: &str) -> Option<T> {
        writeln!(self.child.stdin.as_mut()?, "{what}").ok()?;
        self.line()
    }

    fn window(&mut self) {
        if let Some(times) = self.ask::<Vec<f64>>(&self.steps.to_string()) {
            self.medians.push(median(&times));
        }
    }

    fn end(&mut self) {
        if let Some(v) = self.ask::<serde_json::Value>("end") {
            self.peak_bytes = v.get("peak_bytes").and_then(|p| p.as_u64()).unwrap_or(0);
        }
        let _ = self.child.wait();
    }
}

fn median(v: &[f64]) -> f64 {
    let mut v = v.to_vec();
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

fn compare(c: Config, peer: Option<&str>, windows: usize) -> String {
    let (name, shape) = c;
    let itself = std::env::current_exe().expect("this program has a path");
    let mut all = Vec::new();
    all.extend(Competitor::start(
        "isoflop",
        Command::new(itself).args(["--serve", name, "--threads", &threads().to_string()]),
    ));
    let torch = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/gopher_torch.py");
    let jax = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/gopher_jax.py");
    let peers: [(&str, &str, &[&str]); 3] = [
        ("torch eager", torch, &["--mode", "eager"]),
        ("torch compile", torch, &["--mode", "compile"]),
        ("jax jit", jax, &[]),
    ];
    for (peer_name, script, options) in peer.map(|_| peers).into_iter().flatten() {
        let mut command = Command::new(peer.unwrap_or_default());
        command
            .arg(script)
            .arg("--shape")
            .args(shape.map(|n| n.to_string()))
            .args(["--threads", &threads().to_string()])
            .args(options)
            // Stops glibc from giving pages back at every step: worth up to 1.3x to PyTorch.
            .env("MALLOC_MMAP_THRESHOLD_", "4294967296")
            .env("MALLOC_TRIM_THRESHOLD_", "17179869184");
        match Competitor::start(peer_name, &mut command) {
            Some(found) => all.push(found),
            None => eprintln!("{name}: {peer_name} did not start"),
        }
    }
    for _ in 0..windows {
        all.iter_mut().for_each(Competitor::window);
    }
    all.iter_mut().for_each(Competitor::end);
    let tokens = (shape[5] * shape[6]) as f64;
    let best_peer = all.iter().skip(1).map(|c| median(&c.medians)).fold(f64::INFINITY, f64::min);
    let mut csv = String::new();
    println!("{name}: {windows} alternated windows, {} threads", threads());
    for c in &all {
        let ms = median(&c.medians);
        let ratio = best_peer / ms;
        println!(
            "  {:14} {ms:9.2} ms a step {:9.0} tokens/s  peak {:5.0} MB  {}",
            c.name,
            tokens / ms * 1e3,
            c.peak_bytes as f64 / 1e6,
            if best_peer.is_finite() { format!("{ratio:.2}x the best peer") } else { String::new() }
        );
        csv.push_str(&format!(
            "{name},{},{ms:.4},{:.1},{},{ratio:.4}\n",
            c.name,
            tokens / ms * 1e3,
            c.peak_bytes
        ));
    }
    csv
}

/// Where the time of one step goes: the median over some steps of each launch, summed by kind of call and label.
fn profile(c: Config) {
    let mut exec = executor(c);
    let mut runs = Vec::new();
    for _ in 0..15 {
        runs.push(exec.profile("train").expect("a step runs"));
    }
    let mut by: std::collections::BTreeMap<String, (f64, usize)> = Default::default();
    let mut total = 0.0;
    for i in 0..runs[0].len() {
        let ns = median(&runs.iter().map(|r| r[i].nanoseconds as f64).collect::<Vec<_>>());
        let label =
            runs[0][i].label.split('.').filter(|p| p.parse::<usize>().is_err()).collect::<Vec<_>>().join(".");
        let label = if label.starts_with("adamw.") { "adamw".to_string() } else { label };
        let e = by.entry(format!("{:24} {}", runs[0][i].kind, label)).or_default();
        *e = (e.0 + ns, e.1 + 1);
        total += ns;
    }
    let mut rows: Vec<_> = by.into_iter().collect();
    rows.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    println!("{}: {:.3} ms in {} launches", c.0, total / 1e6, runs[0].len());
    for (name, (ns, n)) in rows {
        println!("  {:5.1} %  {:9.1} us  {n:4}  {name}", 100.0 * ns / total, ns / 1e3);
    }
}
