//! Making shards from text: reads plain, .gz and .dz files, splits off validation text, tokenizes, writes a manifest.
//!
//! The text is cut at ends of lines into blocks of at most about 64 KiB (smaller for small inputs, so that both sides
//! get several). A fixed pattern of whole blocks is the validation data, hence no line is in both. The same text,
//! tokenizer and fraction give the same bytes; a folder whose manifest already says so is left as it is.

use super::shard::{ShardHeader, ShardWriter};
use super::tokenize::{Tokenizer, TokenizerIdentity};
use super::{DataError, TokenFile};
use crate::rundir::{At, replace};
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// `manifest.json` of a folder of shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub tokenizer: TokenizerIdentity,
    pub validation_fraction: f64,
    /// Tokens of the largest shard; the last one of each kind may be shorter.
    pub shard_tokens: u64,
    pub train_tokens: u64,
    pub validation_tokens: u64,
    pub sources: Vec<Source>,
    pub train: Vec<ShardEntry>,
    pub validation: Vec<ShardEntry>,
}

impl Manifest {
    /// A name for the tokens of all shards, training and validation apart: equal for equal text, tokenizer and split.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (kind, shards) in [("train", &self.train), ("validation", &self.validation)] {
            hasher.update(kind.as_bytes());
            shards.iter().for_each(|s| {
                hasher.update(s.blake3.as_bytes());
            });
        }
        hasher.finalize().to_hex()[..32].to_string()
    }
}

/// A file the text came from, as it lay on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub path: PathBuf,
    pub bytes: u64,
    pub blake3: String,
}

/// A shard beside the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    pub file: PathBuf,
    pub tokens: u64,
    /// Of the payload, as in the shard's header.
    pub blake3: String,
}

/// What [`prepare`] left in the folder.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub manifest: Manifest,
    /// Full paths, in reading order.
    pub train: Vec<PathBuf>,
    pub validation: Vec<PathBuf>,
    /// False where the folder already held exactly this.
    pub written: bool,
}

/// How far [`prepare`] is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Of the source files as they lie on the disk (compressed where they are).
    pub bytes_read: u64,
    pub bytes_total: u64,
    /// Tokens of both kinds.
    pub tokens: u64,
}

const MANIFEST: &str = "manifest.json";
const MANIFEST_VERSION: u32 = 1;
const SHARD_TOKENS: u64 = 1 << 28;
const MAX_BLOCK: usize = 64 << 10;
const MIN_BLOCK: usize = 256;
const GCIDE: &str = "/usr/share/dictd/gcide.dict.dz";

/// The text used where a sweep names none: the GNU Collaborative International Dictionary of English as Debian packs
/// it, 40 MB of text.
pub fn default_corpus() -> Result<PathBuf, DataError> {
    let path = PathBuf::from(GCIDE);
    if path.is_file() { Ok(path) } else { Err(DataError::NoDefaultCorpus { path }) }
}

/// Makes `train-NNN.tok`, `validation-NNN.tok` and `manifest.json` in `out_dir` from text files; an input that is a
/// folder stands for all files in it and below, sorted, hidden ones left out.
pub fn prepare(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    out_dir: &Path,
    validation_fraction: f64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Prepared, DataError> {
    prepare_sharded(inputs, tokenizer, out_dir, validation_fraction, SHARD_TOKENS, progress)
}

/// [`prepare`] with shards of at most `shard_tokens` tokens.
pub fn prepare_sharded(
    inputs: &[PathBuf],
    tokenizer: &Tokenizer,
    out_dir: &Path,
    validation_fraction: f64,
    shard_tokens: u64,
    progress: &mut dyn FnMut(Progress),
) -> Result<Prepared, DataError> {
    if !(validation_fraction > 0.0 && validation_fraction <= 0.5) {
        return Err(DataError::ValidationFraction { found: validation_fraction });
    }
    let mut paths = Vec::new();
    for input in inputs {
        list(input, &mut paths)?;
    }
    let sources = paths.iter().map(|p| source(p)).collect::<Result<Vec<_>, _>>()?;
    let mut manifest = Manifest {
        version: MANIFEST_VERSION,
        tokenizer: tokenizer.identity(),
        validation_fraction,
        shard_tokens,
        train_tokens: 0,
        validation_tokens: 0,
        sources,
        train: Vec::new(),
        validation: Vec::new(),
    };
    if let Some(old) = matching(out_dir, &manifest) {
        return Ok(prepared(out_dir, old, false));
    }
    fs::create_dir_all(out_dir).at("create", out_dir)?;
    // An interrupted preparation must not leave new shards under an old manifest.
    remove_if_there(&out_dir.join(MANIFEST))?;

    let bytes_total: u64 = manifest.sources.iter().map(|s| s.bytes).sum();
    let block = ((bytes_total as f64 * validation_fraction / 4.0) as usize).clamp(MIN_BLOCK, MAX_BLOCK);
    let mut train = Shards::new(out_dir, "train", tokenizer.vocab_size(), shard_tokens);
    let mut validation = Shards::new(out_dir, "validation", tokenizer.vocab_size(), shard_tokens);
    let (mut text, mut tokens) = (Vec::new(), Vec::new());
    let (mut index, mut bytes_before) = (0u64, 0);
    for source in &manifest.sources {
        let mut reader = open_text(&source.path)?;
        while next_block(&mut reader, block, &mut text).at("read", &source.path)? {
            tokenizer.encode(&text, &source.path, &mut tokens)?;
            let side = if is_validation(index, validation_fraction) { &mut validation } else { &mut train };
            side.push(&tokens)?;
            index += 1;
            let bytes_read = bytes_before + reader.get_ref().bytes_read();
            progress(Progress { bytes_read, bytes_total, tokens: train.tokens + validation.tokens });
        }
        bytes_before += source.bytes;
    }
    (manifest.train_tokens, manifest.validation_tokens) = (train.tokens, validation.tokens);
    manifest.train = train.finish()?;
    manifest.validation = validation.finish()?;
    for (what, tokens) in [("training", manifest.train_tokens), ("validation", manifest.validation_tokens)] {
        if tokens == 0 {
            return Err(DataError::NoText {
                path: inputs.first().cloned().unwrap_or_default(),
                what: if what == "training" { "the training part" } else { "the validation part" },
                advice: "name more text (a few kilobytes at least)",
            });
        }
    }
    let path = out_dir.join(MANIFEST);
    let mut json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| DataError::Manifest { path: path.clone(), message: e.to_string() })?;
    json.push(b'\n');
    replace(&path, &json, true)?;
    Ok(prepared(out_dir, manifest, true))
}

/// Reads the manifest of a folder that [`prepare`] made.
pub fn read_manifest(dir: &Path) -> Result<Prepared, DataError> {
    let path = dir.join(MANIFEST);
    let bytes = fs::read(&path).at("read", &path)?;
    let manifest = serde_json::from_slice(&bytes)
        .map_err(|e| DataError::Manifest { path, message: format!("{e}; prepare the text again") })?;
    Ok(prepared(dir, manifest, false))
}

fn prepared(dir: &Path, manifest: Manifest, written: bool) -> Prepared {
    let full = |entries: &[ShardEntry]| entries.iter().map(|e| dir.join(&e.file)).collect();
    Prepared { train: full(&manifest.train), validation: full(&manifest.validation), manifest, written }
}

/// Block `index` is validation where the line of slope `fraction` through (0, 1/2) crosses a whole number: evenly
/// spread, the first at about half the spacing.
fn is_validation(index: u64, fraction: f64) -> bool {
    let crossed = |i: u64| (i as f64 * fraction + 0.5).floor();
    crossed(index + 1) > crossed(index)
}

/// The manifest in `dir`, where it was made from the same and all its shards are still there.
fn matching(dir: &Path, wanted: &Manifest) -> Option<Manifest> {
    let old: Manifest = serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()?;
    let same = Manifest {
        train_tokens: 0,
        validation_tokens: 0,
        train: Vec::new(),
        validation: Vec::new(),
        ..old.clone()
    };
    let whole = |e: &ShardEntry| {
        TokenFile::open(&dir.join(&e.file)).is_ok_and(|f| {
            f.header().is_some_and(|h| h.blake3.to_hex().as_str() == e.blake3) && f.verify().is_ok()
        })
    };
    (same == *wanted && old.train.iter().chain(&old.validation).all(whole)).then_some(old)
}

fn remove_if_there(path: &Path) -> Result<(), DataError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", path)?,
        _ => Ok(()),
    }
}

fn list(input: &Path, out: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !fs::metadata(input).at("read", input)?.is_dir() {
        out.push(input.into());
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(input).at("list", input)? {
        let entry = entry.at("list", input)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            entries.push(entry.path());
        }
    }
    entries.sort();
    if entries.is_empty() {
        let (what, advice) = ("this folder", "put text files into it or name another");
        return Err(DataError::NoText { path: input.into(), what, advice });
    }
    entries.iter().try_for_each(|e| list(e, out))
}

fn source(path: &Path) -> Result<Source, DataError> {
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut File::open(path).at("open", path)?, &mut hasher).at("read", path)?;
    Ok(Source { path: path.into(), bytes, blake3: hasher.finalize().to_hex().to_string() })
}

/// A text file, unpacked where it starts with the magic of gzip (dictzip is gzip with an index).
enum Text {
    Plain(Counted),
    Gzip(Box<MultiGzDecoder<BufReader<Counted>>>),
}

struct Counted {
    file: File,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

impl Text {
    fn bytes_read(&self) -> u64 {
        match self {
            Text::Plain(counted) => counted.bytes,
            Text::Gzip(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }
}

impl Read for Text {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Text::Plain(counted) => counted.read(buffer),
            Text::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

fn open_text(path: &Path) -> Result<BufReader<Text>, DataError> {
    let mut file = File::open(path).at("open", path)?;
    let mut magic = Vec::new();
    file.by_ref().take(2).read_to_end(&mut magic).at("read", path)?;
    io::Seek::rewind(&mut file).at("read", path)?;
    let counted = Counted { file, bytes: 0 };
    let text = if magic == [0x1f, 0x8b] {
        Text::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 16, counted))))
    } else {
        Text::Plain(counted)
    };
    Ok(BufReader::with_capacity(1 << 18, text))
}

/// Replaces `text` by the next block: `size` bytes and the rest of the line they end in, or, in a line that goes on
/// for as long again, up to the start of a UTF-8 character. False at the end of the file.
fn next_block(reader: &mut impl BufRead, size: usize, text: &mut Vec<u8>) -> io::Result<bool> {
    text.clear();
    reader.by_ref().take(size as u64).read_to_end(text)?;
    if text.len() == size && text.last() != Some(&b'\n') {
        reader.by_ref().take(size as u64).read_until(b'\n', text)?;
        while text.last() != Some(&b'\n') && reader.fill_buf()?.first().is_some_and(|b| b & 0xc0 == 0x80) {
            text.push(reader.fill_buf()?[0]);
            reader.consume(1);
            if text.len() >= 2 * size + 3 {
                break;
            }
        }
    }
    Ok(!text.is_empty())
}

/// The shards of one kind while they are written.
struct Shards<'a> {
    dir: &'a Path,
    kind: &'static str,
    vocab_size: usize,
    shard_tokens: u64,
    tokens: u64,
    current: Option<(PathBuf, ShardWriter)>,
    done: Vec<ShardEntry>,
}

impl<'a> Shards<'a> {
    fn new(dir: &'a Path, kind: &'static str, vocab_size: usize, shard_tokens: u64) -> Shards<'a> {
        Shards { dir, kind, vocab_size, shard_tokens, tokens: 0, current: None, done: Vec::new() }
    }

    fn push(&mut self, mut tokens: &[u32]) -> Result<(), DataError> {
        while !tokens.is_empty() {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => {
                    let file = PathBuf::from(format!("{}-{:03}.tok", self.kind, self.done.len()));
                    let writer = ShardWriter::create(&self.dir.join(&file), self.vocab_size)?;
                    (file, writer)
                }
            };
            let room = (self.shard_tokens - current.1.count()).min(tokens.len() as u64) as usize;
            current.1.push(&tokens[..room])?;
            self.tokens += room as u64;
            tokens = &tokens[room..];
            if current.1.count() == self.shard_tokens {
                self.close(current)?;
            } else {
                self.current = Some(current);
            }
        }
        Ok(())
    }

    fn close(&mut self, (file, writer): (PathBuf, ShardWriter)) -> Result<(), DataError> {
        let ShardHeader { count, blake3, .. } = writer.finish()?;
        self.done.push(ShardEntry { file, tokens: count, blake3: blake3.to_hex().to_string() });
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<ShardEntry>, DataError> {
        if let Some(current) = self.current.take() {
            self.close(current)?;
        }
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_at_lines_and_long_lines_at_characters() {
        let text = "ab\ncdefgh\nijk\n".as_bytes();
        let (mut reader, mut block, mut blocks) = (BufReader::new(text), Vec::new(), Vec::new());
        while next_block(&mut reader, 4, &mut block).unwrap() {
            blocks.push(String::from_utf8(block.clone()).unwrap());
        }
        assert_eq!(blocks, ["ab\ncdefg", "h\nijk\n"]);
        let umlauts = "ä".repeat(40);
        let mut reader = BufReader::new(umlauts.as_bytes());
        let mut total = 0;
        while next_block(&mut reader, 5, &mut block).unwrap() {
            total += std::str::from_utf8(&block).expect("whole characters").len();
        }
        assert_eq!(total, 80);
    }

    #[test]
    fn a_twentieth_is_every_twentieth_block() {
        let chosen: Vec<u64> = (0..60).filter(|i| is_validation(*i, 0.05)).collect();
        assert_eq!(chosen, [9, 29, 49]);
    }
}
