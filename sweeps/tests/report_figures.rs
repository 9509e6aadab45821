//! The figures as files: their numbers are those of the fit, their drawings need nothing else, and bands hold their lines.

mod synthetic;

use isoflop_sweeps::fit::{Params, RunStatus};
use isoflop_sweeps::report::{FigureFile, FigureFormat, ReportInput, ReportSource, figures, render};
use std::collections::BTreeMap;
use synthetic::page::study;

type Row = BTreeMap<String, String>;

fn file<'a>(files: &'a [FigureFile], name: &str) -> &'a [u8] {
    let found = files.iter().find(|f| f.name == name);
    &found.unwrap_or_else(|| panic!("no {name} in {:?}", names(files))).bytes
}

fn names(files: &[FigureFile]) -> Vec<&str> {
    files.iter().map(|f| f.name.as_str()).collect()
}

fn rows(files: &[FigureFile], name: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_reader(file(files, name));
    reader.deserialize().collect::<Result<Vec<Row>, _>>().unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?}"))
}

#[test]
fn the_numbers_of_every_figure_are_those_of_the_fit() {
    let study = study();
    let fit = study.fit.as_ref().unwrap();
    let files = figures(&study, &[]).unwrap();
    let third = fit.approach(3).unwrap();
    let Params::Loss(law) = third.params else { panic!("{:?}", third.params) };

    for (name, column) in [("optimal-n.csv", "params"), ("optimal-d.csv", "tokens")] {
        let all = rows(&files, name);
        for approach in 1..=3u8 {
            let fit = fit.approach(approach).unwrap();
            let laws: Vec<&Row> =
                all.iter().filter(|r| r["approach"] == approach.to_string() && r["what"] == "law").collect();
            assert_eq!(laws.len(), fit.optimum.len());
            for (row, o) in laws.iter().zip(&fit.optimum) {
                let e = if column == "params" { o.params } else { o.tokens };
                assert_eq!(number(row, column), e.value);
                assert!(number(row, "low") <= e.value && e.value <= number(row, "high"), "{name} {row:?}");
            }
        }
    }
    let loss = rows(&files, "loss.csv");
    let frontier: Vec<&Row> = loss.iter().filter(|r| r["what"] == "loss law").collect();
    assert_eq!(frontier.len(), third.optimum.len());
    for row in frontier {
        let (n, d) = law.optimum(number(row, "flops"), 6.0);
        let value = number(row, "nats_per_token");
        assert!((value / law.loss(n, d) - 1.0).abs() < 1e-9);
        assert!(number(row, "low") <= value && value <= number(row, "high"), "{row:?}");
    }

    let residuals = rows(&files, "residuals.csv");
    assert_eq!(residuals.len(), study.runs.iter().filter(|r| r.status == RunStatus::Finished).count());
    for row in &residuals {
        let predicted = law.loss(number(row, "params"), number(row, "tokens"));
        assert!((number(row, "predicted") / predicted - 1.0).abs() < 1e-9);
        let residual = (number(row, "nats_per_token") / predicted).ln();
        assert!((number(row, "log_residual") - residual).abs() < 1e-9);
    }

    let exponents = rows(&files, "exponents.csv");
    let optimum = exponents.iter().find(|r| r["what"] == "optimum").unwrap();
    assert!((number(optimum, "alpha") - law.alpha).abs() < 1e-6);
    assert!((number(optimum, "beta") - law.beta).abs() < 1e-6);
    assert!(exponents.iter().filter(|r| r["what"] == "profile").all(|r| number(r, "rise") > -1e-6));

    for row in rows(&files, "cloud.csv").iter().filter(|r| r["what"] == "resample") {
        let flops = 6.0 * number(row, "params") * number(row, "tokens");
        assert!((flops / 1e22 - 1.0).abs() < 1e-9, "{row:?}");
    }

    let held_out = rows(&files, "held-out.csv");
    let summary = fit.held_out.as_ref().unwrap();
    assert_eq!(held_out.len(), summary.n);
    let mean =
        |column: &str| held_out.iter().map(|r| number(r, column).abs()).sum::<f64>() / held_out.len() as f64;
    assert!((mean("error") - summary.error).abs() < 1e-6, "{} {}", mean("error"), summary.error);
    assert!((mean("nearest_error") - summary.baseline_error).abs() < 1e-9);
    for row in &held_out {
        assert!(number(row, "low") < number(row, "high"), "{row:?}");
    }
}

#[test]
fn drawings_stand_alone_and_images_are_images() {
    let study = study();
    let files = figures(&study, &[FigureFormat::Svg, FigureFormat::Png]).unwrap();
    let drawn = [
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
        "curves-tokens",
        "curves-flops",
        "step-time-step-0",
        "step-time-step-1",
    ];
    let svgs: Vec<&str> = names(&files).into_iter().filter_map(|n| n.strip_suffix(".svg")).collect();
    assert_eq!(svgs, drawn);
    for name in drawn {
        let svg = String::from_utf8(file(&files, &format!("{name}.svg")).to_vec()).unwrap();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>"));
        for foreign in ["var(", "style=", "<script", "href", "NaN"] {
            assert!(!svg.contains(foreign), "{name}.svg holds {foreign}");
        }
        assert!(
            svg.contains("width=\"84mm\"") && svg.contains("fill=\"#ffffff\"") && svg.contains("font-size=")
        );
        let png = file(&files, &format!("{name}.png"));
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n", "{name}");
        assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 1984, "{name}");
        assert!(png.len() > 10_000, "{name}.png is empty");
    }
    let again = figures(&study, &[FigureFormat::Svg]).unwrap();
    for file in &again {
        assert_eq!(file.bytes, self::file(&files, &file.name), "{}", file.name);
    }
}

#[test]
fn a_fit_without_runs_shows_its_laws_and_says_what_is_missing() {
    let whole = study();
    let fit = ReportInput {
        source: ReportSource::Fit,
        title: "fit.json".into(),
        fit: whole.fit.clone(),
        ..ReportInput::default()
    };
    let files = figures(&fit, &[FigureFormat::Svg]).unwrap();
    let svgs: Vec<&str> = names(&files).into_iter().filter_map(|n| n.strip_suffix(".svg")).collect();
    assert_eq!(svgs, ["loss", "optimal-n", "optimal-d", "cloud-tokens", "cloud-loss"]);
    let page = render(&fit).unwrap();
    let missing = page.split("Not shown").nth(1).expect("a list of what is missing");
    for title in
        ["Loss against size", "Exponents of the loss law", "Residuals of the loss law", "Loss curves"]
    {
        assert!(missing.contains(&format!("<b>{title}</b>: a fit.json holds no runs")), "{title}");
    }
    assert!(missing.contains("only a study measures it"));
    assert!(!page.contains("id=\"runs\""));
}
