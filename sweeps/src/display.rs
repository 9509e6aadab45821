//! Numbers as people read them in tables.

use isoflop_compiler::memory::units::scaled;

pub use isoflop_compiler::memory::units::bytes;

/// What `2GB`, `1.5 GiB` or `900 kB` says, above 0.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let parsed = text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()).ok();
    parsed
        .filter(|&n| n > 0)
        .ok_or_else(|| format!("`{text}` is no amount of memory; write 2GB, 512MB or 1.5GiB"))
}

/// `1.50M`, `300B`: counts of parameters and tokens.
pub fn count(n: u64) -> String {
    scaled(n as f64, &["", "k", "M", "B", "T"]).replace(' ', "")
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
