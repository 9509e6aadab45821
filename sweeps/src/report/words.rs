//! Numbers and sentences of the page, with superscripts marked as `^{...}`.

use super::chart::{escape, pieces};
use crate::fit::{FitReport, format_flops};

/// HTML with real superscripts from text in the markup of the drawings.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::new();
    for (piece, raised) in pieces(text) {
        let piece = escape(piece);
        if raised {
            out.push_str(&format!("<sup>{}</sup>", piece.replace('-', "\u{2212}")));
        } else {
            out.push_str(&piece);
        }
    }
    out
}

/// A data URI of CSV text.
pub(crate) fn data_uri(csv: &str) -> String {
    let mut uri = String::from("data:text/csv;charset=utf-8,");
    for byte in csv.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b',' | b'.' | b'-' | b'_' => uri.push(byte as char),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

/// 3×10^{11}, 10^{12} or 5.76×10^{23}.
pub(crate) fn power(value: f64) -> String {
    let text = format_flops(value);
    match text.split_once('e') {
        Some(("1", exponent)) => format!("10^{{{exponent}}}"),
        Some((digits, exponent)) => format!("{digits}×10^{{{exponent}}}"),
        None => text,
    }
}

/// C^{0.52}.
pub(crate) fn growth(exponent: f64) -> String {
    format!("C^{{{exponent:.2}}}")
}

/// (0.47 to 0.58), or nothing without an interval.
pub(crate) fn bracket(interval: Option<&[f64; 2]>) -> String {
    interval
        .map(|[low, high]| format!(" ({low:.2} to {high:.2})").replace('-', "\u{2212}"))
        .unwrap_or_default()
}

/// ` (1.2B to 1.4B)`, or nothing without an interval.
pub(crate) fn around(interval: Option<&[f64; 2]>, show: &dyn Fn(f64) -> String) -> String {
    interval.map(|[low, high]| format!(" ({} to {})", show(*low), show(*high))).unwrap_or_default()
}

pub(crate) fn approach_name(approach: u8) -> &'static str {
    match approach {
        1 => "1 · envelope",
        2 => "2 · parabolas",
        _ => "3 · loss law",
    }
}

/// The result in one sentence, and what it means in a second.
pub(crate) fn headline(fit: &FitReport) -> (String, String) {
    let Some(best) = fit.headline() else {
        return ("There is no fit yet.".into(), String::new());
    };
    if !best.status.is_sound() {
        return (
            "The data do not determine how compute-optimal size grows with compute.".into(),
            format!(
                "Approach {} ended with a parameter on its bound. See the warnings for what is missing.",
                best.approach
            ),
        );
    }
    let (a, b) = (best.exponents.a, best.exponents.b);
    let first = format!(
        "On this data, compute-optimal N grows as {}{} and D as {}{}.",
        growth(a),
        bracket(best.intervals.get("a")),
        growth(b),
        bracket(best.intervals.get("b"))
    );
    let how = match &best.bootstrap {
        Some(bootstrap) => format!(
            "Approach {}, {} runs, {:.0} % intervals from {} resamples.",
            best.approach,
            best.n,
            100.0 * bootstrap.level,
            bootstrap.used
        ),
        None => format!("Approach {}, {} runs.", best.approach, best.n),
    };
    let second = format!(
        "With ten times the compute, train a model {:.1} times larger on {:.1} times more tokens. {how}",
        10f64.powf(a),
        10f64.powf(b)
    );
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_and_superscripts_read_well() {
        assert_eq!([1e12, 3e11, 5.76e23].map(power), ["10^{12}", "3×10^{11}", "5.76×10^{23}"]);
        assert_eq!(html("a<b 10^{-3}"), "a&lt;b 10<sup>\u{2212}3</sup>");
        assert_eq!(growth(0.518), "C^{0.52}");
    }
}
