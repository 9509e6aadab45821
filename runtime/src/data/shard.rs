//! Our shard: a 128-byte header, then tokens of one width, little-endian. Made once, never changed.
//!
//! | bytes   | content                                    |
//! |---------|--------------------------------------------|
//! | 0..8    | `isoftok` and a zero byte                  |
//! | 8..12   | version, 1                                 |
//! | 12..16  | bytes of a token: 1, 2 or 4                |
//! | 16..24  | vocab_size                                 |
//! | 24..32  | count of tokens                            |
//! | 32..64  | blake3 of the payload                      |
//! | 64..96  | blake3 of bytes 0..64                      |
//! | 96..128 | zero                                       |

use super::{DataError, TokenWidth};
use crate::rundir::{At, sync_parent, temporary_name};
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub const MAGIC: [u8; 8] = *b"isoftok\0";
pub const VERSION: u32 = 1;
/// Bytes before the first token.
pub const HEADER_BYTES: usize = 128;

/// What the header of a shard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHeader {
    pub width: TokenWidth,
    /// Every token is below this.
    pub vocab_size: u64,
    /// Tokens in the payload.
    pub count: u64,
    /// Of the payload.
    pub blake3: blake3::Hash,
}

impl ShardHeader {
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut h = [0u8; HEADER_BYTES];
        h[..8].copy_from_slice(&MAGIC);
        h[8..12].copy_from_slice(&VERSION.to_le_bytes());
        h[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        h[16..24].copy_from_slice(&self.vocab_size.to_le_bytes());
        h[24..32].copy_from_slice(&self.count.to_le_bytes());
        h[32..64].copy_from_slice(self.blake3.as_bytes());
        let own = blake3::hash(&h[..64]);
        h[64..96].copy_from_slice(own.as_bytes());
        h
    }

    /// Reads the header at the start of `head`, which begins with [`MAGIC`], and checks the length of its file,
    /// `file_bytes`, against it.
    pub fn parse(head: &[u8], file_bytes: u64, path: &Path) -> Result<ShardHeader, DataError> {
        let Some(h) = head.first_chunk::<HEADER_BYTES>() else {
            let expected = HEADER_BYTES as u64;
            return Err(DataError::Truncated { path: path.into(), expected, found: file_bytes });
        };
        let u32_at = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let hash_at = |at: usize| {
            let mut hash = [0; 32];
            hash.copy_from_slice(&h[at..at + 32]);
            blake3::Hash::from_bytes(hash)
        };
        let version = u32_at(8);
        if version != VERSION {
            return Err(DataError::Header {
                path: path.into(),
                what: "the shard version",
                found: version.to_string(),
                expected: VERSION.to_string(),
                advice: "prepare the text again with this isoflop",
            });
        }
        let own = blake3::hash(&h[..64]);
        if own != hash_at(64) || h[96..].iter().any(|b| *b != 0) {
            return Err(DataError::Damaged {
                path: path.into(),
                part: "header",
                expected: hash_at(64).to_hex().to_string(),
                found: own.to_hex().to_string(),
            });
        }
        let width = TokenWidth::from_bytes(u32_at(12)).ok_or_else(|| DataError::Header {
            path: path.into(),
            what: "the token width",
            found: format!("{} bytes", u32_at(12)),
            expected: "1, 2 or 4".into(),
            advice: "prepare the text again",
        })?;
        let header = ShardHeader { width, vocab_size: u64_at(16), count: u64_at(24), blake3: hash_at(32) };
        let expected = header.count.saturating_mul(width as u64).saturating_add(HEADER_BYTES as u64);
        if file_bytes != expected {
            return Err(DataError::Truncated { path: path.into(), expected, found: file_bytes });
        }
        Ok(header)
    }
}

/// Writes one shard under a temporary name and gives it its own in [`ShardWriter::finish`].
pub struct ShardWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    width: TokenWidth,
    vocab_size: usize,
    count: u64,
    bytes: Vec<u8>,
    finished: bool,
}

impl ShardWriter {
    pub fn create(path: &Path, vocab_size: usize) -> Result<ShardWriter, DataError> {
        let temporary = temporary_name(path);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary).at("write", path)?);
        file.write_all(&[0; HEADER_BYTES]).at("write", path)?;
        Ok(ShardWriter {
            path: path.into(),
            temporary,
            file,
            hasher: blake3::Hasher::new(),
            width: TokenWidth::for_vocab(vocab_size),
            vocab_size,
            count: 0,
            bytes: Vec::new(),
            finished: false,
        })
    }

    /// Tokens written so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends tokens; each must be below the vocabulary's size.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        if let Some(at) = tokens.iter().position(|t| *t as usize >= self.vocab_size) {
            return Err(DataError::TokenOutOfRange {
                path: self.path.clone(),
                position: self.count + at as u64,
                token: tokens[at],
                vocab_size: self.vocab_size,
            });
        }
        self.bytes.clear();
        match self.width {
            TokenWidth::U8 => self.bytes.extend(tokens.iter().map(|t| *t as u8)),
            TokenWidth::U16 => self.bytes.extend(tokens.iter().flat_map(|t| (*t as u16).to_le_bytes())),
            TokenWidth::U32 => self.bytes.extend(tokens.iter().flat_map(|t| t.to_le_bytes())),
        }
        self.hasher.update(&self.bytes);
        self.file.write_all(&self.bytes).at("write", &self.path)?;
        self.count += tokens.len() as u64;
        Ok(())
    }

    /// Writes the header, waits for the disk, and gives the file its name.
    pub fn finish(mut self) -> Result<ShardHeader, DataError> {
        let header = ShardHeader {
            width: self.width,
            vocab_size: self.vocab_size as u64,
            count: self.count,
            blake3: self.hasher.finalize(),
        };
        let path = &self.path;
        self.file.flush().at("write", path)?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0)).at("write", path)?;
        file.write_all(&header.to_bytes()).at("write", path)?;
        file.sync_all().at("sync", path)?;
        fs::rename(&self.temporary, path).at("rename to", path)?;
        self.finished = true;
        sync_parent(path)?;
        Ok(header)
    }
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Only a temporary name: if it cannot be removed, nobody reads it.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
