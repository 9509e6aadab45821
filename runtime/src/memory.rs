//! What this process takes of the machine's memory, as Linux says.

/// Resident memory of this process in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The most that ever was.
    pub peak: u64,
    /// Pages of files that are mapped now: code. They are shared with other processes that map them.
    pub files: u64,
}

/// Reads `/proc/self/status`; none where the system has no such file or it does not say.
pub fn resident() -> Option<Resident> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<Resident> {
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Resident { peak: kib("VmHWM")?, files: kib("RssFile")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_figures_are_read_or_none() {
        let status =
            "Name:\tx\nVmPeak:\t  200 kB\nVmHWM:\t    1234 kB\nRssAnon:\t 1 kB\nRssFile:\t      56 kB\n";
        assert_eq!(parse(status), Some(Resident { peak: 1234 * 1024, files: 56 * 1024 }));
        assert_eq!(parse(&status.replace("RssFile", "Other")), None);
        assert_eq!(parse(&status.replace("1234 kB", "much")), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_written_is_in_the_peak() {
        let before = resident().unwrap();
        let bytes = 64 << 20;
        std::hint::black_box(vec![1u8; bytes]);
        let after = resident().unwrap();
        assert!(after.peak >= before.peak && after.peak > bytes as u64, "{before:?} {after:?}");
    }
}
