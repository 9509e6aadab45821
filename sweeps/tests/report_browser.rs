//! The report in a real browser: every plot has its marks, the scripts work, and the console is silent.

mod synthetic;

use isoflop_sweeps::fit::{FitOptions, RunStatus, fit_runs};
use isoflop_sweeps::report::{ReportError, ReportInput, render};
use std::path::Path;
use std::process::Command;
use synthetic::page::study;
use synthetic::sound;

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
        .args(["--enable-logging=stderr", "--v=0", "--dump-dom"])
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

/// Round dots, without the invisible places of lines that say their values.
fn dots(part: &str) -> usize {
    part.matches("<circle class=\"mark dot").count()
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
    assert_eq!(dots(section(&dom, "loss-plot", "</svg>")), finished);
    assert_eq!(marks(section(&dom, "loss-plot", "</svg>"), "path"), 3);
    for plot in ["optimal-n-plot", "optimal-d-plot"] {
        // Three bands, three lines, five diamonds; squares of the envelope.
        assert_eq!(marks(section(&dom, plot, "</svg>"), "path"), 11, "{plot}");
        assert!(marks(section(&dom, plot, "</svg>"), "rect") >= 2, "{plot}");
    }
    // Residuals of the finished runs, twice, with the line of the law and of normal noise.
    for plot in ["residuals-compute", "residuals-normal"] {
        assert_eq!(dots(section(&dom, plot, "</svg>")), finished, "{plot}");
        assert_eq!(marks(section(&dom, plot, "</svg>"), "path"), 1, "{plot}");
    }
    // Resamples; three contours and the optimum, and where alpha = beta if that is near.
    assert_eq!(dots(section(&dom, "exponents-plot", "</svg>")), 100);
    assert!((4..=5).contains(&marks(section(&dom, "exponents-plot", "</svg>"), "path")));
    assert_eq!(dots(section(&dom, "cloud-loss-plot", "</svg>")), 100);
    // Two bars of each of three approaches, and the diamond.
    assert_eq!(marks(section(&dom, "cloud-tokens-plot", "</svg>"), "path"), 7);
    // The seven runs of the largest budget: a cross, a bar and a diamond each, and the measured circle.
    assert_eq!(marks(section(&dom, "held-out-plot", "</svg>"), "path"), 21);
    assert_eq!(dots(section(&dom, "held-out-plot", "</svg>")), 7);
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
document.querySelector("#curves input[value=flops]").click();
said.push(`flops ${shown("#curves-tokens")} ${shown("#curves-flops")}`);
said.push(`sizes ${shown("#step-time-plot-0")} ${shown("#step-time-plot-1")}`);
document.querySelector("input[value=step-1]").click();
said.push(`sizes ${shown("#step-time-plot-0")} ${shown("#step-time-plot-1")}`);
const blobs = new Map();
const makeUrl = URL.createObjectURL;
URL.createObjectURL = (blob) => { const url = makeUrl(blob); blobs.set(url, blob); return url; };
const saved = new Map();
HTMLAnchorElement.prototype.click = function () { saved.set(this.download, blobs.get(this.href)); };
const figures = [...document.querySelectorAll("figure.figure")].map((f) => f.id);
document.querySelectorAll(".svg-download, .png-download").forEach((b) => b.click());
const page = document.documentElement;
said.push(`fits ${page.scrollWidth <= page.clientWidth}`);
const texts = [...document.querySelectorAll("svg.plot text")].filter((t) => t.getClientRects().length > 0);
const pixels = (t) => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width / 560;
said.push(`legible ${Math.min(...texts.map(pixels)) >= 10}`);
const mark = document.querySelector("#isoflop circle.mark");
mark.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 20, clientY: 20 }));
const tip = document.querySelector(".tip");
said.push(`tip ${tip.textContent === mark.dataset.tip}`);
said.push(`silent marks ${document.querySelectorAll("svg.plot .mark:not([data-tip])").length}`);
said.push(`nameless ${[...document.querySelectorAll("svg.plot, figure, .scroll")].filter((e) => !(e.ariaLabel || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent)).length}`);
const plot = document.querySelector("#optimal-n-plot");
plot.focus();
const press = (key) => plot.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
press("ArrowRight");
const first = tip.textContent;
press("End");
said.push(`keys ${document.activeElement === plot && !tip.hidden && first !== tip.textContent && tip.textContent.includes("1e22")}`);
press("Escape");
said.push(`gone ${tip.hidden}`);
// The browser writes the page out once it is loaded: not before this frame, which stays open while images are made.
const frame = document.body.appendChild(document.createElement("iframe")).contentDocument;
frame.open();
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
(async () => {
  for (let i = 0; i < 1500 && saved.size < 2 * figures.length; i += 1) await wait(20);
  let good = 0;
  for (const figure of figures) {
    const svg = await saved.get(`${figure}.svg`).text();
    const png = await saved.get(`${figure}.png`).arrayBuffer();
    const head = new DataView(png);
    const drawn = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
    const size = ["width", "height"].map((name) => Math.round(3 * drawn.getAttribute(name)));
    good += svg.includes("<svg") && !svg.includes("var(") && head.getUint32(0) === 0x89504e47 && head.getUint32(16) === size[0]
      && Math.abs(head.getUint32(20) - size[1]) <= 3 && png.byteLength > 5000;
  }
  said.push(`saved ${good} of ${figures.length}: ${figures.join(" ")}`);
  document.body.append(Object.assign(document.createElement("pre"), { id: "probe", textContent: said.join("; ") }));
})().catch((error) => console.error(String(error))).finally(() => frame.close());
</script>"##;

#[test]
fn the_page_can_be_used_wide_and_narrow() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let html = render(&study()).unwrap().replace("</body>", &format!("{PROBE}</body>"));
    std::fs::write(&page, html).unwrap();
    for width in [360, 1400] {
        let (dom, console) = open_at(&page, width);
        assert!(console.is_empty(), "{width}: {console:#?}");
        let found = section(&dom, "probe", "</pre>");
        let wanted = "rising true; falling true; empty last true; tokens true false; flops false true; \
            sizes true false; sizes false true; fits true; legible true; tip true; silent marks 0; nameless 0; keys true; gone true; \
            saved 10 of 10: isoflop loss optimal-n optimal-d cloud exponents residuals held-out curves step-time";
        assert!(found.ends_with(wanted), "{width}: {found}");
    }
}
