//! `isoflop calibrate`: measures this machine's CPU and writes a device file of it.

use crate::cli::Format;
use crate::output;
use clap::ValueHint;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isoflop_runtime::rundir::replace;
use isoflop_sweeps::calibrate::{Calibration, calibrate};
use isoflop_sweeps::device::calibrated_file;
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

Without --out the file is isoflop/cpu.toml in $XDG_CONFIG_HOME or ~/.config, where `isoflop plan` and `isoflop run` find
it when a sweep's device is `cpu`. Run it on a machine that does nothing else: it takes some seconds.")]
pub struct Args {
    /// Device file to write instead of the user's own
    #[arg(long, value_name = "FILE.toml", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Threads of what is measured with all threads [default: the cores]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Args) -> miette::Result<ExitCode> {
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
