//! Devices described by small TOML files, so that a plan can be made for a machine that is not here.

use isoflop_compiler::cost::{self, CostModel};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a prediction needs to know of a device: the content of its file, described in docs/file-formats.md. Times are
/// seconds, rates a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub description: String,
    pub unit: Unit,
    /// Cores of a CPU, multiprocessors of a GPU.
    pub cores: usize,
    /// Fixed time of one launch.
    pub launch_seconds: f64,
    /// The same where all cores share its tasks; as `launch_seconds` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_seconds_shared: Option<f64>,
    pub memory: Memory,
    /// The smallest first.
    #[serde(default, rename = "cache", skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<Cache>,
    pub peak_flops: Peaks,
    pub efficiency: Efficiency,
    /// For plans of a cluster; none of devices that train alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

/// What a plan of bf16 training on many of a GPU needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Share of the bf16 peak that products of endless matrices reach, and that fused attention reaches.
    pub products: f64,
    pub attention: f64,
    /// Bytes a second between two of a node, in one direction.
    pub intra_node: f64,
}

/// What the values of a device are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// One core of a CPU; a program's threads each have one.
    Core,
    /// All of a device that runs one program at a time.
    Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    pub bytes: f64,
    pub bandwidth: f64,
    /// Of all cores together; `cores` times `bandwidth` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_shared: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    pub name: String,
    pub bytes: f64,
    pub bandwidth: f64,
}

/// Peak FLOP/s by element type, dense.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peaks {
    /// The peak that products of f32 data run at.
    pub products: Precision,
    pub f32: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tf32: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bf16: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Tf32,
}

/// Shares of the peak that kernels reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Efficiency {
    /// Products of large matrices.
    pub products: f64,
    /// Least dimension of a product that reaches half of that.
    pub products_half_dim: f64,
    /// Relative attention.
    pub attention: f64,
    /// Operations a second of generated kernels, over the f32 peak.
    pub kernels: f64,
}

const BUILT_IN: [(&str, &str); 6] = [
    ("cpu", include_str!("../devices/cpu.toml")),
    ("a100-40g", include_str!("../devices/a100-40g.toml")),
    ("a100-80g", include_str!("../devices/a100-80g.toml")),
    ("h100-sxm", include_str!("../devices/h100-sxm.toml")),
    ("h200", include_str!("../devices/h200.toml")),
    ("v100", include_str!("../devices/v100.toml")),
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
    #[error("{}: `{key}` is {found}; it must be {allowed}", path.display())]
    Value { path: PathBuf, key: String, found: f64, allowed: &'static str },
    #[error(
        "{}: `peak_flops.products` is `tf32`, but there is no `peak_flops.tf32`; add it, or say `f32`",
        path.display()
    )]
    NoPeak { path: PathBuf },
}

/// Where a description came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    BuiltIn,
    File(PathBuf),
    /// The user's own `cpu.toml`, which `isoflop calibrate` wrote.
    Calibrated(PathBuf),
}

/// The file that describes this machine's CPU to `cpu` where it exists: `isoflop/cpu.toml` in `$XDG_CONFIG_HOME`, else
/// in `~/.config`.
pub fn calibrated_file() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let config = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|h| h.join(".config")))?;
    Some(config.join("isoflop/cpu.toml"))
}

impl Device {
    /// A device by name, or the description in a file whose name ends in `.toml`. The name `cpu` means the calibrated
    /// file of this machine's user where there is one.
    ///
    /// # Errors
    /// For an unknown name, an unreadable file, or values that no device has.
    pub fn find(name: &str) -> Result<(Device, Source), DeviceError> {
        if name == "cpu"
            && let Some(path) = calibrated_file().filter(|p| p.exists())
        {
            return Ok((Device::read(&path)?, Source::Calibrated(path)));
        }
        if name.ends_with(".toml") {
            return Ok((Device::read(Path::new(name))?, Source::File(name.into())));
        }
        Ok((Device::built_in(name)?, Source::BuiltIn))
    }

    /// A device that comes with the program.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn built_in(name: &str) -> Result<Device, DeviceError> {
        if let Some((file, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Device::parse(Path::new(file), text);
        }
        // `h100` is the start of `h100-sxm`, though `h200` has fewer letters to change.
        let names = built_in_names();
        let longer = names.iter().find(|n| !name.is_empty() && n.starts_with(name)).map(String::as_str);
        let nearest = longer.or_else(|| crate::file::nearest(name, &names)).map(str::to_owned);
        Err(DeviceError::Unknown { found: name.to_owned(), nearest })
    }

    fn read(path: &Path) -> Result<Device, DeviceError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| DeviceError::File { path: path.to_owned(), source })?;
        Device::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Device, DeviceError> {
        let device: Device = toml::from_str(text)
            .map_err(|e| DeviceError::Syntax { path: path.to_owned(), message: e.to_string() })?;
        device.check(path)?;
        Ok(device)
    }

    fn check(&self, path: &Path) -> Result<(), DeviceError> {
        let wrong = |key: &str, found: f64, allowed| {
            Err(DeviceError::Value { path: path.to_owned(), key: key.to_owned(), found, allowed })
        };
        let mut rates = vec![
            ("cores".to_owned(), Some(self.cores as f64)),
            ("launch_seconds".to_owned(), Some(self.launch_seconds)),
            ("launch_seconds_shared".to_owned(), self.launch_seconds_shared),
            ("memory.bytes".to_owned(), Some(self.memory.bytes)),
            ("memory.bandwidth".to_owned(), Some(self.memory.bandwidth)),
            ("memory.bandwidth_shared".to_owned(), self.memory.bandwidth_shared),
            ("peak_flops.f32".to_owned(), Some(self.peak_flops.f32)),
            ("peak_flops.tf32".to_owned(), self.peak_flops.tf32),
            ("peak_flops.bf16".to_owned(), self.peak_flops.bf16),
            ("efficiency.products_half_dim".to_owned(), Some(self.efficiency.products_half_dim)),
        ];
        for (i, cache) in self.caches.iter().enumerate() {
            rates.push((format!("cache[{i}].bytes"), Some(cache.bytes)));
            rates.push((format!("cache[{i}].bandwidth"), Some(cache.bandwidth)));
        }
        for (key, found) in rates.into_iter().filter_map(|(k, v)| Some((k, v?))) {
            if !(found.is_finite() && found > 0.0) {
                return wrong(&key, found, "a number above 0");
            }
        }
        let Efficiency { products, attention, kernels, .. } = self.efficiency;
        for (key, found) in [("products", products), ("attention", attention), ("kernels", kernels)] {
            if !(found > 0.0 && found <= 1.0) {
                return wrong(&format!("efficiency.{key}"), found, "a number above 0, at most 1");
            }
        }
        if let Some(training) = self.training {
            let shares = [("products", training.products), ("attention", training.attention)];
            for (key, found) in shares {
                if !(found > 0.0 && found <= 1.0) {
                    return wrong(&format!("training.{key}"), found, "a number above 0, at most 1");
                }
            }
            if !(training.intra_node.is_finite() && training.intra_node > 0.0) {
                return wrong("training.intra_node", training.intra_node, "a number above 0");
            }
        }
        for (i, pair) in self.caches.windows(2).enumerate() {
            if pair[0].bytes >= pair[1].bytes {
                let key = format!("cache[{}].bytes", i + 1);
                return wrong(&key, pair[1].bytes, "more than the cache before it: the smallest comes first");
            }
        }
        if self.peak_flops.products == Precision::Tf32 && self.peak_flops.tf32.is_none() {
            return Err(DeviceError::NoPeak { path: path.to_owned() });
        }
        Ok(())
    }

    /// The description as a file.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// FLOP/s that products of f32 data cannot exceed.
    pub fn peak(&self) -> f64 {
        match self.peak_flops.products {
            Precision::F32 => self.peak_flops.f32,
            Precision::Tf32 => self.peak_flops.tf32.unwrap_or(self.peak_flops.f32),
        }
    }

    /// The cost model of a program with this many threads; a device that is not counted by cores has one.
    pub fn cost(&self, threads: usize) -> CostModel {
        let threads = match self.unit {
            Unit::Core => threads.max(1),
            Unit::Device => 1,
        };
        let launch = self.launch_seconds_shared.filter(|_| threads > 1).unwrap_or(self.launch_seconds);
        let Memory { bandwidth, bandwidth_shared, .. } = self.memory;
        let caches = self.caches.iter();
        let per_us = |rate: f64| rate * 1e-6;
        CostModel {
            caches: caches
                .map(|c| cost::Cache { bytes: c.bytes as u64, bytes_per_us: per_us(c.bandwidth) })
                .collect(),
            memory_bytes_per_us: per_us(bandwidth),
            memory_bytes_per_us_shared: per_us(bandwidth_shared.unwrap_or(bandwidth * self.cores as f64)),
            product_flops_per_us: per_us(self.peak() * self.efficiency.products),
            product_half_dim: self.efficiency.products_half_dim,
            attention_flops_per_us: per_us(self.peak() * self.efficiency.attention),
            operations_per_us: per_us(self.peak_flops.f32 * self.efficiency.kernels),
            launch_us: launch * 1e6,
            threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_devices_read_and_carry_their_name() {
        for name in built_in_names() {
            let device = Device::built_in(&name).unwrap();
            assert_eq!(device.name, name);
            let again = Device::parse(Path::new("again"), &device.to_toml().unwrap()).unwrap();
            assert_eq!(again, device);
        }
    }

    #[test]
    fn the_compilers_default_is_one_core_of_the_device_cpu() {
        let (ours, default) = (Device::built_in("cpu").unwrap().cost(1), CostModel::default());
        let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{ours:?}\n{default:?}");
        assert_eq!(ours.caches.len(), default.caches.len());
        for (a, b) in ours.caches.iter().zip(&default.caches) {
            assert_eq!(a.bytes, b.bytes);
            near(a.bytes_per_us, b.bytes_per_us);
        }
        near(ours.memory_bytes_per_us, default.memory_bytes_per_us);
        near(ours.memory_bytes_per_us_shared, default.memory_bytes_per_us_shared);
        near(ours.product_flops_per_us, default.product_flops_per_us);
        near(ours.product_half_dim, default.product_half_dim);
        near(ours.attention_flops_per_us, default.attention_flops_per_us);
        near(ours.operations_per_us, default.operations_per_us);
        near(ours.launch_us, default.launch_us);
        assert_eq!((ours.threads, default.threads), (1, 1));
    }

    #[test]
    fn wrong_devices_say_what_is_allowed() {
        let message = |name: &str| Device::find(name).unwrap_err().to_string();
        assert!(message("h100").contains("did you mean `h100-sxm`"), "{}", message("h100"));
        assert!(message("tpu").contains("a100-80g"), "{}", message("tpu"));
        assert!(message("no/such.toml").contains("no/such.toml"));
        let changed = |from: &str, to: &str| {
            let text = BUILT_IN[0].1.replace(from, to);
            assert_ne!(text, BUILT_IN[0].1, "{from} is not there");
            Device::parse(Path::new("d.toml"), &text).unwrap_err().to_string()
        };
        let message = changed("kernels = 0.365", "kernels = 2");
        assert!(
            message.contains("d.toml: `efficiency.kernels` is 2") && message.contains("at most 1"),
            "{message}"
        );
        let message = changed("products = \"f32\"", "products = \"tf32\"");
        assert!(message.contains("no `peak_flops.tf32`"), "{message}");
        let message = changed("bytes = 33554432", "bytes = 3355");
        assert!(message.contains("`cache[1].bytes` is 3355"), "{message}");
        let message = changed("unit = \"core\"", "unit = \"socket\"");
        assert!(message.contains("`core` or `device`") && message.contains("6 |"), "{message}");
    }

    #[test]
    fn threads_share_what_cores_share() {
        let cpu = Device::built_in("cpu").unwrap();
        let (one, two) = (cpu.cost(1), cpu.cost(2));
        assert_eq!(two.threads, 2);
        assert!(two.launch_us > one.launch_us);
        assert_eq!(one.product_flops_per_us, two.product_flops_per_us);
        assert_eq!(Device::built_in("v100").unwrap().cost(8).threads, 1);
    }
}
