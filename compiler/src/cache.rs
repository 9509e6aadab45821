//! Objects of kernels on disk, PTX where they are for a GPU, one file for each, named by everything its bytes depend on.

use crate::driver::CompileError;
use crate::mlir::{self, Emit, Target};
use std::path::{Path, PathBuf};

/// Length of the checksum that stands before an object's bytes.
const CHECKSUM: usize = blake3::OUT_LEN;

pub struct ObjectCache {
    folder: PathBuf,
    target: Target,
    emit: Emit,
}

impl ObjectCache {
    /// A cache in this folder, which is made if missing.
    pub fn open(folder: &Path, target: &Target) -> Result<ObjectCache, CompileError> {
        std::fs::create_dir_all(folder).map_err(|source| CompileError::Io {
            action: "create",
            path: folder.to_path_buf(),
            source,
        })?;
        let emit = if target.is_cuda() { Emit::Asm } else { Emit::Object };
        Ok(ObjectCache { folder: folder.to_path_buf(), target: target.clone(), emit })
    }

    /// The object of each text, in order, and how many had to be compiled.
    pub fn objects(&self, texts: &[String], threads: usize) -> Result<(Vec<Vec<u8>>, usize), CompileError> {
        let paths: Vec<PathBuf> = texts.iter().map(|t| self.path(t)).collect();
        let mut objects: Vec<Option<Vec<u8>>> = paths.iter().map(|p| read_checked(p)).collect();
        let missing: Vec<usize> = (0..texts.len()).filter(|&i| objects[i].is_none()).collect();
        let to_compile: Vec<&str> = missing.iter().map(|&i| texts[i].as_str()).collect();
        let compiled = mlir::compile_all(&to_compile, &self.target, self.emit, threads);
        for (&i, output) in missing.iter().zip(compiled) {
            let bytes = output?.bytes;
            // A cache that cannot be written costs time, not results.
            let _ = write_checked(&self.folder, &paths[i], &bytes);
            objects[i] = Some(bytes);
        }
        Ok((objects.into_iter().flatten().collect(), missing.len()))
    }

    fn path(&self, text: &str) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for part in [text, &format!("{:?}", self.target), &mlir::version()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let end = if self.emit == Emit::Object { "o" } else { "ptx" };
        self.folder.join(format!("{}.{end}", hasher.finalize().to_hex()))
    }
}

/// The object, if the file is whole.
fn read_checked(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    if bytes.len() < CHECKSUM {
        return None;
    }
    let object = bytes.split_off(CHECKSUM);
    (blake3::hash(&object).as_bytes()[..] == bytes[..]).then_some(object)
}

fn write_checked(folder: &Path, path: &Path, object: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(blake3::hash(object).as_bytes())?;
    file.write_all(object)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_object_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.o");
        write_checked(folder.path(), &path, b"object").unwrap();
        assert_eq!(read_checked(&path).as_deref(), Some(&b"object"[..]));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read_checked(&path), None);
    }
}
