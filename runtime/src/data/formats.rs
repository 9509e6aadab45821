//! Token files: our shards, and the files of others read as they are. They are read piece by piece and never mapped: what
//! a run holds does not grow with its data, and a file that is cut meanwhile is an error, not a signal.

use super::shard::{self, HEADER_BYTES, ShardHeader};
use super::{DataError, TokenWidth};
use crate::rundir::At;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How a token file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Ours; see [`super::shard`].
    Shard,
    /// Megatron-LM's indexed dataset: tokens in `X.bin`, their type and document lengths in `X.idx`. Documents are
    /// read one after another; end-of-document tokens are there if the preprocessing put them.
    Megatron,
    /// llm.c: 256 i32 of header (magic, version, count), then u16 (GPT-2) or u32 (Llama 3) tokens.
    LlmC,
    /// Little-endian u16 and nothing else.
    RawU16,
    /// Little-endian u32 and nothing else.
    RawU32,
}

const LLMC_HEADER_BYTES: usize = 1024;
const LLMC_GPT2: u32 = 20240520;
const LLMC_LLAMA3: u32 = 20240801;
const MEGATRON_MAGIC: &[u8; 9] = b"MMIDIDX\0\0";
const MEGATRON_HEADER_BYTES: u64 = 34;

/// One open token file.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    format: Format,
    file: File,
    /// Bytes before the first token.
    offset: usize,
    width: TokenWidth,
    count: u64,
    header: Option<ShardHeader>,
}

impl TokenFile {
    /// Opens `path` and reads its header; the format is told by its content, or by its name for files without a
    /// header. The payload of a shard is not hashed here: see [`TokenFile::verify`].
    pub fn open(path: &Path) -> Result<TokenFile, DataError> {
        let opened = Opened::new(path)?;
        let format = detect(path, &opened.head)?;
        TokenFile::from_opened(path, opened, format)
    }

    /// As [`TokenFile::open`], for a file whose format its content and name do not tell.
    pub fn open_as(path: &Path, format: Format) -> Result<TokenFile, DataError> {
        TokenFile::from_opened(path, Opened::new(path)?, format)
    }

    fn from_opened(path: &Path, opened: Opened, format: Format) -> Result<TokenFile, DataError> {
        let Opened { file, bytes: file_bytes, head } = opened;
        let mut header = None;
        let (offset, width, count) = match format {
            Format::Shard => {
                let h = ShardHeader::parse(&head, file_bytes, path)?;
                header = Some(h);
                (HEADER_BYTES, h.width, h.count)
            }
            Format::LlmC => llmc_header(path, &head)?,
            Format::Megatron => {
                let (width, count) = megatron_index(&path.with_extension("idx"))?;
                (0, width, count)
            }
            Format::RawU16 => (0, TokenWidth::U16, raw_count(path, file_bytes, TokenWidth::U16)?),
            Format::RawU32 => (0, TokenWidth::U32, raw_count(path, file_bytes, TokenWidth::U32)?),
        };
        let expected = count.saturating_mul(width as u64).saturating_add(offset as u64);
        if file_bytes != expected {
            return Err(DataError::Truncated { path: path.into(), expected, found: file_bytes });
        }
        Ok(TokenFile { path: path.into(), format, file, offset, width, count, header })
    }

    /// Compares the payload's hash with the header's, where the format has one. Reads the whole file.
    pub fn verify(&self) -> Result<(), DataError> {
        let Some(header) = &self.header else { return Ok(()) };
        let mut hasher = blake3::Hasher::new();
        (&self.file)
            .seek(SeekFrom::Start(self.offset as u64))
            .and_then(|_| hasher.update_reader(&self.file).map(drop))
            .at("read", &self.path)?;
        let found = hasher.finalize();
        if found == header.blake3 {
            return Ok(());
        }
        Err(DataError::Damaged {
            path: self.path.clone(),
            part: "payload",
            expected: header.blake3.to_hex().to_string(),
            found: found.to_hex().to_string(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Tokens in the file.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn width(&self) -> TokenWidth {
        self.width
    }

    /// The header, where the file is one of our shards.
    pub fn header(&self) -> Option<&ShardHeader> {
        self.header.as_ref()
    }

    /// Copies tokens `at .. at + out.len()` and returns the largest of them, as unsigned.
    ///
    /// The range must lie in the file as it was opened; it is the caller's (a [`super::Corpus`]) to cut it so.
    ///
    /// # Errors
    /// If the file cannot be read, or has been cut since.
    pub(super) fn read(&self, at: u64, out: &mut [i32]) -> Result<u32, DataError> {
        let width = self.width.bytes();
        let mut offset = self.offset as u64 + at * width as u64;
        let mut buffer = [0; READ_BYTES];
        for out in out.chunks_mut(READ_BYTES / width) {
            let bytes = &mut buffer[..out.len() * width];
            self.read_bytes(offset, bytes)?;
            offset += bytes.len() as u64;
            match self.width {
                TokenWidth::U8 => out.iter_mut().zip(&*bytes).for_each(|(o, b)| *o = i32::from(*b)),
                TokenWidth::U16 => out
                    .iter_mut()
                    .zip(bytes.as_chunks::<2>().0)
                    .for_each(|(o, b)| *o = i32::from(u16::from_le_bytes(*b))),
                TokenWidth::U32 => out
                    .iter_mut()
                    .zip(bytes.as_chunks::<4>().0)
                    .for_each(|(o, b)| *o = i32::from_le_bytes(*b)),
            }
        }
        Ok(out.iter().fold(0, |max, t| max.max(*t as u32)))
    }

    fn read_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DataError> {
        let result = self.file.read_exact_at(bytes, offset);
        if let Err(e) = &result
            && e.kind() == io::ErrorKind::UnexpectedEof
        {
            return Err(DataError::Cut {
                path: self.path.clone(),
                offset,
                needed: bytes.len(),
                expected: self.offset as u64 + self.count * self.width as u64,
                found: self.file.metadata().at("read", &self.path)?.len(),
            });
        }
        Ok(result.at("read", &self.path)?)
    }
}

/// Bytes of tokens that are read at once: a window of most models.
const READ_BYTES: usize = 8 << 10;

/// A file with its length and its first bytes, at least as many as any header has where it is that long.
struct Opened {
    file: File,
    bytes: u64,
    head: Vec<u8>,
}

impl Opened {
    fn new(path: &Path) -> Result<Opened, DataError> {
        let file = File::open(path).at("open", path)?;
        let bytes = file.metadata().at("read", path)?.len();
        let mut head = Vec::with_capacity(LLMC_HEADER_BYTES);
        (&file).take(LLMC_HEADER_BYTES as u64).read_to_end(&mut head).at("read", path)?;
        Ok(Opened { file, bytes, head })
    }
}

fn detect(path: &Path, bytes: &[u8]) -> Result<Format, DataError> {
    if bytes.starts_with(&shard::MAGIC) {
        return Ok(Format::Shard);
    }
    if let Some(LLMC_GPT2 | LLMC_LLAMA3) = u32_at(bytes, 0) {
        return Ok(Format::LlmC);
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension {
        "u16" => Ok(Format::RawU16),
        "u32" => Ok(Format::RawU32),
        "bin" if path.with_extension("idx").exists() => Ok(Format::Megatron),
        _ => {
            let start: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            let found = match (extension, bytes.is_empty()) {
                (_, true) => "the file is empty".to_string(),
                ("bin", _) => format!("it starts with {} and has no .idx beside it", start.join(" ")),
                _ => format!("it starts with {}", start.join(" ")),
            };
            Err(DataError::UnknownFormat { path: path.into(), found })
        }
    }
}

fn raw_count(path: &Path, bytes: u64, width: TokenWidth) -> Result<u64, DataError> {
    let width = width as u64;
    if bytes.is_multiple_of(width) {
        return Ok(bytes / width);
    }
    Err(DataError::Header {
        path: path.into(),
        what: "the file's length",
        found: format!("{bytes} bytes"),
        expected: format!("a multiple of {width}"),
        advice: "it was cut, or holds tokens of another width",
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Offset of the tokens, their width and their number.
fn llmc_header(path: &Path, bytes: &[u8]) -> Result<(usize, TokenWidth, u64), DataError> {
    let (Some(magic), Some(version), Some(count)) = (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8))
    else {
        let (expected, found) = (LLMC_HEADER_BYTES as u64, bytes.len() as u64);
        return Err(DataError::Truncated { path: path.into(), expected, found });
    };
    let header = |what, found: u32, expected: &str| DataError::Header {
        path: path.into(),
        what,
        found: found.to_string(),
        expected: expected.into(),
        advice: "make it with llm.c's dev/data scripts of 2024-05 or later",
    };
    let (width, known) = match magic {
        LLMC_GPT2 => (TokenWidth::U16, 1),
        LLMC_LLAMA3 => (TokenWidth::U32, 7),
        _ => return Err(header("the llm.c magic", magic, "20240520 (GPT-2) or 20240801 (Llama 3)")),
    };
    if version != known {
        return Err(header("the llm.c version", version, &known.to_string()));
    }
    Ok((LLMC_HEADER_BYTES, width, u64::from(count)))
}

/// Width and number of the tokens that a Megatron index describes: magic, version (u64), type code (u8), sequences
/// (u64), documents (u64), then lengths (i32 each) and byte offsets (i64 each) of the sequences, then documents.
fn megatron_index(path: &Path) -> Result<(TokenWidth, u64), DataError> {
    let Opened { mut file, bytes: file_bytes, head } = Opened::new(path)?;
    let header = |what, found: String, expected: &str| DataError::Header {
        path: path.into(),
        what,
        found,
        expected: expected.into(),
        advice: "make it again with Megatron-LM's tools/preprocess_data.py",
    };
    if !head.starts_with(MEGATRON_MAGIC) {
        let found: Vec<String> = head.iter().take(9).map(|b| format!("{b:02x}")).collect();
        return Err(header("the Megatron magic", found.join(" "), "4d 4d 49 44 49 44 58 00 00"));
    }
    let truncated = |expected: u64| DataError::Truncated { path: path.into(), expected, found: file_bytes };
    let (Some(version), Some(code), Some(sequences), Some(documents)) =
        (u64_at(&head, 9), head.get(17), u64_at(&head, 18), u64_at(&head, 26))
    else {
        return Err(truncated(MEGATRON_HEADER_BYTES));
    };
    if version != 1 {
        return Err(header("the Megatron index version", version.to_string(), "1"));
    }
    let width = match code {
        1 => TokenWidth::U8,
        4 => TokenWidth::U32,
        8 => TokenWidth::U16,
        _ => {
            let expected = "1 (uint8), 4 (int32) or 8 (uint16)";
            return Err(header("the Megatron type code", code.to_string(), expected));
        }
    };
    let least = sequences
        .saturating_mul(12)
        .saturating_add(documents.saturating_mul(8))
        .saturating_add(MEGATRON_HEADER_BYTES);
    if file_bytes < least {
        return Err(truncated(least));
    }
    // Two places of one file are read in step: lengths and offsets.
    let offsets = File::open(path).at("open", path)?;
    (&file).seek(SeekFrom::Start(MEGATRON_HEADER_BYTES)).at("read", path)?;
    (&offsets).seek(SeekFrom::Start(MEGATRON_HEADER_BYTES + 4 * sequences)).at("read", path)?;
    let (mut lengths, mut offsets) = (BufReader::new(&mut file), BufReader::new(offsets));
    let mut tokens = 0u64;
    for i in 0..sequences {
        let (mut length, mut offset) = ([0; 4], [0; 8]);
        lengths.read_exact(&mut length).and_then(|()| offsets.read_exact(&mut offset)).at("read", path)?;
        let (length, offset) = (u32::from_le_bytes(length), u64::from_le_bytes(offset));
        if offset != tokens * width as u64 || length > i32::MAX as u32 {
            let found = format!("byte {offset} with length {}", length as i32);
            let expected = format!("byte {} right after sequence {}", tokens * width as u64, i as i64 - 1);
            return Err(header("the place of a sequence", found, &expected));
        }
        tokens += u64::from(length);
    }
    Ok((width, tokens))
}
