//! A thread pool for waves of tasks: many short phases, each ended by a barrier.
//!
//! A phase is one atomic word, `tasks << 32 | next`: publishing it starts the phase, adding one to it takes a task.
//! The caller works too and waits only for tasks that were taken, never for a thread that has not woken, so threads
//! the operating system has set aside delay nobody unless they hold a task. Idle workers spin for some microseconds,
//! then yield for a while, then sleep.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long an idle worker spins before it lets other threads of the machine run in between.
const SPIN: Duration = Duration::from_micros(20);
/// How long it stays awake in all: longer than the serial stretches of a step, shorter than a person would notice.
const AWAKE: Duration = Duration::from_micros(200);
/// Turns of a spin between looks at the clock.
const TURNS: usize = 32;

type Body<'a> = dyn Fn(usize) + Sync + 'a;

/// Keeps what different threads write on different cache lines.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    /// `tasks << 32 | next`; no task is left when `next >= tasks`.
    phase: Line<AtomicU64>,
    /// Tasks of this phase that have finished.
    done: Line<AtomicUsize>,
    /// The running phase's body. Written by the caller while no task is taken or left.
    body: UnsafeCell<Option<*const Body<'static>>>,
    stop: AtomicBool,
    /// What a task panicked with, for the caller to resume.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    asleep: Vec<Line<AtomicBool>>,
}

// SAFETY: `body` is written only between phases, when no thread may read it (see `Pool::run`), and points to a Sync
// closure that outlives the phase.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only used during `Pool::run`.
unsafe impl Send for Shared {}

/// Threads that share the tasks of one phase after another with the thread that calls [`Pool::run`].
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; at least 1.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn new(threads: usize) -> io::Result<Pool> {
        Pool::starting_with(threads, || {})
    }

    /// As [`Pool::new`]; every thread but the caller's calls `start` first.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn starting_with(threads: usize, start: impl Fn() + Clone + Send + 'static) -> io::Result<Pool> {
        let count = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            phase: Line(AtomicU64::new(0)),
            done: Line(AtomicUsize::new(0)),
            body: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            asleep: (0..count).map(|_| Line(AtomicBool::new(false))).collect(),
        });
        let mut pool = Pool { shared, workers: Vec::with_capacity(count) };
        for index in 0..count {
            let (shared, start) = (Arc::clone(&pool.shared), start.clone());
            let worker = thread::Builder::new().name(format!("kernel-{}", index + 1)).spawn(move || {
                start();
                work(&shared, index);
            })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` with each of 0..tasks, on any thread and in any order, and returns when all have returned.
    /// With one thread, or one task, this is a plain loop.
    ///
    /// # Panics
    /// With what a task panicked with, once the others have finished.
    pub fn run(&mut self, tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || tasks <= 1 {
            return (0..tasks).for_each(body);
        }
        // More tasks than a half word counts run in batches; programs do not get near it.
        const BATCH: usize = 1 << 30;
        for start in (0..tasks).step_by(BATCH) {
            let batch = BATCH.min(tasks - start);
            self.run_batch(batch, &|i| body(start + i));
        }
    }

    fn run_batch(&mut self, tasks: usize, body: &Body<'_>) {
        let shared = &*self.shared;
        // SAFETY: the lifetime is only hidden: this function does not return before every taken task has returned,
        // and no task can be taken after that.
        let body: *const Body<'static> = unsafe { std::mem::transmute(std::ptr::from_ref(body)) };
        // SAFETY: the previous phase is over: all its tasks are done and `next >= tasks`, so no worker reads the body.
        unsafe { *shared.body.get() = Some(body) };
        shared.done.0.store(0, Ordering::Relaxed);
        // SeqCst here and in `sleep`: either the worker sees the phase or we see it asleep.
        shared.phase.0.store((tasks as u64) << 32, Ordering::SeqCst);
        for (asleep, worker) in shared.asleep.iter().zip(&self.workers).take(tasks - 1) {
            if asleep.0.load(Ordering::SeqCst) {
                wake(&asleep.0, worker.thread());
            }
        }
        take_tasks(shared);
        let mut turns = 0;
        while shared.done.0.load(Ordering::Acquire) < tasks {
            turns += 1;
            if turns < 4096 {
                spin_loop();
            } else {
                // Whoever holds the last task may be waiting for this very core.
                thread::yield_now();
            }
        }
        let panic = shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (asleep, worker) in self.shared.asleep.iter().zip(&self.workers) {
            wake(&asleep.0, worker.thread());
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so there is nothing to report here.
            let _ = worker.join();
        }
    }
}

fn wake(asleep: &AtomicBool, thread: &Thread) {
    asleep.store(false, Ordering::SeqCst);
    thread.unpark();
}

/// Takes and runs tasks of the current phase until none is left.
fn take_tasks(shared: &Shared) {
    let left = |word: u64| (word & u64::from(u32::MAX)) < word >> 32;
    let mut finished = 0;
    while left(shared.phase.0.load(Ordering::Relaxed)) {
        // Acquire: the caller's writes before this phase, its body among them.
        let word = shared.phase.0.fetch_add(1, Ordering::Acquire);
        if !left(word) {
            break;
        }
        // SAFETY: a task of this phase is ours, so the caller is waiting and the body stays as it is.
        let body = unsafe { (*shared.body.get()).map(|body| &*body) };
        let Some(body) = body else { unreachable!("a phase has a body") };
        let result = catch_unwind(AssertUnwindSafe(|| body((word & u64::from(u32::MAX)) as usize)));
        if let Err(panic) = result {
            *shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
        }
        finished += 1;
    }
    if finished > 0 {
        // Release: this thread's writes to buffers, for the caller and, through it, for the next phase.
        shared.done.0.fetch_add(finished, Ordering::Release);
    }
}

fn work(shared: &Shared, index: usize) {
    let idle = || {
        let word = shared.phase.0.load(Ordering::SeqCst);
        (word & u64::from(u32::MAX)) >= word >> 32 && !shared.stop.load(Ordering::SeqCst)
    };
    while !shared.stop.load(Ordering::SeqCst) {
        take_tasks(shared);
        let start = Instant::now();
        'awake: loop {
            let waited = start.elapsed();
            if waited > AWAKE {
                sleep(&shared.asleep[index].0, &idle);
                break;
            }
            if waited > SPIN {
                thread::yield_now();
            }
            for _ in 0..TURNS {
                if !idle() {
                    break 'awake;
                }
                spin_loop();
            }
        }
    }
}

/// Sleeps until woken, unless there is something to do already.
fn sleep(asleep: &AtomicBool, idle: &dyn Fn() -> bool) {
    asleep.store(true, Ordering::SeqCst);
    while idle() && asleep.load(Ordering::SeqCst) {
        thread::park();
    }
    asleep.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_task_runs_once_in_every_phase() {
        for threads in [1, 2, 3, 9] {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in (0..200).chain([5000]) {
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts.iter().all(|count| count.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {tasks} tasks"
                );
            }
        }
    }

    #[test]
    fn a_phase_sees_all_writes_of_the_one_before() {
        let mut pool = Pool::new(3).unwrap();
        let values: Vec<AtomicU64> = (0..64).map(AtomicU64::new).collect();
        for _ in 0..2000 {
            let before: u64 = values.iter().map(|v| v.load(Ordering::Relaxed)).sum();
            pool.run(values.len(), &|i| {
                values[i].fetch_add(1, Ordering::Relaxed);
            });
            let after: u64 = values.iter().map(|v| v.load(Ordering::Relaxed)).sum();
            assert_eq!(after, before + 64);
        }
    }

    #[test]
    fn wakes_sleepers_and_stops_while_they_sleep() {
        let mut pool = Pool::new(4).unwrap();
        for _ in 0..5 {
            thread::sleep(4 * AWAKE);
            let sum = AtomicUsize::new(0);
            pool.run(100, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
        thread::sleep(4 * AWAKE);
        drop(pool);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let mut pool = Pool::new(3).unwrap();
        let done = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(50, &|i| {
                assert!(i != 17, "task seventeen");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(result.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 49);
        pool.run(50, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 99);
    }
}
