//! What a person sees while a sweep runs: a bar for each running run and one for the sweep, or plain lines where the
//! output is no terminal.

use crate::output;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use isoflop_runtime::status::State;
use isoflop_sweeps::display;
use isoflop_sweeps::local::{Event, predicted_seconds};
use isoflop_sweeps::plan::Plan;
use isoflop_sweeps::status::RunRow;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shows the events of one `isoflop run`.
pub struct Progress<'p> {
    plan: &'p Plan,
    began: Instant,
    done: usize,
    /// None where standard error is no terminal.
    bars: Option<Bars>,
}

struct Bars {
    all: MultiProgress,
    sweep: ProgressBar,
    runs: HashMap<usize, ProgressBar>,
    /// FLOPs of runs that ended.
    spent: f64,
}

/// Steps of the sweep's bar: thousandths of its FLOPs.
const WHOLE: u64 = 1000;

impl<'p> Progress<'p> {
    pub fn new(plan: &'p Plan, jobs: usize) -> Progress<'p> {
        if let Some(seconds) = predicted_seconds(&plan.runs, jobs) {
            let time = display::seconds(seconds);
            output::note(&format!(
                "{}: {} runs, predicted {time} with {jobs} at a time",
                plan.sweep,
                plan.runs.len()
            ));
        }
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            let sweep = all
                .add(ProgressBar::new(WHOLE).with_style(style("{bar:30} {percent:>3} %  {elapsed} {msg}")));
            sweep.enable_steady_tick(Duration::from_millis(500));
            Bars { all, sweep, runs: HashMap::new(), spent: 0.0 }
        });
        Progress { plan, began: Instant::now(), done: 0, bars }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Found { runs, done } => {
                self.done = *done;
                if *done > 0 {
                    self.say(&format!("{done} of {runs} runs are done already"));
                }
                if let Some(bars) = &mut self.bars {
                    // Runs that were done before are not counted in the bar of what this call has to do.
                    bars.sweep.set_message(format!("{done}/{runs} runs"));
                }
            }
            Event::Compiling { steps } => self.say(&format!("compiling {steps} training steps")),
            Event::Compiled { steps, kernels, seconds } => {
                let time = display::seconds(*seconds);
                self.say(&format!("compiled {steps} training steps in {time}, {kernels} new kernels"));
            }
            Event::Started { run } => match &mut self.bars {
                Some(bars) => {
                    let bar = ProgressBar::new(self.plan.runs[*run].steps)
                        .with_style(style("  {prefix:<22} {bar:24} {pos:>7}/{len} {msg}"))
                        .with_prefix(self.plan.runs[*run].id.clone());
                    bars.runs.insert(*run, bars.all.add(bar));
                }
                None => {
                    let run = &self.plan.runs[*run];
                    output::note(&format!("start  {} ({} steps)", run.id, run.steps));
                }
            },
            Event::Progress { run, row } => {
                if let Some(bar) = self.bars.as_ref().and_then(|b| b.runs.get(run)) {
                    bar.set_position(row.step);
                    bar.set_message(losses(row));
                }
                self.update();
            }
            Event::Ended { run, row } => {
                self.done += usize::from(matches!(row.state, State::Finished | State::Diverged));
                if let Some(bars) = &mut self.bars {
                    if let Some(bar) = bars.runs.remove(run) {
                        bar.finish_and_clear();
                    }
                    bars.spent += self.plan.runs[*run].flops;
                }
                let why = row.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
                let state = format!("{:?}", row.state).to_lowercase();
                self.say(&format!(
                    "{state} {} at step {}/{} {}{why} [{}/{}]",
                    row.id,
                    row.step,
                    row.steps,
                    losses(row),
                    self.done,
                    self.plan.runs.len()
                ));
                self.update();
            }
            Event::Stopping { children } => {
                self.say(&format!("stopping: {children} runs finish their step and save"));
            }
        }
    }

    /// Takes the bars away.
    pub fn close(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.runs.drain().for_each(|(_, bar)| bar.finish_and_clear());
            bars.sweep.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bars {
            // A line that cannot be shown is no reason to stop training.
            Some(bars) => drop(bars.all.println(text)),
            None => output::note(text),
        }
    }

    fn update(&self) {
        let Some(bars) = &self.bars else { return };
        let total: f64 = self.plan.runs.iter().map(|r| r.flops).sum();
        let running: f64 = bars
            .runs
            .iter()
            .map(|(run, bar)| {
                let run = &self.plan.runs[*run];
                run.flops * bar.position() as f64 / run.steps as f64
            })
            .sum();
        bars.sweep.set_position(((bars.spent + running) / total * WHOLE as f64) as u64);
        bars.sweep.set_message(format!("{}/{} runs", self.done, self.plan.runs.len()));
    }
}

fn losses(row: &RunRow) -> String {
    match (row.train_loss, row.validation_loss) {
        (_, Some(v)) => format!("validation {v:.4}"),
        (Some(t), None) => format!("train {t:.4}"),
        (None, None) => String::new(),
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are our own; a mistake in one shows as a plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
