//! Bytes and counts as people read them.

/// `1.5 MB`; decimal units.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// Three digits and the largest of `units`, each a thousand of the one before, in which the number is at least 1.
pub fn scaled(mut x: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while x >= 999.5 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || x >= 99.95 { 0 } else { usize::from(x < 9.995) + 1 };
    format!("{x:.decimals$} {}", units[unit])
}
