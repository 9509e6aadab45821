//! What the screen shows, as a value: the newest reading of the study, and what a person chose by keys.

use super::looking::{Asking, Said};
use isoflop_sweeps::overview::{Group, Overview, RunView};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Stay,
    Leave,
}

/// By what the runs are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Plan,
    Name,
    State,
    Progress,
    Loss,
    Speed,
    Eta,
}

impl Sort {
    const ALL: [Sort; 7] =
        [Sort::Plan, Sort::Name, Sort::State, Sort::Progress, Sort::Loss, Sort::Speed, Sort::Eta];

    pub fn word(self) -> &'static str {
        match self {
            Sort::Plan => "plan",
            Sort::Name => "name",
            Sort::State => "state",
            Sort::Progress => "progress",
            Sort::Loss => "loss",
            Sort::Speed => "tokens/s",
            Sort::Eta => "ETA",
        }
    }

    /// Smallest first; runs that have no such number come last.
    fn compare(self, a: &RunView, b: &RunView) -> Ordering {
        let number = |v: fn(&RunView) -> Option<f64>| {
            let key = |r: &RunView| v(r).unwrap_or(f64::INFINITY);
            key(a).total_cmp(&key(b))
        };
        match self {
            Sort::Plan => Ordering::Equal,
            Sort::Name => a.row.id.cmp(&b.row.id),
            Sort::State => a.group.cmp(&b.group),
            Sort::Progress => number(|r| Some(r.row.step as f64 / r.row.steps.max(1) as f64)),
            Sort::Loss => number(|r| r.row.validation_loss.or(r.row.train_loss)),
            Sort::Speed => number(|r| Some(r.row.tokens_per_s).filter(|s| *s > 0.0)),
            Sort::Eta => number(eta),
        }
    }
}

/// Seconds until a run that is at work ends.
pub fn eta(run: &RunView) -> Option<f64> {
    run.work.seconds_to_end.filter(|_| run.group == Group::Running)
}

/// The screen.
pub struct Screen {
    pub overview: Overview,
    pub asking: Asking,
    /// Why the files could not be read the last time.
    pub unreadable: Option<String>,
    /// Train losses of one run, oldest first.
    losses: Option<(String, Vec<f64>)>,
    /// Seconds since 1970.
    pub now: u64,
    pub sort: Sort,
    pub is_reversed: bool,
    /// Only runs of this group are shown.
    pub filter: Option<Group>,
    pub has_details: bool,
    /// Name of the chosen run, and where in the table it was last: where it is no longer shown, another takes its place.
    chosen: (Option<String>, usize),
}

/// Rows that a page key goes over.
const PAGE: usize = 10;

impl Screen {
    pub fn new(overview: Overview, now: u64) -> Screen {
        let mut screen = Screen {
            overview,
            asking: Asking::default(),
            unreadable: None,
            losses: None,
            now,
            sort: Sort::Plan,
            is_reversed: false,
            filter: None,
            has_details: true,
            chosen: (None, 0),
        };
        screen.choose(0);
        screen
    }

    /// Takes what was found.
    pub fn update(&mut self, said: Said) {
        match said {
            Said::Study { overview, asking } => {
                self.asking = asking;
                match overview {
                    Ok(overview) => (self.overview, self.unreadable) = (overview, None),
                    Err(e) => self.unreadable = Some(e),
                }
                self.stay();
            }
            Said::Losses { run, losses } => self.losses = Some((run, losses)),
        }
    }

    /// Takes the time; true where the screen shows another one now.
    pub fn tick(&mut self, now: u64) -> bool {
        let changed = self.now != now;
        self.now = now;
        changed
    }

    /// The runs of the table, in its order.
    pub fn shown(&self) -> Vec<&RunView> {
        let mut runs: Vec<&RunView> =
            self.overview.runs.iter().filter(|r| self.filter.is_none_or(|group| r.group == group)).collect();
        runs.sort_by(|a, b| self.sort.compare(a, b));
        if self.is_reversed {
            runs.reverse();
        }
        runs
    }

    /// Name of the chosen run; none where no run is shown.
    pub fn chosen(&self) -> Option<&str> {
        self.chosen.0.as_deref()
    }

    /// Where in the table the chosen run is.
    pub fn position(&self) -> usize {
        self.chosen.1
    }

    /// Train losses of the chosen run; empty where none are known.
    pub fn losses(&self) -> &[f64] {
        match &self.losses {
            Some((run, losses)) if Some(run.as_str()) == self.chosen() => losses,
            _ => &[],
        }
    }

    /// Chooses the run at a place of the table, or the last before it.
    fn choose(&mut self, position: usize) {
        let shown = self.shown();
        let position = position.min(shown.len().saturating_sub(1));
        self.chosen = (shown.get(position).map(|run| run.row.id.clone()), position);
    }

    /// Keeps the chosen run where it is still shown.
    fn stay(&mut self) {
        let found = self.shown().iter().position(|run| Some(run.row.id.as_str()) == self.chosen());
        self.choose(found.unwrap_or(self.chosen.1));
    }

    /// Does what a key is for.
    pub fn key(&mut self, key: KeyEvent) -> After {
        let at = self.chosen.1;
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return After::Leave,
            KeyCode::Char('q') | KeyCode::Esc => return After::Leave,
            KeyCode::Up | KeyCode::Char('k') => self.choose(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(at + 1),
            KeyCode::PageUp => self.choose(at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.choose(at + PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::Char('s') => {
                self.sort = after(&Sort::ALL, self.sort).unwrap_or(Sort::Plan);
                self.stay();
            }
            KeyCode::Char('r') => {
                self.is_reversed = !self.is_reversed;
                self.stay();
            }
            KeyCode::Char('f') => {
                // Only groups that have runs.
                let groups: Vec<Group> = self.overview.counts().map(|(group, _)| group).collect();
                self.filter = match self.filter {
                    None => groups.first().copied(),
                    Some(group) => after(&groups, group),
                };
                self.stay();
            }
            KeyCode::Enter | KeyCode::Char('d') => self.has_details = !self.has_details,
            _ => {}
        }
        After::Stay
    }
}

/// The one after this; none after the last.
fn after<T: PartialEq + Copy>(all: &[T], this: T) -> Option<T> {
    let next = all.iter().position(|one| *one == this)? + 1;
    all.get(next).copied()
}
