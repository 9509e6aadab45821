//! Two threads behind the screen: one asks Slurm, rarely and perhaps in vain for long, and one reads files, often. Both end
//! with the process.

use isoflop_runtime::metrics::read_rows;
use isoflop_sweeps::overview::{Answer, Overview, Reader};
use isoflop_sweeps::slurm::command::{Patience, Slurm};
use isoflop_sweeps::slurm::journal::now;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time between two readings of the files of a study.
const LOCAL: Duration = Duration::from_secs(1);
/// Of the time, what reading files may take: a study of thousands of runs is read less often.
const SHARE: u32 = 4;

/// How asking Slurm goes. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asking {
    /// It was not asked yet, or its first answer is not here.
    #[default]
    First,
    /// There is nothing to ask: the study was never submitted.
    Never,
    Answered {
        /// When it is asked again.
        next: u64,
    },
    /// It did not answer the last time.
    Away { error: String, next: u64 },
}

/// What the reading thread found.
pub enum Said {
    /// The study, or why its files could not be read.
    Study { overview: Result<Overview, String>, asking: Asking },
    /// A run and its train losses, oldest first.
    Losses { run: String, losses: Vec<f64> },
}

enum Wish {
    Choose(Option<String>),
    /// There is an answer of Slurm's.
    Answered,
}

/// What the asking thread leaves for the reading one.
#[derive(Default)]
struct Left {
    answer: Option<Arc<Answer>>,
    asking: Asking,
}

/// The threads, as the screen sees them.
pub struct Looking {
    pub updates: Receiver<Said>,
    wishes: Sender<Wish>,
    chosen: Option<String>,
}

impl Looking {
    /// Slurm is asked at most once in `every`.
    pub fn start(reader: Reader, every: Duration) -> Looking {
        let (wishes, wished) = channel();
        let (say, updates) = channel();
        let left = Arc::new(Mutex::new(Left::default()));
        let (asker, for_asker, answered) = (reader.asker(), left.clone(), wishes.clone());
        std::thread::spawn(move || {
            let slurm = Slurm::new();
            let mut patience = Patience::new(every);
            loop {
                let answer = asker.ask(&slurm);
                match &answer {
                    Err(e) if e.is_away() => patience.away(),
                    _ => patience.answered(),
                }
                let next = now() + patience.pause().as_secs();
                {
                    let mut left = for_asker.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Ok(None) => left.asking = Asking::Never,
                        Ok(Some(answer)) => {
                            *left =
                                Left { answer: Some(Arc::new(answer)), asking: Asking::Answered { next } };
                        }
                        // The answer before is still the best there is.
                        Err(e) => left.asking = Asking::Away { error: e.to_string(), next },
                    }
                }
                if answered.send(Wish::Answered).is_err() {
                    return;
                }
                std::thread::sleep(patience.pause());
            }
        });
        std::thread::spawn(move || read(reader, &left, &wished, &say));
        Looking { updates, wishes, chosen: None }
    }

    /// Asks for the losses of another run, from now on.
    pub fn choose(&mut self, run: Option<&str>) {
        if self.chosen.as_deref() != run {
            self.chosen = run.map(str::to_owned);
            // A reader that has gone is noticed where its updates are taken.
            let _ = self.wishes.send(Wish::Choose(self.chosen.clone()));
        }
    }
}

fn read(mut reader: Reader, left: &Mutex<Left>, wished: &Receiver<Wish>, say: &Sender<Said>) {
    let mut chosen: Option<String> = None;
    loop {
        let began = Instant::now();
        let (answer, asking) = {
            let left = left.lock().unwrap_or_else(PoisonError::into_inner);
            (left.answer.clone(), left.asking.clone())
        };
        let overview = reader.read(answer.as_deref()).map_err(|e| e.to_string());
        if say.send(Said::Study { overview, asking }).is_err() || !say_losses(&reader, &chosen, say) {
            return;
        }
        let due = Instant::now() + LOCAL.max(began.elapsed() * SHARE);
        loop {
            match wished.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Wish::Choose(run)) => {
                    chosen = run;
                    if !say_losses(&reader, &chosen, say) {
                        return;
                    }
                }
                Ok(Wish::Answered) | Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// False where nobody listens any more.
fn say_losses(reader: &Reader, chosen: &Option<String>, say: &Sender<Said>) -> bool {
    let Some(run) = chosen else { return true };
    // A run that has not begun has no metrics.
    let rows = read_rows(&reader.metrics(run)).unwrap_or_default();
    let losses = rows.into_iter().map(|row| row.train_loss).collect();
    say.send(Said::Losses { run: run.clone(), losses }).is_ok()
}
