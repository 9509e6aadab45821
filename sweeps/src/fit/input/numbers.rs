//! Numbers as people write them in tables: 1.5B, 300e9, 1,234,567, 1_000. What can be read in two ways is refused.

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// Nothing: empty, `NA`, `null`, `-`.
    Empty,
    /// `NaN` or an infinity.
    NotANumber,
    Number(f64),
}

/// What a column counts, which decides how a comma and a letter are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Parameters, tokens, FLOPs: letters scale them, commas part thousands.
    Count,
    /// A loss: no letters, no commas.
    Loss,
}

/// Why a comma cannot be read.
pub(crate) const DECIMAL_COMMA: &str =
    "a number with a decimal point: this comma could mark decimals or thousands";
/// What a count may look like.
pub(crate) const COUNT: &str = "a number such as 1500000000, 1.5e9 or 1.5B";
/// What a loss may look like.
pub(crate) const LOSS: &str = "a number such as 2.745";

/// Reads a trimmed cell.
///
/// # Errors
/// What the cell should have held.
pub(crate) fn parse(text: &str, kind: Kind) -> Result<Cell, &'static str> {
    let first = text.as_bytes().first().copied();
    if first.is_some_and(|b| b.is_ascii_digit() || b == b'.' || b == b'-' || b == b'+')
        && let Ok(value) = text.parse::<f64>()
    {
        return Ok(if value.is_finite() { Cell::Number(value) } else { Cell::NotANumber });
    }
    let lower = text.to_ascii_lowercase();
    match lower.trim_start_matches(['+', '-']) {
        "" | "na" | "n/a" | "#n/a" | "null" | "none" | "missing" => return Ok(Cell::Empty),
        "nan" | "inf" | "infinity" => return Ok(Cell::NotANumber),
        _ => {}
    }
    match kind {
        Kind::Loss if text.contains(',') && text.bytes().any(|b| b.is_ascii_digit()) => Err(DECIMAL_COMMA),
        Kind::Loss => Err(LOSS),
        Kind::Count => count(&lower).map(Cell::Number),
    }
}

/// A count above 0 as people write them: 1500000000, 1.5e9, 1.5B.
///
/// # Errors
/// What was found and what is allowed.
pub fn above_zero(text: &str) -> Result<f64, String> {
    match parse(text.trim(), Kind::Count) {
        Ok(Cell::Number(value)) if value > 0.0 => Ok(value),
        Err(DECIMAL_COMMA) => Err(format!("found `{text}`, expected {DECIMAL_COMMA}")),
        _ => Err(format!("found `{text}`, expected {COUNT}, above 0")),
    }
}

/// A count in lower case with separators of thousands or a letter, not both.
fn count(lower: &str) -> Result<f64, &'static str> {
    let (digits, scale) = scaled(lower);
    if !digits.contains([',', '_', ' ', '\'', '\u{a0}', '\u{202f}']) {
        return digits.parse::<f64>().ok().filter(|v| v.is_finite()).map(|v| v * scale).ok_or(COUNT);
    }
    let comma = digits.contains(',');
    let refuse = if comma { DECIMAL_COMMA } else { COUNT };
    if scale != 1.0 {
        return Err(refuse);
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut groups = whole.split([',', '_', ' ', '\'', '\u{a0}', '\u{202f}']);
    let first = groups.next().unwrap_or("");
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let sound = (1..=3).contains(&first.len())
        && is_digits(first)
        && first != "0"
        && groups.all(|g| g.len() == 3 && is_digits(g))
        && is_digits(fraction);
    if !sound {
        return Err(refuse);
    }
    let plain: String = digits.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    plain.parse().map_err(|_| refuse)
}

/// The number's text and what its letter or word multiplies it by.
fn scaled(lower: &str) -> (&str, f64) {
    let mut text = lower;
    let mut of_flops = false;
    for word in ["parameters", "params", "tokens", "flops", "flop"] {
        if let Some(rest) = text.strip_suffix(word) {
            text = rest.trim_end();
            of_flops = word.starts_with("flop");
            break;
        }
    }
    match scale_of_suffix(text, of_flops) {
        Some((rest, scale)) => (rest, scale),
        None => (text, 1.0),
    }
}

fn scale_of_suffix(text: &str, of_flops: bool) -> Option<(&str, f64)> {
    const WORDS: [(&str, f64); 4] =
        [("thousand", 1e3), ("million", 1e6), ("billion", 1e9), ("trillion", 1e12)];
    const LETTERS: [(char, f64); 6] =
        [('k', 1e3), ('m', 1e6), ('b', 1e9), ('g', 1e9), ('t', 1e12), ('p', 1e15)];
    // `1e` would be half an exponent, so these need the word `flops`.
    const LARGE: [(char, f64); 3] = [('e', 1e18), ('z', 1e21), ('y', 1e24)];
    let words = WORDS.into_iter().find_map(|(w, s)| Some((text.strip_suffix(w)?, s)));
    let letters = || LETTERS.into_iter().find_map(|(c, s)| Some((text.strip_suffix(c)?, s)));
    let large = || LARGE.into_iter().filter(|_| of_flops).find_map(|(c, s)| Some((text.strip_suffix(c)?, s)));
    let (rest, scale) = words.or_else(letters).or_else(large)?;
    let rest = rest.trim_end();
    rest.ends_with(|c: char| c.is_ascii_digit() || c == '.').then_some((rest, scale))
}

/// The scale that a heading names in parentheses, as `Parameters (M)` or `tokens (billions)`.
pub(crate) fn heading_scale(heading: &str) -> Option<f64> {
    let inside = heading.trim().strip_suffix(')')?.rsplit_once('(')?.1.trim().to_ascii_lowercase();
    let scale = match inside.trim_end_matches('s') {
        "k" | "thousand" => 1e3,
        "m" | "million" => 1e6,
        "b" | "g" | "bn" | "billion" => 1e9,
        "t" | "trillion" => 1e12,
        "pflop" => 1e15,
        "eflop" => 1e18,
        "zflop" => 1e21,
        _ => return None,
    };
    Some(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_people_write_them() {
        for (text, value) in [
            ("1.5B", 1.5e9),
            ("300e9", 3e11),
            ("1,234", 1234.0),
            ("1,234,567.5", 1_234_567.5),
            ("44M", 44e6),
            ("44 m", 44e6),
            ("10k", 1e4),
            ("2.5T", 2.5e12),
            ("1_000_000", 1e6),
            ("1 000 000", 1e6),
            ("1E+21", 1e21),
            ("5.76e23 FLOPs", 5.76e23),
            ("576 ZFLOPs", 5.76e23),
            ("1.3 billion params", 1.3e9),
            (".5e9", 5e8),
            ("-3", -3.0),
        ] {
            match parse(text, Kind::Count) {
                Ok(Cell::Number(found)) => assert!((found / value - 1.0).abs() < 1e-15, "{text}: {found}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in ["1,5", "0,345", "1,234B", "1,23e9", "12,34,567", "1,234.567,8"] {
            assert_eq!(parse(text, Kind::Count), Err(DECIMAL_COMMA), "{text}");
        }
        for text in ["3,214", "2,7"] {
            assert_eq!(parse(text, Kind::Loss), Err(DECIMAL_COMMA), "{text}");
        }
        for text in ["abc", "1.5Q", "1e", "B", "1.2.3", "0x10", "--4"] {
            assert_eq!(parse(text, Kind::Count), Err(COUNT), "{text}");
        }
        assert_eq!(parse("2.1B", Kind::Loss), Err(LOSS));
    }

    #[test]
    fn gaps_are_no_numbers() {
        for text in ["", "NA", "n/a", "null", "None", "-"] {
            assert_eq!(parse(text, Kind::Loss), Ok(Cell::Empty), "{text}");
        }
        for text in ["NaN", "nan", "inf", "-Infinity", "1e999"] {
            assert_eq!(parse(text, Kind::Loss), Ok(Cell::NotANumber), "{text}");
        }
    }

    #[test]
    fn headings_name_scales() {
        assert_eq!(heading_scale("Parameters (M)"), Some(1e6));
        assert_eq!(heading_scale("tokens (billions)"), Some(1e9));
        assert_eq!(heading_scale("loss (nats)"), None);
        assert_eq!(heading_scale("params"), None);
    }
}
