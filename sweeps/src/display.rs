//! Numbers as people read them in tables.

/// `1.5 MB`; decimal units.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// `1.50M`, `300B`: counts of parameters and tokens.
pub fn count(n: u64) -> String {
    scaled(n as f64, &["", "k", "M", "B", "T"]).replace(' ', "")
}

fn scaled(mut x: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while x >= 999.5 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || x >= 99.95 { 0 } else { usize::from(x < 9.995) + 1 };
    format!("{x:.decimals$} {}", units[unit])
}

/// `450 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`, `41.2 days`, `5.1 years`.
pub fn seconds(s: f64) -> String {
    const DAY: f64 = 86_400.0;
    if s < 0.9995 {
        format!("{:.0} ms", s * 1e3)
    } else if s < 60.0 {
        format!("{s:.1} s")
    } else if s < 3_600.0 {
        format!("{} min {:02} s", s as u64 / 60, s as u64 % 60)
    } else if s < 2.0 * DAY {
        format!("{} h {:02} min", s as u64 / 3_600, s as u64 % 3_600 / 60)
    } else if s < 1_000.0 * DAY {
        format!("{:.1} days", s / DAY)
    } else {
        format!("{:.1} years", s / (365.25 * DAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_words() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1_500), bytes(80_000_000_000)],
            ["0 B", "999 B", "1.50 kB", "80.0 GB"]
        );
        assert_eq!([count(128), count(43_663_872), count(300_000_000_000)], ["128", "43.7M", "300B"]);
        let times = [0.45, 12.34, 245.0, 12_000.0, 3_559_680.0, 1.6e8].map(seconds);
        assert_eq!(times, ["450 ms", "12.3 s", "4 min 05 s", "3 h 20 min", "41.2 days", "5.1 years"]);
    }
}
