//! The report in a real browser: every plot has its marks, the scripts work, and the console is silent.

mod synthetic;

use isoflop_sweeps::fit::{FitOptions, RunStatus, fit_runs};
use isoflop_sweeps::report::{PartKind, ReportError, ReportInput, StepPart, StepTime, render};
use std::path::Path;
use std::process::Command;
use synthetic::{LAW, curves, sound};

/// A study with every section: noisy runs of a known law, curves, a diverged run, step times, a sweep file.
fn study() -> ReportInput {
    let mut runs = sound();
    let curves = curves(&LAW, &runs, false, 0.01);
    runs[5].status = RunStatus::Diverged;
    runs[5].validation_loss = None;
    runs[5].reason = "loss is not a number at step 12 <script>alert(1)</script>".into();
    let options = FitOptions { bootstrap: 100, targets: vec![1e22], ..Default::default() };
    let fit = fit_runs(&runs, &curves, &options).unwrap();
    ReportInput {
        title: "synthetic <study> & \"quotes\"".into(),
        subtitle: "drawn from a known law".into(),
        runs,
        curves,
        fit: Some(fit),
        fit_error: String::new(),
        step_times: vec![step_time("small", 1.0), step_time("<large>", 4.0)],
        step_device: "cpu".into(),
        sweep_file: "[sweep]\nname = \"<b>nano</b>\" # </pre><script>alert(2)</script>\n".into(),
    }
}

/// A step with a part of every kind, this many times as long as the smallest.
fn step_time(size: &str, times: f64) -> StepTime {
    let part = |label: &str, kind, ms: f64, predicted: f64| StepPart {
        label: label.into(),
        kind,
        launches: 3,
        seconds: times * ms * 1e-3,
        predicted: Some(predicted * 1e-3),
    };
    let parts = vec![
        part("product ff1", PartKind::Product, 3.0, 3.5),
        part("product ff1 backward", PartKind::Product, 6.0, 7.0),
        part("attention", PartKind::Attention, 2.0, 1.0),
        part("kernel gelu", PartKind::Kernel, 1.0, 0.2),
        part("gather embed", PartKind::Movement, 0.1, 0.1),
    ];
    StepTime { size: size.into(), runs: 2, threads: 1, parts }
}

/// The page after its scripts ran, and what the browser wrote to its console.
fn open(page: &Path) -> (String, Vec<String>) {
    open_at(page, 1400)
}

/// The same in a window of this many pixels.
fn open_at(page: &Path, width: u32) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap_or_else(|e| {
            panic!("chromium cannot be started ({e}): run scripts/setup.sh, which installs it")
        });
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "chromium failed, see scripts/setup.sh: {log}");
    let console = log.lines().filter(|l| l.contains("CONSOLE")).map(String::from).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

/// The text of the element with this id, up to the end of its kind.
fn section<'a>(dom: &'a str, id: &str, end: &str) -> &'a str {
    let from = dom.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("the page has no #{id}"));
    let length = dom[from..].find(end).unwrap_or_else(|| panic!("#{id} does not end"));
    &dom[from..from + length]
}

fn marks(part: &str, element: &str) -> usize {
    part.matches(&format!("<{element} class=\"mark")).count()
}

#[test]
fn every_plot_has_its_marks_and_the_console_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let study = study();
    std::fs::write(&page, render(&study).unwrap()).unwrap();
    let (dom, console) = open(&page);
    assert!(console.is_empty(), "{console:#?}");

    let finished = study.runs.iter().filter(|r| r.status == RunStatus::Finished).count();
    assert_eq!(finished, 34);
    // Dots of the finished runs; five parabolas; five minima (diamonds are paths).
    assert_eq!(marks(section(&dom, "isoflop-plot", "</svg>"), "circle"), finished);
    assert_eq!(marks(section(&dom, "isoflop-plot", "</svg>"), "path"), 10);
    // Dots of the finished runs; band and line of the law; the envelope.
    assert_eq!(marks(section(&dom, "loss-plot", "</svg>"), "circle"), finished);
    assert_eq!(marks(section(&dom, "loss-plot", "</svg>"), "path"), 3);
    for plot in ["optimal-n-plot", "optimal-d-plot"] {
        // Three bands, three lines, five diamonds; squares of the envelope.
        assert_eq!(marks(section(&dom, plot, "</svg>"), "path"), 11, "{plot}");
        assert!(marks(section(&dom, plot, "</svg>"), "rect") >= 2, "{plot}");
    }
    for plot in ["curves-tokens", "curves-flops"] {
        // A training and a validation line per curve.
        assert_eq!(marks(section(&dom, plot, "</svg>"), "path"), 2 * study.curves.len(), "{plot}");
    }
    for plot in ["step-time-plot-0", "step-time-plot-1"] {
        // A measured and a predicted bar for each part.
        assert_eq!(marks(section(&dom, plot, "</svg>"), "rect"), 10, "{plot}");
    }
    assert!(
        dom.contains("product ff1 backward takes 49.6 % of the step where 59.3 % was expected"),
        "the caption"
    );
    assert_eq!(section(&dom, "step-parts", "</section>").matches("<th scope=\"row\">").count(), 10);
    assert_eq!(section(&dom, "runs", "</section>").matches("<th scope=\"row\">").count(), study.runs.len());

    // The script ran: hover values moved to its own tooltip.
    assert!(dom.contains("<html lang=\"en\" class=\"scripted\">"));
    assert!(dom.contains("data-tip=\"parabola at 1e18 FLOPs\"") && !dom.contains("<title>parabola"));
    // Text from files stays text.
    assert!(dom.contains("&lt;script&gt;alert(1)") && dom.contains("&lt;script&gt;alert(2)"));
    assert!(!dom.contains("<script>alert") && !dom.contains("<b>nano"));
}

#[test]
fn the_page_loads_nothing_and_says_the_result_in_words() {
    let html = render(&study()).unwrap();
    for forbidden in ["http://", "https://", "src=", "@import", "url("] {
        let found = html.replace("http://www.w3.org/2000/svg", "").replace("clip-path=\"url(#", "");
        assert!(!found.contains(forbidden), "the page holds {forbidden}");
    }
    assert!(html.contains("On this data, compute-optimal N grows as C<sup>0.4"), "no headline");
    assert!(html.contains("The target of 1e22 FLOPs is 100 times the largest run"));
    assert!(html.contains("2 things to know"));
    // Numbers in the drawings are numbers.
    for wrong in ["NaN", "inf ", ">null<", ">undefined<"] {
        assert!(!html.contains(wrong), "the page holds {wrong}");
    }
    assert_eq!(html, render(&study()).unwrap(), "the same study must give the same page");
}

#[test]
fn a_study_without_fit_or_curves_still_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let mut runs = sound();
    runs.truncate(1);
    runs[0].budget = None;
    let fit_error = fit_runs(&runs, &[], &FitOptions::default()).unwrap_err().to_string();
    let study = ReportInput { title: "one run".into(), runs, fit_error, ..Default::default() };
    std::fs::write(&page, render(&study).unwrap()).unwrap();
    let (dom, console) = open(&page);
    assert!(console.is_empty(), "{console:#?}");
    assert!(
        dom.contains("There is no fit yet.") && dom.contains("no approach can be fitted to these 1 runs")
    );
    assert_eq!(marks(section(&dom, "isoflop-plot", "</svg>"), "circle"), 1);
    assert!(
        !dom.contains("id=\"curves\"")
            && !dom.contains("id=\"step-time\"")
            && !dom.contains("id=\"step-parts\"")
    );
}

#[test]
fn odd_numbers_and_names_leave_no_mark() {
    let mut study = study();
    for (i, odd) in [f64::NAN, f64::INFINITY, -1.0, 0.0].into_iter().enumerate() {
        let run = &mut study.runs[i];
        (run.params, run.tokens, run.validation_loss) = (odd, odd, Some(odd));
        run.id = String::new();
        study.curves[i].points[7].train_loss = Some(odd);
        study.curves[i].points[8].flops = odd;
    }
    study.runs[9].size = "a very long name for a size".into();
    let html = render(&study).unwrap();
    for attribute in ["NaN", "inf"] {
        for place in ["x=\"", "y=\"", "d=\"M", "r=\"", "L", " "] {
            let drawings: String =
                html.split("<svg").skip(1).filter_map(|s| s.split("</svg>").next()).collect();
            let titles_left_out: String = drawings
                .split("<title>")
                .map(|t| t.split_once("</title>").map_or(t, |(_, rest)| rest))
                .collect();
            assert!(!titles_left_out.contains(&format!("{place}{attribute}")), "{place}{attribute}");
        }
    }
}

#[test]
fn studies_that_cannot_be_shown_say_why() {
    let none = render(&ReportInput { title: "empty".into(), ..Default::default() }).unwrap_err();
    assert!(none.to_string().contains("the study `empty` has no runs"));
    let mut bad = study();
    bad.step_times[1].parts[0].predicted = Some(f64::NAN);
    let error = render(&bad).unwrap_err();
    assert!(matches!(error, ReportError::BadTime { field: "predicted time", .. }), "{error}");
}

/// Uses the page as a reader would and writes what happened to the page's end.
const PROBE: &str = r##"<script>
const said = [];
const column = (i) => [...document.querySelectorAll("#runs table.sortable tbody tr")].map((r) => Number(r.cells[i].dataset.sort || "Infinity"));
const rising = (v) => v.every((x, i) => i === 0 || v[i - 1] <= x);
const head = document.querySelectorAll("#runs table.sortable thead th")[9];
head.click();
said.push(`rising ${rising(column(9))}`);
head.click();
const falling = column(9).filter((x) => x !== Infinity).map((x) => -x);
said.push(`falling ${rising(falling)}`, `empty last ${column(9).at(-1) === Infinity}`);
const shown = (s) => document.querySelector(s).getClientRects().length > 0;
said.push(`tokens ${shown("#curves-tokens")} ${shown("#curves-flops")}`);
document.querySelector("input[value=flops]").click();
said.push(`flops ${shown("#curves-tokens")} ${shown("#curves-flops")}`);
said.push(`sizes ${shown("#step-time-plot-0")} ${shown("#step-time-plot-1")}`);
document.querySelector("input[value=step-1]").click();
said.push(`sizes ${shown("#step-time-plot-0")} ${shown("#step-time-plot-1")}`);
HTMLAnchorElement.prototype.click = function () { said.push(`saved ${this.download} ${this.href.startsWith("blob:")}`); };
document.querySelectorAll(".svg-download").forEach((b) => b.click());
const page = document.documentElement;
said.push(`fits ${page.scrollWidth <= page.clientWidth}`);
const texts = [...document.querySelectorAll("svg.plot text")].filter((t) => t.getClientRects().length > 0);
const pixels = (t) => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width / 560;
said.push(`legible ${Math.min(...texts.map(pixels)) >= 10}`);
const mark = document.querySelector("#isoflop circle.mark");
mark.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 20, clientY: 20 }));
said.push(`tip ${document.querySelector(".tip").textContent === mark.dataset.tip}`);
document.body.append(Object.assign(document.createElement("pre"), { id: "probe", textContent: said.join("; ") }));
</script>"##;

#[test]
fn the_page_can_be_used_wide_and_narrow() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let html = render(&study()).unwrap().replace("</body>", &format!("{PROBE}</body>"));
    std::fs::write(&page, html).unwrap();
    for width in [400, 1400] {
        let (dom, console) = open_at(&page, width);
        assert!(console.is_empty(), "{width}: {console:#?}");
        let found = section(&dom, "probe", "</pre>");
        let wanted = "rising true; falling true; empty last true; tokens true false; flops false true; \
            sizes true false; sizes false true; saved isoflop.svg true; saved loss.svg true; saved optimal-n.svg true; saved optimal-d.svg true; \
            saved curves.svg true; saved step-time.svg true; fits true; legible true; tip true";
        assert!(found.ends_with(wanted), "{width}: {found}");
    }
}
