//! The description of a cluster: its GPUs, links, partitions and prices, read from TOML.

use super::efficiency::Efficiency;
use super::time::Machine;
use crate::device::{Device, DeviceError};
use serde::Deserialize;
use serde_spanned::Spanned;
use std::path::{Path, PathBuf};

/// A cluster, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub name: String,
    pub gpu: Device,
    pub nodes: usize,
    /// Rates and links of one GPU.
    pub machine: Machine,
    /// Bytes of a GPU that the driver and its libraries take.
    pub reserve: u64,
    /// Runs are to end within so many days.
    pub max_days: f64,
    /// At least one; the first is preferred among equals.
    pub partitions: Vec<Partition>,
    /// False where the file names none, and `partitions` is the whole cluster.
    pub has_partitions: bool,
    pub efficiency: Efficiency,
    pub calibration: Option<Calibration>,
}

/// A part of the cluster with limits and a price of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    pub name: String,
    /// Nodes that one job may have.
    pub nodes: usize,
    /// Longest job in hours; none is no limit.
    pub hours: Option<f64>,
    /// Of a GPU hour.
    pub price: Option<f64>,
}

/// Measured steps over their estimates.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Median of measured over expected seconds of a step.
    pub factor: f64,
    /// Error that is left after multiplying, as a share of a step.
    pub error: f64,
    /// Steps measured.
    pub steps: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot read the cluster description {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{}:{line}: `{key}` is {found}; it must be {allowed}", path.display())]
    Value { path: PathBuf, line: usize, key: String, found: String, allowed: String },
    #[error("{}:{line}: `gpu`: {source}", path.display())]
    Gpu {
        path: PathBuf,
        line: usize,
        #[source]
        source: DeviceError,
    },
    #[error(
        "{}:{line}: `gpu` is `{found}`, whose description has no bf16 peak or no [training] table; planned can be a100-40g, \
         a100-80g, h100-sxm, h200, or a description that has both",
        path.display()
    )]
    NoTraining { path: PathBuf, line: usize, found: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterToml {
    name: String,
    gpu: Spanned<String>,
    nodes: Spanned<usize>,
    gpus_per_node: Spanned<usize>,
    #[serde(default)]
    intra_node: Option<Spanned<f64>>,
    inter_node: Spanned<f64>,
    #[serde(default)]
    reserve: Option<Spanned<String>>,
    #[serde(default)]
    max_days: Option<Spanned<f64>>,
    #[serde(default, rename = "partition")]
    partitions: Vec<PartitionToml>,
    #[serde(default)]
    efficiency: Option<Spanned<Efficiency>>,
    #[serde(default)]
    calibration: Option<Spanned<Calibration>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionToml {
    name: Spanned<String>,
    #[serde(default)]
    nodes: Option<Spanned<usize>>,
    #[serde(default)]
    hours: Option<Spanned<f64>>,
    #[serde(default)]
    price: Option<Spanned<f64>>,
}

/// What the driver, CUDA's context and communication libraries hold; assumed.
const RESERVE: u64 = 3_000_000_000;
const MAX_DAYS: f64 = 30.0;

impl Cluster {
    /// # Errors
    /// An unreadable file, a key that is unknown or missing, a value out of its range, an unknown GPU: with file and line.
    pub fn read(path: &Path) -> Result<Cluster, ClusterError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ClusterError::File { path: path.to_owned(), source })?;
        Cluster::parse(path, &text)
    }

    /// As [`Cluster::read`], of a text; `path` is for messages.
    ///
    /// # Errors
    /// As there.
    pub fn parse(path: &Path, text: &str) -> Result<Cluster, ClusterError> {
        let raw: ClusterToml = toml::from_str(text)
            .map_err(|e| ClusterError::Syntax { path: path.to_owned(), message: e.to_string() })?;
        let at = Place { path, text };
        let nodes = at.count("nodes", &raw.nodes)?;
        let gpus_per_node = at.count("gpus_per_node", &raw.gpus_per_node)?;
        let gpu = raw.gpu.get_ref();
        let line = at.line(raw.gpu.span().start);
        let (gpu, _) =
            Device::find(gpu).map_err(|source| ClusterError::Gpu { path: path.to_owned(), line, source })?;
        let (Some(training), Some(peak)) = (gpu.training, gpu.peak_flops.bf16) else {
            return Err(ClusterError::NoTraining { path: path.to_owned(), line, found: gpu.name });
        };
        let intra_node = match &raw.intra_node {
            Some(rate) => at.positive("intra_node", rate)?,
            None => training.intra_node,
        };
        let machine = Machine {
            peak,
            memory_bandwidth: gpu.memory.bandwidth,
            memory_bytes: gpu.memory.bytes,
            gpus_per_node,
            intra_node,
            inter_node: at.positive("inter_node", &raw.inter_node)?,
            products: training.products,
            attention: training.attention,
        };
        let reserve = match &raw.reserve {
            Some(text) => crate::display::parse_bytes(text.get_ref()).map_err(|_| {
                at.wrong(
                    "reserve",
                    text.span().start,
                    format!("{:?}", text.get_ref()),
                    "an amount such as 3GB",
                )
            })?,
            None => RESERVE,
        };
        if reserve as f64 >= machine.memory_bytes {
            let place = raw.reserve.as_ref().map_or(0, |r| r.span().start);
            return Err(at.wrong("reserve", place, reserve.to_string(), "less than the GPU's memory"));
        }
        let max_days = raw.max_days.as_ref().map_or(Ok(MAX_DAYS), |d| at.positive("max_days", d))?;
        let efficiency = raw.efficiency.as_ref().map_or_else(Efficiency::default, |e| *e.get_ref());
        if let Some((key, found, allowed)) = efficiency.wrong() {
            let place = raw.efficiency.as_ref().map_or(0, |e| e.span().start);
            return Err(at.wrong(&format!("efficiency.{key}"), place, found.to_string(), allowed));
        }
        if let Some(c) = &raw.calibration {
            let (place, c) = (c.span().start, c.get_ref());
            if !(c.factor > 0.0 && c.factor.is_finite()) {
                let found = c.factor.to_string();
                return Err(at.wrong("calibration.factor", place, found, "a number above 0"));
            }
        }
        let partitions = at.partitions(&raw.partitions, nodes)?;
        Ok(Cluster {
            name: raw.name,
            gpu,
            nodes,
            machine,
            reserve,
            max_days,
            partitions,
            has_partitions: !raw.partitions.is_empty(),
            efficiency,
            calibration: raw.calibration.map(Spanned::into_inner),
        })
    }
}

impl Cluster {
    /// Leaves the partitions with these names, apart by commas.
    ///
    /// # Errors
    /// The names that there are, where none of these is among them.
    pub fn keep_partitions(&mut self, names: &str) -> Result<(), String> {
        let wanted: Vec<&str> = names.split(',').map(str::trim).collect();
        let known = self.partitions.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
        if self.has_partitions {
            self.partitions.retain(|p| wanted.contains(&p.name.as_str()));
        }
        if self.partitions.is_empty() { Err(known) } else { Ok(()) }
    }
}

/// Where values stand, for messages.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }

    fn wrong(&self, key: &str, offset: usize, found: String, allowed: &str) -> ClusterError {
        ClusterError::Value {
            path: self.path.to_owned(),
            line: self.line(offset),
            key: key.to_owned(),
            found,
            allowed: allowed.to_owned(),
        }
    }

    fn count(&self, key: &str, value: &Spanned<usize>) -> Result<usize, ClusterError> {
        match *value.get_ref() {
            n @ 1..=1_000_000 => Ok(n),
            n => Err(self.wrong(key, value.span().start, n.to_string(), "from 1 to 1000000")),
        }
    }

    fn positive(&self, key: &str, value: &Spanned<f64>) -> Result<f64, ClusterError> {
        let found = *value.get_ref();
        if found.is_finite() && found > 0.0 {
            return Ok(found);
        }
        Err(self.wrong(key, value.span().start, found.to_string(), "a number above 0"))
    }

    fn partitions(&self, raw: &[PartitionToml], nodes: usize) -> Result<Vec<Partition>, ClusterError> {
        let mut found: Vec<Partition> = Vec::new();
        for p in raw {
            let name = p.name.get_ref();
            if name.is_empty() || found.iter().any(|other| other.name == *name) {
                let shown = format!("{name:?}");
                return Err(self.wrong("partition.name", p.name.span().start, shown, "a name of its own"));
            }
            let limit = match &p.nodes {
                None => nodes,
                Some(n) if (1..=nodes).contains(n.get_ref()) => *n.get_ref(),
                Some(n) => {
                    let allowed = format!("from 1 to the cluster's {nodes}");
                    let found = n.get_ref().to_string();
                    return Err(self.wrong("partition.nodes", n.span().start, found, &allowed));
                }
            };
            let price = match &p.price {
                Some(price) if *price.get_ref() == 0.0 => Some(0.0),
                Some(price) => Some(self.positive("partition.price", price)?),
                None => None,
            };
            let hours = p.hours.as_ref().map(|h| self.positive("partition.hours", h)).transpose()?;
            found.push(Partition { name: name.clone(), nodes: limit, hours, price });
        }
        if found.is_empty() {
            found.push(Partition { name: "all".into(), nodes, hours: None, price: None });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"c\"\ngpu = \"a100-80g\"\nnodes = 4\ngpus_per_node = 8\ninter_node = 25e9\n";

    fn message(text: &str) -> String {
        Cluster::parse(Path::new("c.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_comes_from_the_gpu() {
        let c = Cluster::parse(Path::new("c.toml"), GOOD).unwrap();
        assert_eq!((c.machine.peak, c.machine.intra_node), (312e12, 300e9));
        assert_eq!(c.partitions.len(), 1);
        assert_eq!((c.partitions[0].nodes, c.max_days), (4, 30.0));
        assert_eq!(c.efficiency, Efficiency::default());
    }

    #[test]
    fn wrong_values_name_file_line_key_and_what_is_allowed() {
        for (text, parts) in [
            (GOOD.replace("nodes = 4", "nodes = 0"), ["c.toml:3", "`nodes` is 0", "from 1"]),
            (GOOD.replace("25e9", "-1.0"), ["c.toml:5", "`inter_node` is -1", "above 0"]),
            (GOOD.replace("a100-80g", "a100"), ["c.toml:2", "`gpu`", "did you mean"]),
            (GOOD.replace("a100-80g", "v100"), ["c.toml:2", "`v100`", "a100-80g"]),
            (format!("{GOOD}reserve = \"90GB\"\n"), ["c.toml:6", "`reserve`", "less than"]),
            (
                format!("{GOOD}[efficiency]\nmemory = 2.0\n"),
                ["c.toml:6", "`efficiency.memory` is 2", "at most 1"],
            ),
            (
                format!("{GOOD}[[partition]]\nname = \"p\"\nnodes = 9\n"),
                ["c.toml:8", "`partition.nodes` is 9", "cluster's 4"],
            ),
            (GOOD.replace("inter_node", "internode"), ["c.toml", "internode", "inter_node"]),
        ] {
            let found = message(&text);
            assert!(parts.iter().all(|p| found.contains(p)), "{text}\n{found}");
        }
    }
}
