//! `isoflop status --watch` in a terminal of its own: it shows what happens, takes keys, and gives the terminal back.

use crate::lab::{Lab, SWEEP, isoflop, run};
use crate::terminal::Terminal;

#[test]
fn the_screen_follows_a_study_and_gives_the_terminal_back() {
    let lab = Lab::new(SWEEP);
    lab.run_study("study", &["--prepare-only"]);
    let command = lab.command("script".as_ref(), &[]);
    let mut terminal = Terminal::start(command, &format!("'{}' status study --watch", isoflop().display()));
    terminal.wait_for("9 runs: 9 left");
    // A run that another process trains meanwhile.
    let trained = lab.path("study/runs/c2e9-nd24-s0");
    run(lab.command(isoflop(), &["train", trained.to_str().expect("UTF-8")])).expect_code(0);
    let shown = terminal.wait_for("9 runs: 8 left, 1 finished");
    let line = |shown: &str, name: &str| shown.lines().find(|l| l.starts_with(name)).map(str::to_owned);
    let finished = line(&shown, "c2e9-nd24-s0").expect("a line");
    assert!(finished.contains("finished  ██████████  47/47"), "{finished}");
    // The same loss as the table's.
    let status = run(lab.command(isoflop(), &["status", "study"])).expect_code(0).said;
    let row = status.lines().find(|l| l.contains("c2e9-nd24-s0")).expect("a row");
    let loss = row.split_whitespace().find(|word| word.contains('.') && word.parse::<f64>().is_ok());
    assert!(finished.contains(loss.expect("a loss")), "{row}\n{finished}");
    // Only runs that are left, then only finished ones: that one, with its losses.
    terminal.press("ff");
    let shown = terminal.wait_for("show: finished");
    assert!(line(&shown, "c1e9").is_none(), "{shown}");
    let shown = terminal.wait_for("train loss 5.");
    assert!(shown.contains("in 47 rows, validation") && shown.contains("█▇"), "{shown}");
    terminal.leave();
}

#[test]
fn the_screen_goes_with_its_terminal() {
    let lab = Lab::new(SWEEP);
    lab.run_study("study", &["--prepare-only"]);
    let command = lab.command("script".as_ref(), &[]);
    let line = format!("echo $$ >pid; exec '{}' status study --watch", isoflop().display());
    let terminal = Terminal::start(command, &line);
    terminal.wait_for("9 runs: 9 left");
    let pid = std::fs::read_to_string(lab.path("pid")).expect("a number");
    let process = std::path::Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    drop(terminal);
    let began = std::time::Instant::now();
    // One that has ended and that nobody waits for any more is no process of ours.
    let runs = || std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while runs() {
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "it goes on without a terminal");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn without_a_terminal_the_screen_is_refused_in_one_sentence() {
    let lab = Lab::new(SWEEP);
    lab.run_study("study", &["--prepare-only"]);
    run(lab.command(isoflop(), &["status", "study", "--watch"]))
        .expect_code(1)
        .expect_words(&["--watch needs a terminal", "`isoflop status` without it"]);
    run(lab.command(isoflop(), &["status", "study", "--watch", "--output", "json"])).expect_code(2);
    run(lab.command(isoflop(), &["status", "study"])).expect_code(0).expect_words(&["worker hours used"]);
}
