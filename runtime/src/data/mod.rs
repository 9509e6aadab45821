//! Token files: our own shards, formats of others read as they are, making shards from text, and drawing batches.

pub mod formats;
pub mod prepare;
pub mod sampler;
pub mod shard;
pub mod tokenize;

pub use formats::{Format, TokenFile};
pub use prepare::{Manifest, Prepared, default_corpus, prepare};
pub use sampler::{Corpus, Sampler, Validation};
pub use tokenize::Tokenizer;

use crate::rundir::FileError;
use std::path::PathBuf;

/// What can be wrong with token files, texts and tokenizers.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{}: not a token file: {found}; readable are isoflop shards (.tok), Megatron .bin beside its .idx, llm.c \
         .bin, and raw little-endian .u16 and .u32 files; make shards from text with `isoflop data prepare`",
        path.display()
    )]
    UnknownFormat { path: PathBuf, found: String },
    #[error("{}: {what} is {found}, expected {expected}; {advice}", path.display())]
    Header { path: PathBuf, what: &'static str, found: String, expected: String, advice: &'static str },
    #[error(
        "{}: {found} bytes where its header promises {expected}: the file was cut or is still being copied; copy \
         it again or prepare it again",
        path.display()
    )]
    Truncated { path: PathBuf, expected: u64, found: u64 },
    #[error(
        "{}: no {needed} bytes at offset {offset}: the file had {expected} bytes when it was opened and has {found} now; \
         stop what writes to it, copy it again, and start the run again",
        path.display()
    )]
    Cut { path: PathBuf, offset: u64, needed: usize, expected: u64, found: u64 },
    #[error(
        "{}: the {part} has blake3 {found}, its header says {expected}: the file has changed since it was written; \
         copy it again or prepare it again",
        path.display()
    )]
    Damaged { path: PathBuf, part: &'static str, expected: String, found: String },
    #[error(
        "{}: token {token} at position {position} is not below vocab_size {vocab_size}; the file was made with \
         another tokenizer: prepare the text again or set vocab_size to match",
        path.display()
    )]
    TokenOutOfRange { path: PathBuf, position: u64, token: u32, vocab_size: usize },
    #[error(
        "{} of {what} data hold {tokens} tokens, but {needed} are needed ({why}); name more text, or make \
         {keys} smaller",
        files(paths)
    )]
    TooShort {
        what: &'static str,
        paths: Vec<PathBuf>,
        tokens: u64,
        needed: u64,
        why: String,
        keys: &'static str,
    },
    #[error("{}: {message}", path.display())]
    Tokenizer { path: PathBuf, message: String },
    #[error("{}: {message}", path.display())]
    Manifest { path: PathBuf, message: String },
    #[error("validation fraction {found} is not allowed; a number above 0 and up to 0.5 is needed")]
    ValidationFraction { found: f64 },
    #[error("{}: no text in {what}; {advice}", path.display())]
    NoText { path: PathBuf, what: &'static str, advice: &'static str },
    #[error(
        "no default corpus: {} is not here; install it with `apt-get install dict-gcide`, or name text files, .gz \
         files or a folder of them",
        path.display()
    )]
    NoDefaultCorpus { path: PathBuf },
}

fn files(paths: &[PathBuf]) -> String {
    match paths {
        [one] => one.display().to_string(),
        [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
        [] => "no files".into(),
    }
}

/// Bytes of one stored token, little-endian without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenWidth {
    U8 = 1,
    U16 = 2,
    U32 = 4,
}

impl TokenWidth {
    /// The narrowest width that holds every token below `vocab_size`.
    pub fn for_vocab(vocab_size: usize) -> TokenWidth {
        match vocab_size {
            0..=0x100 => TokenWidth::U8,
            0x101..=0x1_0000 => TokenWidth::U16,
            _ => TokenWidth::U32,
        }
    }

    pub fn from_bytes(bytes: u32) -> Option<TokenWidth> {
        [TokenWidth::U8, TokenWidth::U16, TokenWidth::U32].into_iter().find(|w| *w as u32 == bytes)
    }

    pub fn bytes(self) -> usize {
        self as usize
    }
}
