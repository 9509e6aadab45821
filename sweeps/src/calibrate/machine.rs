//! What the operating system says of this machine.

use std::fs;

/// A cache that a core sees.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheSize {
    pub name: String,
    pub bytes: f64,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    pub memory_bytes: f64,
    /// From the second level on, the smallest first.
    pub caches: Vec<CacheSize>,
}

impl Machine {
    /// This machine, as Linux describes it; elsewhere a server core's usual caches.
    pub fn this() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut caches: Vec<CacheSize> = (0..10)
            .filter_map(|i| {
                let file = |name: &str| read(&format!("/sys/devices/system/cpu/cpu0/cache/index{i}/{name}"));
                cache(&file("level"), &file("type"), &file("size"))
            })
            .collect();
        caches.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
        caches.dedup_by(|a, b| a.bytes == b.bytes);
        if caches.is_empty() {
            let usual = |name: &str, bytes| CacheSize { name: name.to_owned(), bytes };
            caches = vec![usual("L2", 1048576.0), usual("L3", 33554432.0)];
        }
        Machine {
            name: field(&read("/proc/cpuinfo"), "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_bytes: field(&read("/proc/meminfo"), "MemTotal").and_then(|t| size(&t)).unwrap_or(8e9),
            caches,
        }
    }
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|l| l.split(':').next().is_some_and(|n| n.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Bytes of `1024K`, `32 M` or `7945168 kB`.
fn size(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    Some(match text[digits..].trim() {
        "K" | "kB" => number * 1024.0,
        "M" => number * 1024.0 * 1024.0,
        "G" => number * 1024.0 * 1024.0 * 1024.0,
        _ => number,
    })
}

fn cache(level: &str, kind: &str, bytes: &str) -> Option<CacheSize> {
    let level: u32 = level.trim().parse().ok()?;
    let bytes = size(bytes).filter(|b| *b > 0.0)?;
    (level > 1 && kind.trim() != "Instruction").then(|| CacheSize { name: format!("L{level}"), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_files_are_read() {
        assert_eq!(
            field("processor\t: 0\nmodel name\t: AMD EPYC\n", "model name"),
            Some("AMD EPYC".to_owned())
        );
        assert_eq!(
            ["1024K", "32M\n", "7945168 kB", "x"].map(size),
            [Some(1048576.0), Some(33554432.0), Some(8135852032.0), None]
        );
        assert_eq!(cache("1\n", "Data\n", "32K\n"), None);
        assert_eq!(cache("2\n", "Unified\n", "1024K\n").map(|c| c.name), Some("L2".to_owned()));
    }

    #[test]
    fn this_machine_has_caches_in_order() {
        let machine = Machine::this();
        assert!(!machine.caches.is_empty() && machine.memory_bytes > 1e8 && !machine.name.is_empty());
        assert!(machine.caches.windows(2).all(|w| w[0].bytes < w[1].bytes), "{machine:?}");
    }
}
