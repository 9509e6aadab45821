//! Devices described by small TOML files, so that a plan can be made for a machine that is not here.

use isoflop_kernels::program::Program;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a prediction needs to know of a device. All values are of one device, or of one core of a CPU.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub description: String,
    /// FLOP/s of products of matrices in the programs' precision, from the data sheet or measured.
    pub peak_flops: f64,
    /// Share of the peak that products reach.
    pub efficiency: f64,
    /// Bytes a second to and from memory.
    pub bandwidth: f64,
    /// Fixed cost in seconds of one launch.
    pub launch_seconds: f64,
    pub memory_bytes: f64,
}

const BUILT_IN: [(&str, &str); 3] = [
    ("cpu", include_str!("../devices/cpu.toml")),
    ("a100-80g", include_str!("../devices/a100-80g.toml")),
    ("h100-sxm", include_str!("../devices/h100-sxm.toml")),
];

/// Names of the devices that come with the program.
pub fn built_in_names() -> Vec<String> {
    BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect()
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "there is no device `{found}`{}; built in are {}, and a path ending in .toml reads a description",
        nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default(),
        built_in_names().join(", ")
    )]
    Unknown { found: String, nearest: Option<String> },
    #[error("cannot read the device description {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{}: `{key}` is {found}; it must be a number above 0{extra}", path.display())]
    Value { path: PathBuf, key: &'static str, found: f64, extra: &'static str },
}

impl Device {
    /// A built-in device by name, or the description in a file whose name ends in `.toml`.
    ///
    /// # Errors
    /// For an unknown name, an unreadable file, or values that no device has.
    pub fn find(name: &str) -> Result<Device, DeviceError> {
        if let Some((file, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Device::parse(Path::new(file), text);
        }
        if name.ends_with(".toml") {
            let path = Path::new(name);
            let text = std::fs::read_to_string(path)
                .map_err(|source| DeviceError::File { path: path.to_owned(), source })?;
            return Device::parse(path, &text);
        }
        let nearest = crate::file::nearest(name, &built_in_names()).map(str::to_owned);
        Err(DeviceError::Unknown { found: name.to_owned(), nearest })
    }

    fn parse(path: &Path, text: &str) -> Result<Device, DeviceError> {
        let device: Device = toml::from_str(text)
            .map_err(|e| DeviceError::Syntax { path: path.to_owned(), message: e.to_string() })?;
        for (key, found) in [
            ("peak_flops", device.peak_flops),
            ("efficiency", device.efficiency),
            ("bandwidth", device.bandwidth),
            ("launch_seconds", device.launch_seconds),
            ("memory_bytes", device.memory_bytes),
        ] {
            let share = key == "efficiency";
            if !(found.is_finite() && found > 0.0) || (share && found > 1.0) {
                let extra = if share { ", at most 1" } else { "" };
                return Err(DeviceError::Value { path: path.to_owned(), key, found, extra });
            }
        }
        Ok(device)
    }

    /// Predicted seconds of one call of a program: for each launch the longer of its arithmetic and its traffic, plus
    /// the fixed cost. It knows neither caches nor overlap between launches.
    pub fn seconds(&self, program: &Program) -> f64 {
        let launch = |flops: u64, bytes: u64| {
            let compute = flops as f64 / (self.peak_flops * self.efficiency);
            compute.max(bytes as f64 / self.bandwidth) + self.launch_seconds
        };
        program.launches.iter().map(|l| launch(l.flops, l.bytes)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isoflop_kernels::program::{Call, Launch};

    #[test]
    fn built_in_devices_read_and_carry_their_name() {
        for name in built_in_names() {
            assert_eq!(Device::find(&name).unwrap().name, name);
        }
    }

    #[test]
    fn wrong_devices_say_what_is_allowed() {
        let message = |name: &str| Device::find(name).unwrap_err().to_string();
        assert!(message("h100").contains("did you mean `h100-sxm`"), "{}", message("h100"));
        assert!(message("tpu").contains("a100-80g"), "{}", message("tpu"));
        assert!(message("no/such.toml").contains("no/such.toml"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.toml");
        let text = BUILT_IN[0].1.replace("efficiency = 0.35", "efficiency = 1.35");
        std::fs::write(&path, text).unwrap();
        assert!(message(path.to_str().unwrap()).contains("`efficiency` is 1.35"));
    }

    #[test]
    fn a_launch_takes_the_longer_of_arithmetic_and_traffic() {
        let device = Device {
            name: "d".into(),
            description: String::new(),
            peak_flops: 100.0,
            efficiency: 0.5,
            bandwidth: 10.0,
            launch_seconds: 1.0,
            memory_bytes: 1.0,
        };
        let launch = |flops, bytes| Launch {
            call: Call::Copy { bytes: 0 },
            args: Vec::new(),
            wave: 0,
            label: String::new(),
            flops,
            bytes,
        };
        let program = Program {
            name: "train".into(),
            buffers: Vec::new(),
            arena_bytes: 0,
            arena_lower_bound: 0,
            kernels: Vec::new(),
            launches: vec![launch(100, 10), launch(10, 100)],
        };
        assert_eq!(device.seconds(&program), (2.0 + 1.0) + (10.0 + 1.0));
    }
}
