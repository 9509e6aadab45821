//! Checkpoints: all state of a run after a step, written beside the old ones and given its name only when whole.
//!
//! `checkpoints/step-00001234/model.safetensors` holds the parameters and both Adam moments under their program
//! names, `meta.json` everything else a run needs to go on and the hash of the tensors. Equal states give equal bytes.

use crate::rundir::{At, FileError, sync_dir};
use isoflop_kernels::DType;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// `meta.json` of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    pub version: u32,
    /// Optimiser steps done.
    pub step: u64,
    pub tokens: u64,
    /// Sequences drawn from the training data: the data position.
    pub sequences: u64,
    pub seed: u64,
    /// Of the compiled model.
    pub artifact: String,
    /// Of what decides the numbers of a run: its configuration and its data.
    pub config: String,
    /// Sum of the train losses since the last row of `metrics.csv`.
    pub loss_sum: f64,
    /// Steps in `loss_sum`.
    pub loss_count: u64,
    /// Rows of `metrics.csv` up to this step.
    pub metrics_rows: u64,
    /// Of this step, in nats per token.
    pub train_loss: Option<f64>,
    /// The newest validation loss, in nats per token.
    pub validation_loss: Option<f64>,
    /// Of `model.safetensors`.
    pub blake3: String,
}

pub const VERSION: u32 = 1;

/// One tensor to be written: its bytes are little-endian, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
    #[error(
        "{}: {what} of this checkpoint is {found}, the run's is {expected}: it belongs to another run; plan the run \
         again in a new directory, or move the folder `checkpoints` away to start from step 0",
        path.display()
    )]
    Foreign { path: PathBuf, what: &'static str, expected: String, found: String },
    #[error(
        "{}: none of the {count} checkpoints is whole (newest: {newest}); restore one from a copy, or move the \
         folder away to start from step 0",
        path.display()
    )]
    NoneWhole { path: PathBuf, count: usize, newest: String },
    #[error("{}: state buffer `{name}` has type {dtype}, which checkpoints do not hold", path.display())]
    DType { path: PathBuf, name: String, dtype: DType },
}

/// A whole checkpoint, its hash compared. Its tensors stay in the file until they are read to where they belong.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub meta: Meta,
    file: File,
    tensors: Metadata,
    /// Where the first tensor's bytes begin.
    start: u64,
}

/// Bytes of state that go through memory of their own at once while a checkpoint is written.
const WRITE_BYTES: usize = 64 << 10;

const MODEL: &str = "model.safetensors";
const META: &str = "meta.json";
/// Names that no reader looks at: half-written and being removed.
const TEMPORARY: &str = ".tmp-";

fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Steps of the checkpoints in `dir`, newest first.
pub fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(FileError::new("list", dir, e).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.at("list", dir)?;
        let file_name = entry.file_name();
        let step = file_name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|s| s.parse().ok());
        if let Some(step) = step {
            found.push((step, entry.path()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Writes a checkpoint into `dir` and removes all but the newest `keep`, once the new one is on the disk.
///
/// `meta.blake3` is filled in here. If anything fails the older checkpoints are as they were.
pub fn save<'a>(
    dir: &Path,
    mut meta: Meta,
    tensors: impl Iterator<Item = Tensor<'a>>,
    keep: usize,
) -> Result<PathBuf, CheckpointError> {
    fs::create_dir_all(dir).at("create", dir)?;
    sweep_temporary(dir)?;
    let path = dir.join(name(meta.step));
    let temporary = dir.join(format!("{TEMPORARY}{}", name(meta.step)));
    let written = (|| {
        fs::create_dir(&temporary).at("create", &temporary)?;
        meta.blake3 = write_tensors(&temporary.join(MODEL), tensors)?.to_hex().to_string();
        let meta_path = temporary.join(META);
        let json = serde_json::to_vec_pretty(&meta)
            .map_err(|e| CheckpointError::Damaged { path: meta_path.clone(), message: e.to_string() })?;
        let mut file = File::create(&meta_path).at("write", &meta_path)?;
        file.write_all(&json).and_then(|()| file.write_all(b"\n")).at("write", &meta_path)?;
        file.sync_all().at("sync", &meta_path)?;
        Ok(sync_dir(&temporary)?)
    })();
    if let Err(e) = written {
        // The error to report is the first one; what is left is swept by the next save.
        let _ = fs::remove_dir_all(&temporary);
        return Err(e);
    }
    if path.exists() {
        // The same step again, after going back to an older checkpoint: equal bytes, or the old one is damaged.
        let old = dir.join(format!("{TEMPORARY}old-{}", name(meta.step)));
        fs::rename(&path, &old).at("rename", &path)?;
    }
    fs::rename(&temporary, &path).at("rename to", &path)?;
    sync_dir(dir)?;
    sweep_temporary(dir)?;
    for (_, old) in list(dir)?.into_iter().filter(|(s, _)| *s <= meta.step).skip(keep.max(1)) {
        // Under a name that nobody reads first: a kill within the removal leaves no half of a checkpoint.
        let gone =
            dir.join(format!("{TEMPORARY}old-{}", old.file_name().unwrap_or_default().to_string_lossy()));
        fs::rename(&old, &gone).at("rename", &old)?;
        fs::remove_dir_all(&gone).at("remove", &gone)?;
    }
    Ok(path)
}

fn sweep_temporary(dir: &Path) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(dir).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_dir_all(entry.path()).at("remove", &entry.path())?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct TensorHeader<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// Writes `tensors` in the safetensors format, sorted by name, and returns the hash of what was to be written: taken
/// before the bytes go to the file, so that it also tells of a file system that changed them.
fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = Tensor<'a>>,
) -> Result<blake3::Hash, CheckpointError> {
    let tensors: BTreeMap<&str, Tensor> = tensors.map(|t| (t.name, t)).collect();
    let mut header = BTreeMap::new();
    let mut end = 0;
    for t in tensors.values() {
        let dtype = match t.dtype {
            DType::F32 => "F32",
            DType::F64 => "F64",
            DType::Bf16 => "BF16",
            DType::I32 => "I32",
            DType::Bool => {
                return Err(CheckpointError::DType {
                    path: path.into(),
                    name: t.name.into(),
                    dtype: t.dtype,
                });
            }
        };
        let start = end;
        end += t.bytes.len();
        header.insert(t.name, TensorHeader { dtype, shape: t.shape, data_offsets: [start, end] });
    }
    let mut json = serde_json::to_vec(&header)
        .map_err(|e| CheckpointError::Damaged { path: path.into(), message: e.to_string() })?;
    json.resize(json.len().next_multiple_of(8), b' ');

    let mut file = BufWriter::with_capacity(WRITE_BYTES, File::create(path).at("write", path)?);
    let mut hasher = blake3::Hasher::new();
    let length = (json.len() as u64).to_le_bytes();
    for bytes in [&length[..], &json[..]].into_iter().chain(tensors.values().map(|t| t.bytes)) {
        for chunk in bytes.chunks(WRITE_BYTES) {
            hasher.update(chunk);
            file.write_all(chunk).at("write", path)?;
        }
    }
    file.flush().at("write", path)?;
    file.get_ref().sync_all().at("sync", path)?;
    Ok(hasher.finalize())
}

/// The newest whole checkpoint in `dir`, or none where there is none at all. Each damaged one that is newer is
/// described in a line of `warnings`.
pub fn load_newest(dir: &Path, warnings: &mut Vec<String>) -> Result<Option<Checkpoint>, CheckpointError> {
    let all = list(dir)?;
    let mut newest = None;
    for (step, path) in &all {
        match open(*step, path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(e) => {
                warnings.push(format!("damaged checkpoint passed over: {e}"));
                newest.get_or_insert_with(|| e.to_string());
            }
        }
    }
    match newest {
        None => Ok(None),
        Some(newest) => Err(CheckpointError::NoneWhole { path: dir.into(), count: all.len(), newest }),
    }
}

fn open(step: u64, path: &Path) -> Result<Checkpoint, CheckpointError> {
    let damaged = |path: &Path, message: String| CheckpointError::Damaged { path: path.into(), message };
    let meta_path = path.join(META);
    let bytes = fs::read(&meta_path).at("read", &meta_path)?;
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|e| damaged(&meta_path, e.to_string()))?;
    if meta.version != VERSION || meta.step != step {
        let found = format!("version {} and step {}", meta.version, meta.step);
        return Err(damaged(&meta_path, format!("says {found}, expected version {VERSION} and step {step}")));
    }
    let model = path.join(MODEL);
    let mut file = File::open(&model).at("open", &model)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).at("read", &model)?;
    let found = hasher.finalize().to_hex().to_string();
    if found != meta.blake3 {
        return Err(damaged(&model, format!("has blake3 {found}, {META} says {}", meta.blake3)));
    }
    file.rewind().at("read", &model)?;
    let (tensors, start) = read_header(&mut file, &model)?;
    Ok(Checkpoint { path: path.into(), meta, file, tensors, start })
}

/// The header of a safetensors file, and where the tensors behind it begin.
fn read_header(file: &mut File, path: &Path) -> Result<(Metadata, u64), CheckpointError> {
    let damaged = |message: String| CheckpointError::Damaged { path: path.into(), message };
    let bytes = file.metadata().at("read", path)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).at("read", path)?;
    let length = u64::from_le_bytes(length);
    if length > bytes.saturating_sub(8) {
        return Err(damaged(format!("has a header of {length} bytes in a file of {bytes}")));
    }
    let mut json = Vec::with_capacity(length as usize);
    file.take(length).read_to_end(&mut json).at("read", path)?;
    let tensors: Metadata = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    let (start, end) = (8 + length, 8 + length + tensors.data_len() as u64);
    if end != bytes {
        return Err(damaged(format!("has {bytes} bytes, its header describes {end}")));
    }
    Ok((tensors, start))
}

impl Checkpoint {
    /// Fails if the checkpoint was made by another model or another configuration.
    pub fn belongs_to(&self, artifact: &str, config: &str) -> Result<(), CheckpointError> {
        let pairs = [
            ("the artifact", artifact, &self.meta.artifact),
            ("the configuration", config, &self.meta.config),
        ];
        for (what, expected, found) in pairs {
            if expected != found {
                return Err(CheckpointError::Foreign {
                    path: self.path.clone(),
                    what,
                    expected: expected.into(),
                    found: found.clone(),
                });
            }
        }
        Ok(())
    }

    /// Reads tensor `name` into `out`, which must have its size.
    pub fn read_into(&self, name: &str, out: &mut [u8]) -> Result<(), CheckpointError> {
        let foreign = |found: String| CheckpointError::Foreign {
            path: self.path.clone(),
            what: "a state buffer",
            expected: format!("`{name}` of {} bytes", out.len()),
            found,
        };
        let (begin, end) = self.tensors.info(name).ok_or_else(|| foreign("missing".into()))?.data_offsets;
        if end - begin != out.len() {
            return Err(foreign(format!("of {} bytes", end - begin)));
        }
        let path = self.path.join(MODEL);
        Ok(self.file.read_exact_at(out, self.start + begin as u64).at("read", &path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(step: u64) -> Meta {
        Meta {
            version: VERSION,
            step,
            tokens: step * 128,
            sequences: step * 4,
            seed: 7,
            artifact: "a".into(),
            config: "c".into(),
            loss_sum: 0.1 + 0.2,
            loss_count: 2,
            metrics_rows: 1,
            train_loss: Some(0.3),
            validation_loss: Some(5.0e-324),
            blake3: String::new(),
        }
    }

    fn write(dir: &Path, step: u64, keep: usize) -> PathBuf {
        let (a, b) = ([step as u8; 24], [9u8; 8]);
        let tensors = [
            Tensor { name: "param.w", dtype: DType::F32, shape: &[2, 3], bytes: &a },
            Tensor { name: "adam_m.w", dtype: DType::F32, shape: &[2], bytes: &b },
        ];
        save(dir, meta(step), tensors.into_iter(), keep).unwrap()
    }

    #[test]
    fn reads_back_exactly_and_equal_states_give_equal_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), 3, 2);
        let first = (fs::read(path.join(MODEL)).unwrap(), fs::read(path.join(META)).unwrap());
        let loaded = load_newest(dir.path(), &mut Vec::new()).unwrap().unwrap();
        assert_eq!(loaded.meta, Meta { blake3: loaded.meta.blake3.clone(), ..meta(3) });
        let mut out = [0; 24];
        loaded.read_into("param.w", &mut out).unwrap();
        assert_eq!(out, [3; 24]);
        assert!(loaded.read_into("param.w", &mut [0; 20]).is_err());
        assert!(loaded.read_into("param.v", &mut [0; 24]).is_err());
        write(dir.path(), 3, 2);
        assert_eq!(first, (fs::read(path.join(MODEL)).unwrap(), fs::read(path.join(META)).unwrap()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn keeps_the_newest_and_passes_over_damaged_ones_by_name() {
        let dir = tempfile::tempdir().unwrap();
        (1..=4).for_each(|step| drop(write(dir.path(), step * 10, 3)));
        let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(s, _)| s).collect();
        assert_eq!(steps, [40, 30, 20]);
        let newest = dir.path().join("step-00000040").join(MODEL);
        let mut bytes = fs::read(&newest).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&newest, bytes).unwrap();
        fs::remove_file(dir.path().join("step-00000030").join(META)).unwrap();
        let mut warnings = Vec::new();
        assert_eq!(load_newest(dir.path(), &mut warnings).unwrap().unwrap().meta.step, 20);
        assert!(warnings[0].contains("step-00000040/model.safetensors"), "{warnings:?}");
        assert!(warnings[1].contains("step-00000030/meta.json"), "{warnings:?}");
        // A damaged newer one must not push whole ones out.
        write(dir.path(), 21, 2);
        assert_eq!(load_newest(dir.path(), &mut Vec::new()).unwrap().unwrap().meta.step, 21);
        let steps: Vec<u64> = list(dir.path()).unwrap().into_iter().map(|(s, _)| s).collect();
        assert_eq!(steps, [40, 30, 21, 20]);
    }

    #[test]
    fn only_damaged_ones_are_an_error_and_none_at_all_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_newest(&dir.path().join("none"), &mut Vec::new()).unwrap().is_none());
        let path = write(dir.path(), 1, 2);
        fs::write(path.join(MODEL), "short").unwrap();
        let message = load_newest(dir.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(message.contains("none of the 1") && message.contains("move the folder away"), "{message}");
    }
}
