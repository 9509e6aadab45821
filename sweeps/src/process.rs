//! Child processes that end when this one does, and asking one to stop.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts a worker in a process group of its own, so that a Ctrl-C in the terminal reaches only us, and asks the
/// kernel to send it SIGTERM should the calling thread end in any way, kill -9 included.
///
/// # Errors
/// When the program cannot be started.
pub fn spawn_worker(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and only calls prctl, which is async-signal-safe, allocates
    // nothing and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) == 0 {
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
