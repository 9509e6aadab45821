//! `cargo run --release --example fuzz`: random graphs through the compiler until one is compiled wrong, which is then
//! made small and written as a filetest. The graphs are those of `cargo test --test differential`.

mod case;
mod generate;
mod layers;
mod machine;
mod shrink;

use case::{Case, Variant, case, filetest};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use isoflop_compiler::passes::Registry;
use machine::{Kind, Tally, Workshop, Wrong};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Compiles random graphs and holds them to the interpreter.
///
/// Exit code 1: one is wrong; it was made small and written as a filetest. Exit code 2: it could not be tried.
#[derive(Parser)]
struct Args {
    /// The first seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many graphs
    #[arg(long, default_value_t = 1000, conflicts_with = "forever")]
    count: u64,
    /// Until something is wrong, or Ctrl-C
    #[arg(long)]
    forever: bool,
    /// Send every graph through these passes, separated by commas, in the place of passes by chance
    #[arg(long)]
    passes: Option<String>,
    /// Graphs compiled at once [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Where the filetest of a wrong graph goes [default: wrong-SEED.graph]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Graphs between two looks at Ctrl-C, for each thread.
const ROUND: u64 = 25;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let passes = match &args.passes {
        Some(list) => {
            let found = Registry::default().parse_list(list)?;
            Some(found.iter().map(|p| p.name.to_owned()).collect::<Vec<_>>())
        }
        None => None,
    };
    let of = |seed| {
        let mut case = case(seed);
        if let Some(passes) = &passes {
            case.variants = vec![Variant { passes: passes.clone(), shuffle: None }];
        }
        case
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the program at once.
        signal_hook::flag::register_conditional_default(signal, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let threads = match args.threads {
        Some(n) => usize::from(n),
        None => std::thread::available_parallelism().map_or(1, |n| n.get()),
    };
    let workshop = Workshop::new(&[])?;
    let (mut seed, mut tally) = (args.seed, Tally::default());
    let end = if args.forever { u64::MAX } else { args.seed.saturating_add(args.count) };
    let progress = Progress::new((!args.forever).then_some(args.count));
    while seed < end && !stop.load(Ordering::Relaxed) {
        let until = end.min(seed.saturating_add(ROUND * threads as u64));
        let cases: Vec<Case> = (seed..until).map(of).collect();
        let (found, part) = workshop.judge(&cases, threads);
        tally.add(part);
        if let Some(place) = found.iter().position(|w| !w.is_empty()) {
            progress.bar.finish_and_clear();
            let seed = seed + place as u64;
            let path = args.out.clone().unwrap_or_else(|| format!("wrong-{seed}.graph").into());
            std::fs::write(&path, small(&workshop, seed, &cases[place], &found[place]))?;
            println!("seed {seed} is wrong: {}; see {}", found[place][0].what, path.display());
            return Ok(ExitCode::FAILURE);
        }
        seed = until;
        progress.show(&format!("seeds {}..{seed}", args.seed), &tally);
    }
    progress.bar.finish_and_clear();
    println!(
        "seeds {}..{seed}: {} graphs, {} kernels, {} outputs ({} not judged), {} chains, {} groups, {} squares; none wrong",
        args.seed,
        tally.cases,
        tally.kernels,
        tally.outputs,
        tally.vague,
        tally.chains,
        tally.grouped,
        tally.squares
    );
    let [passes, code, interpreting, running] = tally.seconds;
    println!(
        "{:.1} graphs/s; passes {passes:.1} s, code {code:.1} s, interpreting {interpreting:.1} s, running {running:.1} s",
        progress.rate(&tally)
    );
    Ok(ExitCode::SUCCESS)
}

/// A bar, or a line for each round where standard error is no terminal.
struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    fn new(count: Option<u64>) -> Progress {
        let (bar, template) = match count {
            Some(count) => (ProgressBar::new(count), "{bar:30} {pos}/{len} {elapsed}, {eta} left: {msg}"),
            None => (ProgressBar::new_spinner(), "{spinner} {elapsed} {msg}"),
        };
        let style = ProgressStyle::with_template(template);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar, began: Instant::now() }
    }

    fn rate(&self, tally: &Tally) -> f64 {
        tally.cases as f64 / self.began.elapsed().as_secs_f64()
    }

    fn show(&self, what: &str, tally: &Tally) {
        let text = format!("{what}, {} kernels, {:.1} graphs/s", tally.kernels, self.rate(tally));
        if std::io::stderr().is_terminal() {
            self.bar.set_position(tally.cases as u64);
            self.bar.set_message(text);
        } else {
            eprintln!("{text}");
        }
    }
}

/// The smallest case that is wrong in the same way, as a filetest.
fn small(workshop: &Workshop, seed: u64, case: &Case, wrong: &[Wrong]) -> String {
    let Wrong { variant, kind, ref what } = wrong[0];
    if kind == Kind::Interpreter {
        // The graph itself is at fault, whatever the compiler does.
        return format!("// Seed {seed}.\n{}", filetest(case, &case.variants[variant]));
    }
    eprintln!("seed {seed}: {what}; making it smaller");
    // A panic of the compiler is caught and told; without this it would be told for every smaller case.
    std::panic::set_hook(Box::new(|_| {}));
    let same = |c: &Case| workshop.judge_one(c).into_iter().find(|w| w.kind == kind);
    let small = shrink::shrink(case, variant, &|c| same(c).is_some());
    let _ = std::panic::take_hook();
    let last = same(&small).map(|w| w.what).unwrap_or_default();
    let lines: String = last.lines().map(|l| format!("// {l}\n")).collect();
    format!("// Seed {seed}.\n{lines}{}", filetest(&small, &small.variants[0]))
}
