//! How the heap grows in commands that plan: by large steps, and never back.
//!
//! Planning a deep model makes and drops graphs of some megabytes. glibc maps each such vector anew and gives it back, and the
//! kernel clears its pages every time: 5 to 8 % of the time to plan 280B. Commands that train or wait are left alone.

/// Called once, before a command that plans and then ends.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, bytes) in
        [(libc::M_MMAP_THRESHOLD, 1 << 30), (libc::M_TRIM_THRESHOLD, 1 << 30), (libc::M_TOP_PAD, 64 << 20)]
    {
        // SAFETY: sets a number in the allocator under its own lock; a value it does not like is refused and changes nothing.
        unsafe { libc::mallopt(option, bytes) };
    }
}
