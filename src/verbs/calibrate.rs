//! `isoflop calibrate`: measures this machine's CPU and writes a device file of it, or holds a cluster's plan to measured
//! steps and writes the factor between them into its file.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isoflop_runtime::rundir::replace;
use isoflop_sweeps::calibrate::{Calibration, calibrate};
use isoflop_sweeps::cluster::calibration;
use isoflop_sweeps::cluster::file::Cluster;
use isoflop_sweeps::device::calibrated_file;
use isoflop_sweeps::plan::plan;
use isoflop_sweeps::{display, file};
use miette::{IntoDiagnostic, miette};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop calibrate
  isoflop calibrate --out cpu-x86_64.toml --output json
  isoflop plan sweeps/examples/nano.toml --device cpu-x86_64.toml
  isoflop calibrate --cluster cluster.toml --sweep sweep.toml --measured steps.csv

Without --out the file is isoflop/cpu.toml in $XDG_CONFIG_HOME or ~/.config, where `isoflop plan` and `isoflop run` find
it when a sweep's device is `cpu`. Run it on a machine that does nothing else: it takes some seconds.")]
pub struct Args {
    /// Device file to write instead of the user's own
    #[arg(long, value_name = "FILE.toml", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Threads of what is measured with all threads [default: the cores]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// The description of a cluster, whose [calibration] is written
    #[arg(long, value_hint = ValueHint::FilePath, requires_all = ["sweep", "measured"], conflicts_with_all = ["out", "threads"])]
    cluster: Option<PathBuf>,
    /// With --cluster: the sweep that the measured runs are of
    #[arg(long, value_hint = ValueHint::FilePath, requires = "cluster")]
    sweep: Option<PathBuf>,
    /// With --cluster: CSV with the columns run,layout,step_seconds
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath, requires = "cluster")]
    measured: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
    if let (Some(cluster), Some(sweep), Some(measured)) = (&args.cluster, &args.sweep, &args.measured) {
        return of_cluster(cluster, sweep, measured, args.output);
    }
    let out = match &args.out {
        Some(path) if path.extension().is_some_and(|e| e == "toml") => path.clone(),
        Some(path) => {
            return Err(miette!(
                "--out is {}; a device file's name ends in .toml, or `--device` would not read it",
                path.display()
            ));
        }
        None => calibrated_file().ok_or_else(|| {
            miette!("there is no folder for your settings: set $XDG_CONFIG_HOME or $HOME, or name a file with --out")
        })?,
    };
    if let Some(folder) = out.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| miette!("cannot create {}: {e}", folder.display()))?;
    }
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
    let scratch = Scratch::new()?;
    let style = ProgressStyle::with_template("{spinner} measuring {msg}").into_diagnostic()?;
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8)).with_style(style);
    line.enable_steady_tick(Duration::from_millis(250));
    let result = calibrate(threads, &scratch.0, &mut |what| line.set_message(what.to_owned()));
    line.finish_and_clear();
    let calibration = result.into_diagnostic()?;
    replace(&out, calibration.to_toml().into_diagnostic()?.as_bytes(), true).into_diagnostic()?;
    match args.output {
        Format::Json => output::json(&serde_json::json!({ "file": out, "calibration": calibration }))?,
        Format::Table => output::print(&table(&calibration, &out))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn of_cluster(file: &Path, sweep: &Path, measured: &Path, format: Format) -> miette::Result<ExitCode> {
    let cluster = Cluster::read(file).into_diagnostic()?;
    let plan = plan(&file::read(sweep)?).map_err(|e| miette!("{}: {e}", sweep.display()))?;
    let found = calibration::calibrate(&plan, &cluster, measured).into_diagnostic()?;
    let text = std::fs::read_to_string(file).map_err(|e| miette!("cannot read {}: {e}", file.display()))?;
    let text = calibration::with_calibration(&text, &found.calibration)
        .map_err(|e| miette!("{}: {e}", file.display()))?;
    replace(file, text.as_bytes(), true).into_diagnostic()?;
    if format == Format::Json {
        output::json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = output::table(&["run", "layout", "steps", "measured", "expected", "ratio"], 2);
    for m in &found.measured {
        table.add_row([
            m.run.clone(),
            m.layout.to_string(),
            m.steps.to_string(),
            display::seconds(m.seconds),
            display::seconds(m.expected_seconds),
            format!("{:.3}", m.ratio),
        ]);
    }
    let c = found.calibration;
    output::print(&format!(
        "{table}\n{}: factor {:.3} from {} steps; {:.1} %: {}\n",
        file.display(),
        c.factor,
        c.steps,
        100.0 * c.error,
        found.error_is
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// A folder of this process that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> miette::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("isoflop-calibrate-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| miette!("cannot create {}: {e}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn table(calibration: &Calibration, out: &Path) -> String {
    let mut table = output::table(&["measured", "", "threads", "median", "from", "to", "repetitions"], 2);
    for m in &calibration.measurements {
        let number = |x: f64| match m.unit {
            "s" => format!("{:.3} us", x * 1e6),
            _ => format!("{:.1}", x * 1e-9),
        };
        let unit = if m.unit == "s" { String::new() } else { format!("G{}", m.unit) };
        table.add_row([
            m.what.clone(),
            unit,
            m.threads.to_string(),
            number(m.median),
            number(m.low),
            number(m.high),
            m.repetitions.to_string(),
        ]);
    }
    format!("{table}\n{}: {}\n", calibration.device.description, out.display())
}
