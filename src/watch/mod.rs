//! The screen of `isoflop status --watch`: a terminal that is always given back, threads that look, and a loop that draws.

mod columns;
mod draw;
mod looking;
mod screen;
#[cfg(test)]
mod tests;

use isoflop_sweeps::overview::Reader;
use isoflop_sweeps::slurm::journal::now;
use looking::Looking;
use miette::{IntoDiagnostic, WrapErr, miette};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use screen::{After, Screen};
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

/// The longest time between two looks at what there is to draw.
const TICK: Duration = Duration::from_millis(100);

/// Shows a study until a person leaves. Slurm is asked at most once in `every`.
pub fn watch(mut reader: Reader, every: Duration) -> miette::Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(miette!(
            "--watch needs a terminal for its input and its output; `isoflop status` without it prints the same numbers once"
        ));
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).into_diagnostic()?;
    }
    let mut screen = Screen::new(reader.read(None).map_err(|e| miette!("{e}"))?, now());
    let mut looking = Looking::start(reader, every);
    in_terminal(|terminal| run(terminal, &mut screen, &mut looking, &stop))
        .into_diagnostic()
        .wrap_err("cannot use the terminal")??;
    Ok(ExitCode::SUCCESS)
}

/// Lends the terminal to `work` and gives it back however `work` ends: ratatui's panic hook does so before the message.
fn in_terminal<R>(work: impl FnOnce(&mut DefaultTerminal) -> R) -> io::Result<R> {
    let mut terminal = ratatui::try_init()?;
    let result = work(&mut terminal);
    ratatui::try_restore()?;
    Ok(result)
}

fn run(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    looking: &mut Looking,
    stop: &AtomicBool,
) -> miette::Result<()> {
    let mut changed = true;
    while !stop.load(Ordering::Relaxed) {
        looking.choose(screen.chosen());
        loop {
            match looking.updates.try_recv() {
                Ok(said) => screen.update(said),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(miette!("what reads the study has ended")),
            }
            changed = true;
        }
        if screen.tick(now()) || changed {
            terminal.draw(|frame| draw::draw(frame, screen)).into_diagnostic()?;
            changed = false;
        }
        if !event::poll(TICK).into_diagnostic()? {
            continue;
        }
        match event::read().into_diagnostic()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                if screen.key(key) == After::Leave {
                    return Ok(());
                }
                changed = true;
            }
            Event::Resize(..) => changed = true,
            _ => {}
        }
    }
    Ok(())
}
