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
    std::thread::spawn(end_with_the_terminal);
    let mut screen = Screen::new(reader.read(None).map_err(|e| miette!("{e}"))?, now());
    let mut looking = Looking::start(reader, every);
    in_terminal(|terminal| run(terminal, &mut screen, &mut looking, &stop))
        .into_diagnostic()
        .wrap_err("cannot use the terminal")??;
    Ok(ExitCode::SUCCESS)
}

/// What a program that a signal of this number ended returns to a shell: 128 and SIGHUP.
const HUNG_UP: i32 = 129;

/// Ends the process when its terminal goes away, as a closed window or a lost connection has it: reading keys would then go
/// round without an end, and nothing is left to give back.
fn end_with_the_terminal() {
    // No event is asked for: a hang-up is told all the same.
    let mut terminal = libc::pollfd { fd: libc::STDIN_FILENO, events: 0, revents: 0 };
    loop {
        // SAFETY: one descriptor that is ours; without a limit of time the call costs nothing until something happens.
        let told = unsafe { libc::poll(&mut terminal, 1, -1) };
        if told > 0 && terminal.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
            std::process::exit(HUNG_UP);
        }
        if told < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
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
