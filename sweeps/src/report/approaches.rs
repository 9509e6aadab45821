//! The three approaches side by side: exponents, laws, and what they advise, with intervals.

use super::tables::Fact;
use super::words::{approach_name, growth, html, power};
use crate::fit::{Estimate, Exponents, Fit, FitReport, FitStatus, Params, format_count};
use serde::Serialize;

/// One approach's row. Exponents and law are HTML.
#[derive(Debug, Serialize)]
pub(crate) struct Approach {
    pub class: String,
    pub name: &'static str,
    pub a: String,
    pub b: String,
    pub law: String,
    pub status: String,
}

/// All approaches side by side, and the loss law where there is one.
#[derive(Debug, Serialize)]
pub(crate) struct Approaches {
    pub rows: Vec<Approach>,
    /// The formula of approach 3's law; empty without one.
    pub formula: String,
    pub parameters: Vec<Fact>,
    pub note: String,
}

/// A value and, smaller, its interval, as HTML.
fn ranged(value: f64, interval: Option<&[f64; 2]>, show: &dyn Fn(f64) -> String) -> String {
    let around = interval.map(|[low, high]| format!(" <small>{} to {}</small>", show(*low), show(*high)));
    format!("<b>{}</b>{}", show(value), around.unwrap_or_default())
}

/// A parameter of the law with three digits or so.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1e4 || (v > 0.0 && v < 1e-3) => html(&power(value)),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The law with its numbers, as HTML; the formula of approach 3, or N* and D* as powers of C.
fn law(fit: &Fit) -> String {
    let Exponents { a, b } = fit.exponents;
    match fit.params {
        Params::Power { n_coefficient, d_coefficient } => format!(
            "N = {} {}<br>D = {} {}",
            digits(n_coefficient),
            html(&growth(a)),
            digits(d_coefficient),
            html(&growth(b))
        ),
        Params::Loss(l) => format!(
            "L = {} + {} / N<sup>{:.3}</sup> + {} / D<sup>{:.3}</sup>",
            digits(l.e),
            digits(l.a),
            l.alpha,
            digits(l.b),
            l.beta
        ),
        Params::Kaplan(l) => format!(
            "L = (({} / N)<sup>{:.3}</sup> + {} / D)<sup>{:.3}</sup>",
            digits(l.n_c),
            l.alpha_n / l.alpha_d,
            digits(l.d_c),
            l.alpha_d
        ),
        Params::Compute(l) => format!("L = {} + {} / C<sup>{:.3}</sup>", digits(l.e), digits(l.a), l.alpha),
    }
}

fn formula(fit: &Fit) -> &'static str {
    match fit.params {
        Params::Loss(_) => "L(N, D) = E + A / N<sup>alpha</sup> + B / D<sup>beta</sup>",
        Params::Kaplan(_) => {
            "L(N, D) = ((N<sub>c</sub> / N)<sup>alpha_N / alpha_D</sup> + D<sub>c</sub> / D)<sup>alpha_D</sup>"
        }
        Params::Power { .. } | Params::Compute(_) => "",
    }
}

pub(crate) fn approaches(report: &FitReport) -> Approaches {
    let exponent = |v: f64| format!("{v:.3}").replace('-', "\u{2212}");
    let row = |f: &Fit| {
        let status = match f.status {
            FitStatus::Converged => "converged",
            FitStatus::AtBound => "parameter at its bound",
            FitStatus::BoundaryStart => "converged from a boundary start",
            FitStatus::Abnormal => "no optimum found",
        };
        let things = if f.approach == 1 { "curves" } else { "runs" };
        Approach {
            class: format!("a{}", f.approach),
            name: approach_name(f.approach),
            a: ranged(f.exponents.a, f.intervals.get("a"), &exponent),
            b: ranged(f.exponents.b, f.intervals.get("b"), &exponent),
            law: law(f),
            status: format!("{} {things}, {status}", f.n),
        }
    };
    let third = report.approach(3);
    let parameters = third.into_iter().flat_map(|f| {
        f.params
            .named()
            .into_iter()
            .map(|(name, v)| Fact { name, value: ranged(v, f.intervals.get(name), &digits) })
    });
    let mut note = match report.fits.iter().find_map(|f| f.bootstrap.as_ref()) {
        Some(b) => format!("Small numbers are {:.0} % intervals from resampled runs.", 100.0 * b.level),
        None => String::new(),
    };
    if let Some(h) = &report.held_out {
        note.push_str(&format!(
            " Held-out check: fitted without its {} largest runs, approach 3 misses their losses by {:.2} %; the nearest smaller run misses by {:.2} %.",
            h.n,
            100.0 * h.error,
            100.0 * h.baseline_error
        ));
    }
    Approaches {
        rows: report.fits.iter().map(row).collect(),
        formula: third.map(formula).unwrap_or_default().into(),
        parameters: parameters.collect(),
        note,
    }
}

/// What each approach advises at one compute.
#[derive(Debug, Serialize)]
pub(crate) struct Advice {
    /// HTML.
    pub flops: String,
    pub why: &'static str,
    pub rows: Vec<AdviceRow>,
}

/// One approach's advice. Cells are HTML.
#[derive(Debug, Serialize)]
pub(crate) struct AdviceRow {
    pub class: String,
    pub name: &'static str,
    pub params: String,
    pub tokens: String,
    pub ratio: String,
    /// Only approach 3 predicts it.
    pub loss: String,
}

/// Compute-optimal models at the largest compute tried, ten times it, and at the targets, by every sound fit.
pub(crate) fn optima(report: &FitReport) -> Vec<Advice> {
    let most = report.inputs.flops[1];
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
    let mut computes = vec![most, 10.0 * most];
    computes.extend(&report.inputs.targets);
    computes.sort_by(f64::total_cmp);
    computes.dedup_by(|a, b| near(*a, *b));
    let estimated = |e: &Estimate, show: &dyn Fn(f64) -> String| ranged(e.value, e.interval.as_ref(), show);
    let at = |c: f64| {
        let rows = report.fits.iter().filter(|f| f.status.is_sound()).filter_map(|f| {
            let o = f.optimum.iter().find(|o| near(o.flops, c))?;
            Some(AdviceRow {
                class: format!("a{}", f.approach),
                name: approach_name(f.approach),
                params: estimated(&o.params, &format_count),
                tokens: estimated(&o.tokens, &format_count),
                ratio: estimated(&o.tokens_per_param, &digits),
                loss: o.loss.as_ref().map(|l| estimated(l, &|v| format!("{v:.3}"))).unwrap_or_default(),
            })
        });
        Advice {
            flops: html(&power(c)),
            why: match c {
                c if near(c, most) => "largest run",
                c if near(c, 10.0 * most) => "ten times that",
                _ => "target",
            },
            rows: rows.collect(),
        }
    };
    computes.into_iter().map(at).filter(|advice| !advice.rows.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_three_digits_or_so() {
        assert_eq!(
            [1.364, 70.43, 756.2, 93743.0].map(digits),
            ["1.364", "70.4", "756", "9.37×10<sup>4</sup>"]
        );
    }
}
