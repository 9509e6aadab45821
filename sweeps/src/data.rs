//! The token files that a sweep's `[data]` names.

use crate::file::DataSpec;
use isoflop_runtime::config::DataConfig;
use isoflop_runtime::data::DataError;
use isoflop_runtime::data::prepare::read_manifest;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error("the sweep has no [data] table; running it needs one: [data]\ntrain = \"corpus/gcide\"")]
    NoData,
    #[error(
        "`data.train` names {}, which is not there{advice}",
        path.display()
    )]
    Missing { path: PathBuf, advice: String },
    #[error(
        "`data.train` is the token file {}, so `data.validation` must name another; a folder made by `isoflop data \
         prepare` brings both",
        path.display()
    )]
    NoValidation { path: PathBuf },
    #[error(
        "`data.validation` has no use with the folder {}: it brings its own validation files; leave one of the two out",
        path.display()
    )]
    TwoValidations { path: PathBuf },
    #[error(
        "{} was prepared with {found} token ids, but the sweep's smallest vocab_size is {allowed}: prepare the text \
         with a tokenizer that fits, or raise [family] vocab_size",
        path.display()
    )]
    Vocabulary { path: PathBuf, found: u64, allowed: usize },
    #[error(
        "{} was prepared with the tokenizer `{found}`, but `data.tokenizer` is `{wanted}`: prepare the text again with \
         `isoflop data prepare --tokenizer {wanted}`, or correct the sweep",
        path.display()
    )]
    Tokenizer { path: PathBuf, found: String, wanted: String },
    #[error("cannot find {}: {source}", path.display())]
    Path { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Full paths of the training and validation files. `vocab_size` is the smallest of the sweep. Prepares nothing.
///
/// # Errors
/// When a file is missing or the folder does not fit the sweep; the message names the command that helps.
pub fn resolve(
    spec: Option<&DataSpec>,
    validation_sequences: usize,
    vocab_size: usize,
) -> Result<DataConfig, CorpusError> {
    let spec = spec.ok_or(CorpusError::NoData)?;
    let path = &spec.train;
    if !path.exists() {
        let out = path.display();
        let advice = format!(
            "; make it with `isoflop data prepare --out {out} TEXT...`, or `isoflop data prepare --source gcide --out \
             {out}` for the dictionary of Debian's package dict-gcide (paths are from the working directory)"
        );
        return Err(CorpusError::Missing { path: path.clone(), advice });
    }
    let mut fingerprint = None;
    let (train, validation) = if path.is_dir() {
        if spec.validation.is_some() {
            return Err(CorpusError::TwoValidations { path: path.clone() });
        }
        let prepared = read_manifest(path)?;
        let name = &prepared.manifest.tokenizer.name;
        if let Some(wanted) = spec.tokenizer.as_ref().filter(|t| t.file_name() != Path::new(name).file_name())
        {
            let (found, wanted) = (name.clone(), wanted.display().to_string());
            return Err(CorpusError::Tokenizer { path: path.clone(), found, wanted });
        }
        let found = prepared.manifest.tokenizer.vocab_size as u64;
        if found > vocab_size as u64 {
            return Err(CorpusError::Vocabulary { path: path.clone(), found, allowed: vocab_size });
        }
        fingerprint = Some(prepared.manifest.fingerprint());
        (prepared.train, prepared.validation)
    } else {
        let validation =
            spec.validation.clone().ok_or_else(|| CorpusError::NoValidation { path: path.clone() })?;
        (vec![path.clone()], vec![validation])
    };
    let full = |paths: Vec<PathBuf>| paths.iter().map(|p| absolute(p)).collect::<Result<Vec<_>, _>>();
    Ok(DataConfig { train: full(train)?, validation: full(validation)?, validation_sequences, fingerprint })
}

fn absolute(path: &Path) -> Result<PathBuf, CorpusError> {
    path.canonicalize().map_err(|source| CorpusError::Path { path: path.to_owned(), source })
}
