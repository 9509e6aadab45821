//! `isoflop report` on tables and fits: the page, the figures as files, and what it refuses.
#![cfg(feature = "study")]

mod command;

use command::{isoflop, refusal, stdout};

/// A table in two groups: Chinchilla's published law at sizes and lengths, with a little noise.
fn folder() -> tempfile::TempDir {
    let mut text = "data,params,tokens,loss\n".to_string();
    for (k, group) in ["web", "code"].into_iter().enumerate() {
        for (i, n) in [44e6f64, 117e6, 417e6, 1.4e9, 7.1e9].into_iter().enumerate() {
            for (j, ratio) in [2.0, 7.0, 20.0, 70.0].into_iter().enumerate() {
                let d = n * ratio;
                let noise = 1.0 + 1e-3 * (((7 * i + 11 * j + 5 * k) % 9) as f64 - 4.0);
                let loss = (1.69 + 406.4 / n.powf(0.34) + 410.7 / d.powf(0.28)) * noise;
                text += &format!("{group},{n},{d},{loss}\n");
            }
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("runs.csv"), text).expect("written");
    dir
}

#[test]
fn a_table_has_a_page_and_figures_with_their_numbers() {
    let dir = folder();
    let args = ["report", "runs.csv", "--map", "group=none", "--bootstrap", "60", "--targets", "1e24"];
    let out = ["--out", "page.html", "--figures", "figures"];
    let said = stdout(isoflop(dir.path(), &[&args[..], &out[..]].concat()));
    let files: Vec<&str> = said.lines().collect();
    assert_eq!(files[0], "page.html");
    let wanted = [
        "isoflop",
        "loss",
        "optimal-n",
        "optimal-d",
        "cloud-tokens",
        "cloud-loss",
        "exponents",
        "residuals-compute",
        "residuals-normal",
        "held-out",
    ];
    for name in wanted {
        assert!(files.contains(&format!("figures/{name}.svg").as_str()), "{name}: {said}");
    }
    assert!(files.contains(&"figures/residuals.csv") && !said.contains(".png"), "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("written");
    let page = read("page.html");
    assert!(page.contains("isoflop fit of a table") && page.contains("runs.csv"));
    assert!(page.contains("<b>Loss curves</b>: the table has one row for each run"));
    let rows = read("figures/residuals.csv").lines().count();
    assert_eq!(rows, 41, "a header and forty runs");
    let again = stdout(isoflop(dir.path(), &[&args[..], &["--out", "again.html"]].concat()));
    assert_eq!(again.trim(), "again.html");
    assert!(read("again.html") == page, "the same table gives the same page");
}

#[test]
fn a_group_and_a_fit_have_pages_of_their_own() {
    let dir = folder();
    let map = ["--map", "group=data", "--bootstrap", "40"];
    let message =
        refusal(isoflop(dir.path(), &[&["report", "runs.csv", "--out", "p.html"][..], &map].concat()));
    assert!(message.contains("--group with one of: `web`, `code`"), "{message}");
    stdout(isoflop(
        dir.path(),
        &[&["report", "runs.csv", "--out", "code.html", "--group", "code"][..], &map].concat(),
    ));
    let page = std::fs::read_to_string(dir.path().join("code.html")).expect("written");
    assert!(page.contains("runs.csv: code") && page.contains("20 of 20"));

    stdout(isoflop(dir.path(), &[&["fit", "runs.csv", "--out", "fit.json"][..], &map].concat()));
    stdout(isoflop(dir.path(), &["report", "fit.json", "--group", "web", "--out", "web.html"]));
    let page = std::fs::read_to_string(dir.path().join("web.html")).expect("written");
    assert!(page.contains("id=\"optimal-n\"") && page.contains("id=\"cloud\""));
    assert!(page.contains("a fit.json holds no runs") && !page.contains("id=\"residuals\""));
}

#[test]
fn a_page_needs_a_place_and_figures_a_known_format() {
    let dir = folder();
    let message = refusal(isoflop(dir.path(), &["report", "runs.csv", "--map", "group=none"]));
    assert!(message.contains("runs.csv is no study: say with --out"), "{message}");
    let format = ["report", "runs.csv", "--out", "p.html", "--figures", "f", "--format", "pdf"];
    let message = refusal(isoflop(dir.path(), &format));
    assert!(message.contains("pdf") && message.contains("svg, png"), "{message}");
    assert!(!dir.path().join("p.html").exists());
}
