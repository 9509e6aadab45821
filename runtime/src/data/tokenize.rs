//! From text to tokens: bytes, or a Hugging Face `tokenizer.json`.

use super::DataError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Turns text into tokens.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// Every byte is a token: vocab_size 256.
    Bytes,
    /// A `tokenizer.json`, without the special tokens that its post-processor would add.
    #[cfg(feature = "hf-tokenizers")]
    HuggingFace { tokenizer: Box<tokenizers::Tokenizer>, identity: TokenizerIdentity },
}

/// What a manifest keeps of a tokenizer: enough to tell whether two are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerIdentity {
    /// `bytes` or the file's name.
    pub name: String,
    /// Of the `tokenizer.json`; none for bytes.
    pub blake3: Option<String>,
    /// Every token is below this.
    pub vocab_size: usize,
}

impl Tokenizer {
    /// `bytes`, or the path of a `tokenizer.json`.
    pub fn from_spec(spec: &str) -> Result<Tokenizer, DataError> {
        match spec {
            "bytes" => Ok(Tokenizer::Bytes),
            _ => open(Path::new(spec)),
        }
    }

    pub fn identity(&self) -> TokenizerIdentity {
        match self {
            Tokenizer::Bytes => TokenizerIdentity { name: "bytes".into(), blake3: None, vocab_size: 256 },
            #[cfg(feature = "hf-tokenizers")]
            Tokenizer::HuggingFace { identity, .. } => identity.clone(),
        }
    }

    pub fn vocab_size(&self) -> usize {
        self.identity().vocab_size
    }

    /// Replaces `tokens` by those of `text`. `source` is named in errors. Bytes that are not UTF-8 become U+FFFD for
    /// tokenizers of text.
    pub fn encode(&self, text: &[u8], source: &Path, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        tokens.clear();
        match self {
            Tokenizer::Bytes => tokens.extend(text.iter().map(|b| u32::from(*b))),
            #[cfg(feature = "hf-tokenizers")]
            Tokenizer::HuggingFace { tokenizer, .. } => {
                let encoding = tokenizer.encode_fast(String::from_utf8_lossy(text), false).map_err(|e| {
                    DataError::Tokenizer { path: source.into(), message: format!("cannot tokenize: {e}") }
                })?;
                tokens.extend_from_slice(encoding.get_ids());
            }
        }
        #[cfg(not(feature = "hf-tokenizers"))]
        let _ = source;
        Ok(())
    }
}

#[cfg(feature = "hf-tokenizers")]
fn open(path: &Path) -> Result<Tokenizer, DataError> {
    use crate::rundir::At;
    let bytes = std::fs::read(path).at("read", path)?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| DataError::Tokenizer {
        path: path.into(),
        message: format!("not a tokenizer.json: {e}; allowed are `bytes` or the path of such a file"),
    })?;
    // Text is cut in blocks before it comes here: a limit of length or padding would lose or invent tokens.
    tokenizer.with_padding(None);
    if let Err(e) = tokenizer.with_truncation(None) {
        return Err(DataError::Tokenizer { path: path.into(), message: e.to_string() });
    }
    // Ids may have holes: the size is the largest id and one, not the number of entries.
    let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |max| *max as usize + 1);
    let identity = TokenizerIdentity {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        blake3: Some(blake3::hash(&bytes).to_hex().to_string()),
        vocab_size,
    };
    Ok(Tokenizer::HuggingFace { tokenizer: Box::new(tokenizer), identity })
}

#[cfg(not(feature = "hf-tokenizers"))]
fn open(path: &Path) -> Result<Tokenizer, DataError> {
    Err(DataError::Tokenizer {
        path: path.into(),
        message:
            "this build knows only the tokenizer `bytes`; build with the feature `hf-tokenizers` to read a \
                  tokenizer.json, or prepare the shards with a full isoflop"
                .into(),
    })
}
