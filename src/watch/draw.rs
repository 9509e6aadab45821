//! Draws the screen: a function of its state and of the size of the terminal, and of nothing else.

use super::columns::{GAP, fitting};
use super::looking::Asking;
use super::screen::Screen;
use crate::verbs::status::in_words;
use isoflop_sweeps::display;
use isoflop_sweeps::overview::{Group, RunView};
use isoflop_sweeps::slurm::nodes;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table};

/// Rows of the pane of the chosen run, its frame included.
const DETAILS: u16 = 9;
/// A terminal must have so many rows for the pane to be shown.
const ROOM_FOR_DETAILS: u16 = 18;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let area = frame.area();
    let details = if screen.has_details && area.height >= ROOM_FOR_DETAILS { DETAILS } else { 0 };
    let [head, table, pane, keys] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(details),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_lines(screen)), head);
    let shown = screen.shown();
    draw_table(frame, table, screen, &shown);
    if let Some(run) = shown.get(screen.position()).filter(|_| details > 0) {
        draw_details(frame, pane, screen, run);
    }
    let filter = screen.filter.map_or("all".to_owned(), |group| group.to_string());
    let order = if screen.is_reversed { ", reversed" } else { "" };
    let text = format!(
        "q leave  ↑↓ choose  s sort: {}{order}  r reverse  f show: {filter}  d details",
        screen.sort.word()
    );
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::DIM)), keys);
}

fn colour(group: Group) -> Color {
    match group {
        Group::Running => Color::Cyan,
        Group::Queued => Color::Yellow,
        Group::Left => Color::Reset,
        Group::Cancelled => Color::Magenta,
        Group::Failed | Group::Diverged => Color::Red,
        Group::Finished => Color::Green,
    }
}

fn head_lines(screen: &Screen) -> Vec<Line<'static>> {
    let overview = &screen.overview;
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut counts =
        vec![Span::styled(overview.sweep.clone(), bold), format!("  {} runs:", overview.runs.len()).into()];
    for (i, (group, n)) in overview.counts().enumerate() {
        counts.push(if i == 0 { " ".into() } else { ", ".into() });
        counts.push(Span::styled(format!("{n} {group}"), Style::new().fg(colour(group))));
    }
    vec![Line::from(counts), Line::from(in_words(&overview.work)), asked(screen)]
}

/// When Slurm answered last and is asked next, and what could not be found out.
fn asked(screen: &Screen) -> Line<'static> {
    let overview = &screen.overview;
    let ago = |then: u64| whole_seconds(screen.now.saturating_sub(then));
    let again = |next: u64| match next.saturating_sub(screen.now) {
        0 => "asked now".to_owned(),
        left => format!("asked again in {}", whole_seconds(left)),
    };
    let wrong = Style::new().fg(Color::Red);
    if let Some(said) = &screen.unreadable {
        return Line::styled(format!("what is shown is old: {said}"), wrong);
    }
    match (&screen.asking, overview.asked) {
        (Asking::Away { error, next }, Some(then)) => {
            let said = format!("Slurm answered {} ago and not since, {}: {error}", ago(then), again(*next));
            Line::styled(said, wrong)
        }
        (Asking::Away { error, next }, None) => {
            Line::styled(format!("Slurm does not answer, {}: {error}", again(*next)), wrong)
        }
        (Asking::Answered { next }, Some(then)) => {
            let more = [overview.slurm_error.clone(), nodes::in_words(&overview.left_out)];
            let more: String = more.into_iter().flatten().map(|said| format!("; {said}")).collect();
            Line::from(format!("Slurm answered {} ago, {}{more}", ago(then), again(*next)))
        }
        (Asking::Never, _) => Line::from("no jobs: this study was not submitted"),
        (Asking::First, _) | (Asking::Answered { .. }, None) => Line::from("Slurm is asked"),
    }
}

/// `4 s`, or as long times are printed everywhere.
fn whole_seconds(s: u64) -> String {
    if s < 60 { format!("{s} s") } else { display::seconds(s as f64) }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, screen: &Screen, shown: &[&RunView]) {
    let columns = fitting(shown, screen.overview.asked.is_some(), area.width);
    let height = usize::from(area.height.saturating_sub(1)).max(1);
    // The chosen run is in the middle, but for both ends of the table.
    let first = screen.position().saturating_sub(height / 2).min(shown.len().saturating_sub(height));
    let align = |is_number| if is_number { Alignment::Right } else { Alignment::Left };
    let headings =
        columns.iter().map(|(c, _)| Cell::from(Line::from(c.heading).alignment(align(c.is_number))));
    let rows = shown.iter().enumerate().skip(first).take(height).map(|(i, run)| {
        let cells = columns.iter().map(|(c, _)| {
            let style = if c.heading == "state" { Style::new().fg(colour(run.group)) } else { Style::new() };
            Cell::from(Line::styled((c.cell)(run), style).alignment(align(c.is_number)))
        });
        let style = Style::new();
        Row::new(cells).style(if i == screen.position() {
            style.add_modifier(Modifier::REVERSED)
        } else {
            style
        })
    });
    let last = columns.len().saturating_sub(1);
    let widths = columns
        .iter()
        .enumerate()
        .map(|(i, (_, width))| if i == last { Constraint::Fill(1) } else { Constraint::Length(*width) });
    let heading = Style::new().add_modifier(Modifier::UNDERLINED);
    let table = Table::new(rows, widths).header(Row::new(headings).style(heading)).column_spacing(GAP);
    frame.render_widget(table, area);
}

fn draw_details(frame: &mut Frame<'_>, area: Rect, screen: &Screen, run: &RunView) {
    let row = &run.row;
    let block = Block::new().borders(Borders::TOP).title(format!(" {} ", row.id));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [words, caption, graph] =
        Layout::vertical([Constraint::Length(3), Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let memory = row.memory.as_ref().and_then(|m| Some((m.peak_bytes?, m.planned_bytes)));
    let memory = memory.map_or_else(String::new, |(peak, planned)| {
        format!(", {} resident of {} planned", display::bytes(peak), display::bytes(planned))
    });
    let end = run.work.seconds_to_end.filter(|_| run.group == Group::Running);
    let end = end.map_or_else(String::new, |s| format!("ends in {}, ", display::seconds(s)));
    // What Slurm says, else what the run says of itself.
    let line = run.line.as_deref().or(row.reason.as_deref()).unwrap_or_default();
    let line = line.strip_prefix(&row.id).unwrap_or(line).trim().to_owned();
    let text = vec![
        Line::from(format!("{}, size {}, step {} of {}{memory}", run.group, row.size, row.step, row.steps)),
        Line::from(format!(
            "{end}{} attempts, {:.2} {} hours used, {} steps wasted",
            run.work.attempts, run.work.hours_used, run.work.unit, run.work.steps_wasted
        )),
        Line::from(line),
    ];
    frame.render_widget(Paragraph::new(text), words);
    let losses = screen.losses();
    let (Some(first), Some(last)) = (losses.first(), losses.last()) else {
        frame.render_widget(Paragraph::new("no losses yet"), caption);
        return;
    };
    let validation = row.validation_loss.map_or_else(String::new, |v| format!(", validation {v:.4}"));
    let said = format!("train loss {first:.4} to {last:.4} in {} rows{validation}", losses.len());
    frame.render_widget(Paragraph::new(said), caption);
    let levels = levels(losses, graph.width);
    frame.render_widget(
        Sparkline::default().data(levels).max(LEVELS).style(Style::new().fg(Color::Cyan)),
        graph,
    );
}

/// The height of a sparkline of the largest loss.
const LEVELS: u64 = 1_000;

/// Losses as heights, one for each cell: means of equal stretches, from just above 0 for the smallest to [`LEVELS`].
fn levels(losses: &[f64], width: u16) -> Vec<u64> {
    let cells = usize::from(width).min(losses.len()).max(1);
    let means: Vec<f64> = (0..cells)
        .map(|cell| {
            let stretch = &losses[cell * losses.len() / cells..(cell + 1) * losses.len() / cells];
            stretch.iter().sum::<f64>() / stretch.len().max(1) as f64
        })
        .collect();
    let finite = || means.iter().copied().filter(|m| m.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let height = |mean: f64| {
        let share = if high > low { (mean - low) / (high - low) } else { 0.0 };
        // A cell that is not empty, for a loss that is there.
        if mean.is_finite() { (share * 0.95 * LEVELS as f64) as u64 + LEVELS / 20 } else { 0 }
    };
    means.into_iter().map(height).collect()
}
