//! The picture of a training step in a real browser: search, zoom, moving, details and the fused graph work at both
//! widths, and the console is silent.

use isoflop_compiler::config::{ModelConfig, StepConfig};
use isoflop_compiler::driver::{OptimizeOptions, optimized_step};
use isoflop_compiler::graph::Graph;
use isoflop_compiler::passes::pipeline;
use isoflop_compiler::picture;
use std::path::Path;
use std::process::Command;

/// The training step of a small model before and after fusion.
fn graphs() -> [Graph; 2] {
    let model = ModelConfig::gopher(2, 2, 8, 16, 64, 16);
    let step = StepConfig::new(2);
    [vec!["fuse".to_owned()], Vec::new()].map(|disable| {
        let pipeline = pipeline::Options { disable, ..Default::default() };
        let options = OptimizeOptions { pipeline, ..Default::default() };
        optimized_step(&model, &step, &options).expect("passes").0
    })
}

/// The page after its scripts ran in a window of this many pixels, and what the browser wrote to its console.
fn open_at(page: &Path, width: u32) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().expect("a directory");
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

/// Uses the page as a reader would and writes what happened to the page's end.
const PROBE: &str = r##"<script>
const said = [];
const by = (id) => document.getElementById(id);
const svg = () => [...document.querySelectorAll("svg.graph")].find((s) => s.getClientRects().length > 0);
const box = () => svg().getAttribute("viewBox").split(" ").map(Number);
const type = (text) => { by("search").value = text; by("search").dispatchEvent(new Event("input")); };
const key = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const hits = () => svg().querySelectorAll(".hit").length;
// In the middle of what is seen?
const seen = (n) => {
  const [a, b] = [n.getBoundingClientRect(), svg().getBoundingClientRect()];
  return Math.abs(a.x + a.width / 2 - b.x - b.width / 2) < 3 && Math.abs(a.y + a.height / 2 - b.y - b.height / 2) < 3;
};

said.push(`shown ${svg().id}`);
type("layers.0.gelu");
said.push(`found ${hits() > 5} ${by("count").textContent === `1 of ${hits()}`} ${seen(svg().querySelector(".chosen"))}`);
const first = svg().querySelector(".chosen").id;
key(by("search"), "Enter");
said.push(`next ${svg().querySelector(".chosen").id !== first} ${by("count").textContent.startsWith("2 of ")}`);
by("previous").click();
said.push(`previous ${svg().querySelector(".chosen").id === first}`);
type("nothing has this name");
said.push(`none ${by("count").textContent} ${hits()}`);
const dot = [...svg().querySelectorAll(".library")].find((n) => n.textContent.startsWith("dot"));
type(dot.textContent.split(" ")[1]);
said.push(`id ${hits()} ${dot.classList.contains("hit")}`);
type("");

const [x, y, w, h] = box();
by("in").click();
said.push(`in ${box()[2] < w && box()[3] < h}`);
by("out").click();
said.push(`out ${Math.abs(box()[2] - w) < 1}`);
svg().dispatchEvent(new WheelEvent("wheel", { deltaY: 100, clientX: 100, clientY: 400, cancelable: true }));
said.push(`wheel ${box()[2] > w}`);
const before = box();
key(svg(), "ArrowRight");
key(svg(), "ArrowDown");
said.push(`keys ${box()[0] > before[0] && box()[1] > before[1]}`);
by("fit").click();
const all = svg().getBBox();
const [fx, fy, fw, fh] = box();
said.push(`fit ${fx <= all.x && fy <= all.y && fx + fw >= all.x + all.width && fy + fh >= all.y + all.height}`);
const drag = (kind, x, y) => svg().dispatchEvent(new PointerEvent(kind, { pointerId: 1, clientX: x, clientY: y, bubbles: true }));
SVGElement.prototype.setPointerCapture = () => {};
drag("pointerdown", 100, 400);
drag("pointermove", 140, 420);
drag("pointerup", 140, 420);
said.push(`drag ${box()[0] < fx && box()[1] < fy}`);
svg().dispatchEvent(new MouseEvent("click"));

dot.dispatchEvent(new MouseEvent("click", { bubbles: true }));
const words = by("details").textContent;
said.push(`details ${["op", "scope", "shape", "bytes", "operands (2)", "users ("].every((t) => words.includes(t))} ${/f32\[[\d,]+\]/.test(words)}`);
said.push(`edges ${svg().querySelectorAll("path.reads").length}`);
[...by("details").querySelectorAll("li button")][0].click();
said.push(`operand ${by("details").querySelector("h2").textContent !== dot.textContent.split(" ")[1]}`);
dot.dispatchEvent(new MouseEvent("click", { bubbles: true }));
document.querySelector("input[value=after]").click();
said.push(`turned ${svg().id} ${svg().querySelectorAll(".kernel").length > 20} ${seen(svg().querySelector(".chosen"))}`);
type("layers.0.gelu mul");
const inKernel = by("details").textContent;
said.push(`fused ${hits() > 0} ${inKernel.includes("kernel%")}`);
by("scopes").value = "layers.1";
by("scopes").dispatchEvent(new Event("change"));
said.push(`scope ${box()[1] > 0}`);
const page = document.documentElement;
said.push(`fits ${page.scrollWidth <= page.clientWidth && page.scrollHeight <= page.clientHeight}`);
const labelled = [...document.querySelectorAll("button, input, select, svg")].every((e) => e.ariaLabel || e.textContent.trim() || e.closest("label"));
said.push(`labelled ${labelled}`);
document.body.append(Object.assign(document.createElement("pre"), { id: "probe", textContent: said.join("; ") }));
</script>"##;

#[test]
fn the_page_can_be_walked_through_wide_and_narrow() {
    let [before, after] = graphs();
    let folder = tempfile::tempdir().expect("a directory");
    let page = folder.path().join("step.html");
    let html = picture::html("model.toml", &before, &after).expect("a page");
    std::fs::write(&page, html.replace("</body>", &format!("{PROBE}</body>"))).expect("written");
    for width in [400, 1400] {
        let (dom, console) = open_at(&page, width);
        assert!(console.is_empty(), "{width}: {console:#?}");
        let found = dom.rsplit_once("id=\"probe\">").expect("the probe ran").1;
        let wanted = "shown before; found true true true; next true true; previous true; none 0 hits 0; id 1 true; \
            in true; out true; wheel true; keys true; fit true; drag true; details true true; edges 2; operand true; \
            turned after true true; fused true true; scope true; fits true; labelled true</pre>";
        assert!(found.starts_with(wanted), "{width}: {}", &found[..found.len().min(600)]);
    }
}
