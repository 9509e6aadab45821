//! The screen on a terminal of text, keys as events, and a terminal that is given back after a panic.

use super::draw::draw;
use super::looking::{Asking, Said};
use super::screen::{After, Screen, Sort};
use isoflop_runtime::status::{MemoryStatus, State};
use isoflop_sweeps::overview::{Group, Overview, RunView};
use isoflop_sweeps::slurm::parse::JobState;
use isoflop_sweeps::slurm::policy::Cause;
use isoflop_sweeps::slurm::standing::{JobRow, Verdict};
use isoflop_sweeps::status::RunRow;
use isoflop_sweeps::work::{Unit, Work, total};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

fn row(id: &str, state: State, step: u64, train_loss: Option<f64>, tokens_per_s: f64) -> RunRow {
    RunRow {
        id: id.into(),
        size: "10k".into(),
        state,
        step,
        steps: 400,
        train_loss,
        validation_loss: train_loss.filter(|_| step == 400).map(|l| l + 0.01),
        tokens_per_s,
        memory: None,
        save_seconds: None,
        reason: None,
    }
}

fn run(row: RunRow, group: Group, seconds_to_end: Option<f64>) -> RunView {
    let hours = row.step as f64 / 1_000.0;
    let work = Work {
        attempts: u64::from(row.step > 0),
        steps_done: row.step,
        hours_used: hours,
        hours_left: seconds_to_end.map(|s| s / 3_600.0),
        seconds_to_end,
        ..Work::default()
    };
    RunView { row, group, verdict: None, job: None, work, line: None }
}

fn overview(runs: Vec<RunView>) -> Overview {
    let work = total(runs.iter().map(|r| (r.work, r.group == Group::Running)));
    Overview { sweep: "nano".into(), runs, work, left_out: Vec::new(), asked: None, slurm_error: None }
}

/// Four runs of a study on this machine.
fn local() -> Overview {
    let mut running = row("a-s1", State::Running, 100, Some(4.5), 1_200.0);
    running.memory = Some(MemoryStatus {
        planned_bytes: 60_000_000,
        planned_file_bytes: 0,
        peak_bytes: Some(58_000_000),
        file_bytes: None,
    });
    let mut failed = row("b-s1", State::Failed, 30, Some(5.0), 900.0);
    failed.reason = Some("the disk is full".into());
    overview(vec![
        run(row("a-s0", State::Finished, 400, Some(3.25), 1_000.0), Group::Finished, Some(0.0)),
        run(running, Group::Running, Some(90.0)),
        run(row("b-s0", State::Pending, 0, None, 0.0), Group::Left, Some(300.0)),
        run(failed, Group::Failed, Some(250.0)),
    ])
}

/// The same runs as jobs.
fn on_slurm() -> Overview {
    let mut overview = local();
    let job = |id: &str, state, reason: &str, nodes: &str| JobRow {
        id: id.into(),
        state: Some(state),
        reason: reason.into(),
        nodes: nodes.into(),
        start: (state == JobState::Pending).then(|| "2026-11-23T18:00:00".into()),
        attempts: 1,
    };
    let [done, running, queued, failed] = overview.runs.as_mut_slice() else { panic!("four runs") };
    (done.verdict, done.job) = (Some(Verdict::Done), Some(job("7_0", JobState::Completed, "None", "n1")));
    (running.verdict, running.job) = (Some(Verdict::Live), Some(job("7_1", JobState::Running, "None", "n2")));
    running.line = Some("a-s1 runs as job 7_1 on n2, step 100 of 400".into());
    (queued.verdict, queued.job) = (Some(Verdict::Live), Some(job("7_2", JobState::Pending, "Priority", "")));
    queued.group = Group::Queued;
    (failed.verdict, failed.job) = (
        Some(Verdict::GivenUp { cause: Cause::Failed }),
        Some(job("7_3", JobState::Failed, "NonZeroExitCode", "n1")),
    );
    for run in &mut overview.runs {
        run.work.unit = Unit::Gpu;
    }
    overview.work.unit = Unit::Gpu;
    overview.asked = Some(1_000);
    overview
}

fn text(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of text");
    terminal.draw(|frame| draw(frame, screen)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[track_caller]
fn check(screen: &Screen, width: u16, height: u16, expected: &str) {
    let found = text(screen, width, height).join("\n");
    let expected = expected.trim_start_matches('\n').trim_end();
    assert!(found.trim_end() == expected, "expected\n{expected}\nfound\n{found}");
}

fn press(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        assert_eq!(screen.key(KeyEvent::from(KeyCode::Char(key))), After::Stay, "{key}");
    }
}

fn ids(screen: &Screen) -> Vec<&str> {
    screen.shown().into_iter().map(|r| r.row.id.as_str()).collect()
}

#[test]
fn a_study_on_this_machine() {
    let mut screen = Screen::new(local(), 1_004);
    assert_eq!(text(&screen, 96, 18)[2], "Slurm is asked");
    screen.update(Said::Study { overview: Ok(local()), asking: Asking::Never });
    press(&mut screen, "j");
    let losses = (0..40).map(|i| 6.0 - f64::from(i) / 20.0).collect();
    screen.update(Said::Losses { run: "a-s1".into(), losses });
    check(
        &screen,
        96,
        18,
        "
nano  4 runs: 1 running, 1 left, 1 failed, 1 finished
ends in 10 min 40 s; 0.53 worker hours used, 0.00 of them wasted (0 steps), 0.18 left; 3 attempt
no jobs: this study was not submitted
run   state                    step    loss  val loss  tokens/s         ETA  nodes or reason
a-s0  finished  ██████████  400/400  3.2500    3.2600      1000           -  -
a-s1  running   ██▌░░░░░░░  100/400  4.5000         -      1200  1 min 30 s  -
b-s0  left      ░░░░░░░░░░    0/400       -         -         -           -  -
b-s1  failed    ▊░░░░░░░░░   30/400  5.0000         -       900           -  the disk is full
 a-s1 ──────────────────────────────────────────────────────────────────────────────────────────
running, size 10k, step 100 of 400, 58.0 MB resident of 60.0 MB planned
ends in 1 min 30 s, 1 attempts, 0.10 worker hours used, 0 steps wasted

train loss 6.0000 to 4.0500 in 40 rows
█▇▆▅▄▄▃▂▁
███████████▇▆▅▅▄▃▂▁▁
█████████████████████▇▆▆▅▄▃▂▂▁
███████████████████████████████▇▇▆▅▄▃▃▂▁
q leave  ↑↓ choose  s sort: plan  r reverse  f show: all  d details",
    );
}

#[test]
fn jobs_on_a_wide_and_on_a_narrow_terminal() {
    let mut screen = Screen::new(on_slurm(), 1_004);
    let asking = Asking::Answered { next: 1_010 };
    screen.update(Said::Study { overview: Ok(on_slurm()), asking });
    press(&mut screen, "j");
    check(
        &screen,
        110,
        19,
        "
nano  4 runs: 1 running, 1 queued, 1 failed, 1 finished
ends in 10 min 40 s; 0.53 GPU hours used, 0.00 of them wasted (0 steps), 0.18 left; 3 attempts
Slurm answered 4 s ago, asked again in 6 s
run   state                    step    loss  val loss  tokens/s         ETA  job  nodes or reason
a-s0  finished  ██████████  400/400  3.2500    3.2600      1000           -  7_0  -
a-s1  running   ██▌░░░░░░░  100/400  4.5000         -      1200  1 min 30 s  7_1  n2
b-s0  queued    ░░░░░░░░░░    0/400       -         -         -           -  7_2  Priority, expected 2026-11-2
b-s1  failed    ▊░░░░░░░░░   30/400  5.0000         -       900           -  7_3  the disk is full

 a-s1 ────────────────────────────────────────────────────────────────────────────────────────────────────────
running, size 10k, step 100 of 400, 58.0 MB resident of 60.0 MB planned
ends in 1 min 30 s, 1 attempts, 0.10 GPU hours used, 0 steps wasted
runs as job 7_1 on n2, step 100 of 400
no losses yet




q leave  ↑↓ choose  s sort: plan  r reverse  f show: all  d details",
    );
    check(
        &screen,
        60,
        9,
        "
nano  4 runs: 1 running, 1 queued, 1 failed, 1 finished
ends in 10 min 40 s; 0.53 GPU hours used, 0.00 of them waste
Slurm answered 4 s ago, asked again in 6 s
run   state        step    loss         ETA  nodes or reason
a-s0  finished  400/400  3.2500           -  -
a-s1  running   100/400  4.5000  1 min 30 s  n2
b-s0  queued      0/400       -           -  Priority, expec
b-s1  failed     30/400  5.0000           -  the disk is ful
q leave  ↑↓ choose  s sort: plan  r reverse  f show: all  d",
    );
    // Nothing is drawn outside, whatever the size.
    for (width, height) in [(1, 1), (5, 3), (20, 40), (300, 2)] {
        text(&screen, width, height);
    }
}

#[test]
fn a_controller_that_is_away_is_named_and_the_last_answer_stays() {
    let mut screen = Screen::new(on_slurm(), 1_064);
    let asking = Asking::Away { error: "squeue cannot reach Slurm".into(), next: 1_084 };
    screen.update(Said::Study { overview: Ok(on_slurm()), asking: asking.clone() });
    let said = "Slurm answered 1 min 04 s ago and not since, asked again in 20 s: squeue cannot reach Slurm";
    assert_eq!(text(&screen, 120, 10)[2], said);
    screen.update(Said::Study { overview: Ok(local()), asking });
    assert!(text(&screen, 120, 10)[2].starts_with("Slurm does not answer, asked again in 20 s: squeue"));
    // Files that cannot be read leave what was read before.
    screen.update(Said::Study { overview: Err("status.json: torn".into()), asking: Asking::Never });
    let lines = text(&screen, 120, 10);
    assert_eq!((lines[2].as_str(), ids(&screen).len()), ("what is shown is old: status.json: torn", 4));
}

#[test]
fn keys_sort_filter_and_choose() {
    let mut screen = Screen::new(local(), 0);
    assert_eq!((ids(&screen), screen.chosen()), (vec!["a-s0", "a-s1", "b-s0", "b-s1"], Some("a-s0")));
    press(&mut screen, "jj");
    assert_eq!(screen.chosen(), Some("b-s0"));
    // By state: running, left, failed, finished; the chosen run stays chosen.
    press(&mut screen, "ss");
    assert_eq!((screen.sort, ids(&screen)), (Sort::State, vec!["a-s1", "b-s0", "b-s1", "a-s0"]));
    assert_eq!((screen.chosen(), screen.position()), (Some("b-s0"), 1));
    press(&mut screen, "ss");
    assert_eq!((screen.sort, ids(&screen)), (Sort::Loss, vec!["a-s0", "a-s1", "b-s1", "b-s0"]));
    press(&mut screen, "r");
    assert_eq!(ids(&screen), ["b-s0", "b-s1", "a-s1", "a-s0"]);
    // Groups that have runs, one after the other, and then all.
    for (group, runs) in [
        (Some(Group::Running), vec!["a-s1"]),
        (Some(Group::Left), vec!["b-s0"]),
        (Some(Group::Failed), vec!["b-s1"]),
        (Some(Group::Finished), vec!["a-s0"]),
    ] {
        press(&mut screen, "f");
        assert_eq!((screen.filter, ids(&screen), screen.chosen()), (group, runs.clone(), Some(runs[0])));
    }
    press(&mut screen, "f");
    assert_eq!((screen.filter, ids(&screen).len()), (None, 4));
    // A group that has lost its last run shows none.
    press(&mut screen, "f");
    let mut without = local();
    without.runs.remove(1);
    screen.update(Said::Study { overview: Ok(without), asking: Asking::Never });
    assert_eq!((ids(&screen).len(), screen.chosen()), (0, None));
    text(&screen, 80, 20);

    for (code, modifiers) in [
        (KeyCode::Char('q'), KeyModifiers::NONE),
        (KeyCode::Esc, KeyModifiers::NONE),
        (KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        assert_eq!(screen.key(KeyEvent::new(code, modifiers)), After::Leave);
    }
}

#[test]
fn the_chosen_one_of_many_runs_is_always_in_sight() {
    let many =
        (0..2_000).map(|i| run(row(&format!("r{i}"), State::Pending, 0, None, 0.0), Group::Left, None));
    let mut screen = Screen::new(overview(many.collect()), 0);
    let sees = |screen: &Screen| {
        let name = format!("{} ", screen.chosen().expect("a run"));
        text(screen, 100, 30).iter().any(|line| line.starts_with(&name))
    };
    for (key, position) in [
        (KeyCode::End, 1_999),
        (KeyCode::PageUp, 1_989),
        (KeyCode::Up, 1_988),
        (KeyCode::Home, 0),
        (KeyCode::PageDown, 10),
    ] {
        screen.key(KeyEvent::from(key));
        assert_eq!(screen.position(), position);
        assert!(sees(&screen), "{key:?}");
    }
}

/// In the environment of a process that is to panic within the screen.
const PANIC: &str = "ISOFLOP_TEST_PANICS_ON_THE_SCREEN";

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    if std::env::var_os(PANIC).is_some() {
        let _ = super::in_terminal(|terminal| -> () {
            terminal.draw(|frame| draw(frame, &Screen::new(local(), 0))).expect("drawn");
            panic!("as the test wants it");
        });
        return;
    }
    // This very test in a terminal of its own.
    let program = std::env::current_exe().expect("a program");
    let name = "watch::tests::a_panic_gives_the_terminal_back_before_its_message";
    let line = "stty rows 30 cols 100; before=$(stty -g); \"$0\" --exact \"$1\" --nocapture; \
                [ \"$before\" = \"$(stty -g)\" ] && echo given back";
    let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
    let command = format!("sh -c {} {} {name}", quoted(line), quoted(&program.display().to_string()));
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env(PANIC, "1")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script of util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    let place = |what: &str| said.find(what).unwrap_or_else(|| panic!("no {what:?} in {said:?}"));
    let (taken, left) = (place("\u{1b}[?1049h"), place("\u{1b}[?1049l"));
    assert!(taken < left && left < place("as the test wants it"), "{said:?}");
    assert!(said.contains("given back"), "{said:?}");
}
