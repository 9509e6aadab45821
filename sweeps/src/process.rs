//! Child processes that end when this one does, asking one to stop, and waiting for one only so long.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Starts a worker in a process group of its own, so that a Ctrl-C in the terminal reaches only us, and asks the
/// kernel to send it SIGTERM should the calling thread end in any way, kill -9 included.
///
/// # Errors
/// When the program cannot be started.
pub fn spawn_worker(command: &mut Command) -> io::Result<Child> {
    spawn_with(command, libc::SIGTERM)
}

fn spawn_with(command: &mut Command, at_our_end: libc::c_int) -> io::Result<Child> {
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and only calls prctl, which is async-signal-safe, allocates
    // nothing and touches no memory of ours.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, at_our_end as libc::c_ulong) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
    command.spawn()
}

/// Sends SIGTERM: a worker finishes its step, saves and exits.
pub fn ask_to_stop(child: &Child) {
    // A child that was not waited for keeps its process id, so this cannot reach a stranger.
    // SAFETY: kill has no memory effects.
    unsafe {
        libc::kill(child.id() as libc::pid_t, libc::SIGTERM);
    }
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// None where it was killed because its time was over.
    pub status: Option<ExitStatus>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a program to its end, or kills it after `limit`. It is killed should we end before it.
///
/// # Errors
/// When it cannot be started or watched.
pub fn output_within(command: &mut Command, limit: Duration) -> io::Result<Said> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_with(command, libc::SIGKILL)?;
    let readers = [
        child.stdout.take().map(|pipe| std::thread::spawn(move || read_all(pipe))),
        child.stderr.take().map(|pipe| std::thread::spawn(move || read_all(pipe))),
    ];
    let (began, mut pause) = (Instant::now(), Duration::from_micros(200));
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if began.elapsed() >= limit => {
                // SAFETY: kill has no memory effects. The child, not waited for, still has its number, which is its group's.
                unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    };
    let [stdout, stderr] = readers.map(|r| r.and_then(|r| r.join().ok()).unwrap_or_default());
    Ok(Said { status, stdout, stderr })
}

/// All bytes of a pipe; what was read before an error, which means that nobody writes any more.
fn read_all(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}
