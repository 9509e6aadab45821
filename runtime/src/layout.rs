//! How a training run is spread over GPUs, and `layout.toml`, which says it to every rank of a run.

use crate::rundir::{At, FileError, RunDir, replace};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What is computed again in the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing that a product makes.
    None,
    /// Attention's scores, where they are kept at all (Korthikanti et al. 2022).
    Selective,
    /// Every layer from its input.
    Full,
}

/// A layout of data, tensor, sequence and pipeline parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layout {
    /// Copies of the model that share the batch.
    pub data: usize,
    /// GPUs that share each layer.
    pub tensor: usize,
    /// Norms and residuals are split by position among them.
    pub sequence_parallel: bool,
    /// Stages of consecutive layers.
    pub pipeline: usize,
    /// Pieces of each stage that a micro-batch visits in turn (virtual stages).
    pub interleave: usize,
    /// 0: every copy holds everything; 1: the optimiser is shared out, 2: gradients too, 3: weights too.
    pub zero: u8,
    pub recompute: Recompute,
    /// Sequences of one forward pass, and how many of them make a copy's share of the batch.
    pub micro_batch: usize,
    pub accumulation: usize,
}

impl Layout {
    pub fn gpus(&self) -> usize {
        self.data * self.tensor * self.pipeline
    }
}

/// `dp16 tp8+sp pp4x2 zero1 mb2x12 full`.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dp{} tp{}", self.data, self.tensor)?;
        if self.sequence_parallel {
            f.write_str("+sp")?;
        }
        write!(f, " pp{}", self.pipeline)?;
        if self.interleave > 1 {
            write!(f, "x{}", self.interleave)?;
        }
        write!(f, " zero{} mb{}x{}", self.zero, self.micro_batch, self.accumulation)?;
        match self.recompute {
            Recompute::None => Ok(()),
            Recompute::Selective => f.write_str(" selective"),
            Recompute::Full => f.write_str(" full"),
        }
    }
}

/// What [`Layout`] prints is read back. Sequence parallelism is in `tp8+sp`, and what is recomputed comes last.
impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Layout, String> {
        let wrong = |what: &str| {
            format!("`layout` is `{text}`: {what}; it must be like `dp2 tp8+sp pp8x5 zero1 mb2x384 full`")
        };
        let mut words = text.split_whitespace();
        let mut next = |key: &'static str| {
            let word = words.next().and_then(|w| w.strip_prefix(key));
            word.ok_or_else(|| wrong(&format!("no {key} where it is expected")))
        };
        let number = |word: &str| match word.parse::<usize>() {
            Ok(n @ 1..) => Ok(n),
            _ => Err(wrong(&format!("`{word}` is no number above 0"))),
        };
        let data = number(next("dp")?)?;
        let tensor = next("tp")?;
        let (tensor, sequence_parallel) = (number(tensor.trim_end_matches("+sp"))?, tensor.ends_with("+sp"));
        let stages = next("pp")?;
        let (pipeline, interleave) = stages.split_once('x').unwrap_or((stages, "1"));
        let zero = match next("zero")?.parse() {
            Ok(stage @ 0..=3) => stage,
            _ => return Err(wrong("zero is a stage from 0 to 3")),
        };
        let batch = next("mb")?;
        let (micro, accumulation) = batch.split_once('x').ok_or_else(|| wrong("mb is SEQUENCESxTIMES"))?;
        let recompute = match words.next() {
            None => Recompute::None,
            Some("selective") => Recompute::Selective,
            Some("full") => Recompute::Full,
            Some(word) => return Err(wrong(&format!("`{word}` is not selective or full"))),
        };
        if words.next().is_some() {
            return Err(wrong("there is more behind it"));
        }
        Ok(Layout {
            data,
            tensor,
            sequence_parallel,
            pipeline: number(pipeline)?,
            interleave: number(interleave)?,
            zero,
            recompute,
            micro_batch: number(micro)?,
            accumulation: number(accumulation)?,
        })
    }
}

/// Where one rank stands in a layout. Ranks count tensor first, then data, then pipeline: those that share a layer are
/// neighbours, and so on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinates {
    pub stage: usize,
    pub copy: usize,
    pub shard: usize,
}

impl Layout {
    /// Of a rank below [`Layout::gpus`].
    pub fn coordinates(&self, rank: usize) -> Coordinates {
        Coordinates {
            stage: rank / (self.tensor * self.data),
            copy: rank / self.tensor % self.data,
            shard: rank % self.tensor,
        }
    }
}

/// What a layout divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divided {
    pub n_layers: usize,
    pub n_heads: usize,
    pub d_ff: usize,
    pub vocab_size: usize,
    /// Sequences of a step.
    pub batch: usize,
}

/// `layout.toml` of a run directory: what was planned for a run on GPUs, final.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunLayout {
    /// The run's name.
    pub run: String,
    /// The device that it was planned for.
    pub gpu: String,
    /// Of the cluster; none is the one that Slurm takes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    pub gpus: usize,
    pub nodes: usize,
    pub gpus_per_node: usize,
    /// Planned for each GPU, what driver and libraries take included, and what a GPU has.
    pub memory_bytes: u64,
    pub gpu_memory_bytes: u64,
    /// Of one step: expected, or calibrated where the cluster is.
    pub step_seconds: f64,
    pub divided: Divided,
    pub layout: Layout,
}

#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} has no layout.toml: it was not submitted with a layout for a cluster", run_dir.display())]
    None { run_dir: PathBuf },
    #[error("{}: {message}\nThis file is written by `isoflop submit`: submit again rather than editing it by hand", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("{} was written for another layout, {old}; now it would be {new}: give the new plan a directory of its own", path.display())]
    Other { path: PathBuf, old: Box<Layout>, new: Box<Layout> },
}

impl RunLayout {
    /// # Errors
    /// When there is none or it cannot be read.
    pub fn read(run: &RunDir) -> Result<RunLayout, LayoutError> {
        let path = run.layout();
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(LayoutError::None { run_dir: run.root().to_owned() });
            }
            other => other.at("read", &path)?,
        };
        toml::from_str(&text).map_err(|e| LayoutError::Syntax { path, message: e.to_string() })
    }

    /// Writes it, or checks that the one already there says the same.
    ///
    /// # Errors
    /// [`LayoutError::Other`] where it does not.
    pub fn write(&self, run: &RunDir) -> Result<(), LayoutError> {
        let path = run.layout();
        match RunLayout::read(run) {
            Ok(old) if old == *self => return Ok(()),
            Ok(old) => {
                let (old, new) = (Box::new(old.layout), Box::new(self.layout));
                return Err(LayoutError::Other { path, old, new });
            }
            Err(LayoutError::None { .. }) => {}
            Err(e) => return Err(e),
        }
        let text = toml::to_string(self)
            .map_err(|e| LayoutError::Syntax { path: path.clone(), message: e.to_string() })?;
        std::fs::create_dir_all(run.root()).at("create", run.root())?;
        Ok(replace(&path, text.as_bytes(), false)?)
    }

    /// What in it cannot be, in sentences; empty where all of it can.
    pub fn problems(&self) -> Vec<String> {
        let (l, d) = (&self.layout, &self.divided);
        let mut found = Vec::new();
        let mut must = |holds: bool, sentence: &dyn Fn() -> String| {
            if !holds {
                found.push(sentence());
            }
        };
        must(l.gpus() == self.gpus, &|| format!("{l} is for {} GPUs, not {}", l.gpus(), self.gpus));
        must(self.nodes * self.gpus_per_node == self.gpus, &|| {
            format!("{} nodes of {} GPUs are not {}", self.nodes, self.gpus_per_node, self.gpus)
        });
        must(self.gpus_per_node.is_multiple_of(l.tensor.max(1)), &|| {
            format!("{} GPUs that share a layer would lie on nodes of {}", l.tensor, self.gpus_per_node)
        });
        must(l.data * l.micro_batch * l.accumulation == d.batch, &|| {
            let (share, whole) = (l.micro_batch * l.accumulation, d.batch);
            format!("{} copies of {share} sequences are not the batch of {whole}", l.data)
        });
        must(d.n_layers.is_multiple_of((l.pipeline * l.interleave).max(1)), &|| {
            format!("{} layers are no {} stages of {} pieces", d.n_layers, l.pipeline, l.interleave)
        });
        for (whole, what) in [(d.n_heads, "heads"), (d.d_ff, "d_ff"), (d.vocab_size, "vocab_size")] {
            must(whole.is_multiple_of(l.tensor.max(1)), &|| {
                format!("{what} of {whole} cannot be shared by {} GPUs", l.tensor)
            });
        }
        must(self.memory_bytes <= self.gpu_memory_bytes, &|| {
            format!("{} bytes are planned for a GPU of {}", self.memory_bytes, self.gpu_memory_bytes)
        });
        found
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// 280B on 16 nodes of 8.
    pub(crate) fn gopher() -> RunLayout {
        RunLayout {
            run: "d3e11-n280B-s0".into(),
            gpu: "h100-sxm".into(),
            partition: Some("gpu".into()),
            gpus: 128,
            nodes: 16,
            gpus_per_node: 8,
            memory_bytes: 78_300_000_000,
            gpu_memory_bytes: 80_000_000_000,
            step_seconds: 73.0,
            divided: Divided { n_layers: 80, n_heads: 128, d_ff: 65_536, vocab_size: 32_000, batch: 1_536 },
            layout: Layout {
                data: 2,
                tensor: 8,
                sequence_parallel: true,
                pipeline: 8,
                interleave: 1,
                zero: 1,
                recompute: Recompute::None,
                micro_batch: 2,
                accumulation: 384,
            },
        }
    }

    #[test]
    fn every_rank_has_a_place_of_its_own_and_shards_are_neighbours() {
        let layout = gopher().layout;
        let places: Vec<Coordinates> = (0..128).map(|rank| layout.coordinates(rank)).collect();
        for (rank, place) in places.iter().enumerate() {
            let Coordinates { stage, copy, shard } = *place;
            assert!(stage < 8 && copy < 2 && shard < 8);
            assert_eq!((stage * 2 + copy) * 8 + shard, rank);
        }
        assert!(
            places
                .chunks(8)
                .all(|node| node.iter().all(|p| (p.stage, p.copy) == (node[0].stage, node[0].copy)))
        );
    }

    #[test]
    fn a_printed_layout_is_read_back() {
        let mut layout = gopher().layout;
        for recompute in [Recompute::None, Recompute::Selective, Recompute::Full] {
            for (interleave, sequence_parallel) in [(1, true), (5, false)] {
                layout = Layout { recompute, interleave, sequence_parallel, ..layout };
                assert_eq!(layout.to_string().parse(), Ok(layout), "{layout}");
            }
        }
        for (text, words) in [
            ("dp2 pp8", "no tp"),
            ("dp0 tp1 pp1 zero0 mb1x1", "`0` is no number above 0"),
            ("dp1 tp1 pp1 zero4 mb1x1", "from 0 to 3"),
            ("dp1 tp1 pp1 zero0 mb1", "SEQUENCESxTIMES"),
            ("dp1 tp1 pp1 zero0 mb1x1 all", "selective or full"),
            ("dp1 tp1 pp1 zero0 mb1x1 full dp1", "more behind"),
        ] {
            let said = text.parse::<Layout>().unwrap_err();
            assert!(said.contains(words) && said.contains(text), "{said}");
        }
    }

    #[test]
    fn what_cannot_be_is_said_in_one_go() {
        assert!(gopher().problems().is_empty(), "{:?}", gopher().problems());
        let mut wrong = gopher();
        (wrong.layout.pipeline, wrong.divided.n_heads, wrong.memory_bytes) = (7, 12, 81_000_000_000);
        let found = wrong.problems().join("\n");
        for words in ["112 GPUs, not 128", "80 layers are no 7 stages", "heads of 12", "81000000000 bytes"] {
            assert!(found.contains(words), "{words} in\n{found}");
        }
    }

    #[test]
    fn a_file_is_read_back_and_never_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().join("runs/one"));
        assert!(matches!(RunLayout::read(&run), Err(LayoutError::None { .. })));
        let layout = gopher();
        layout.write(&run).unwrap();
        layout.write(&run).unwrap();
        assert_eq!(RunLayout::read(&run).unwrap(), layout);
        let mut other = gopher();
        other.layout.data = 4;
        assert!(matches!(other.write(&run), Err(LayoutError::Other { .. })));
        std::fs::write(run.layout(), "gpus = 8").unwrap();
        let said = RunLayout::read(&run).unwrap_err().to_string();
        assert!(said.contains("layout.toml") && said.contains("missing field"), "{said}");
    }
}
