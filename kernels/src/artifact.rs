//! A compiled model on disk: a folder named by the hash of its content.
//!
//! ```text
//! <hash>/manifest.json   format version, hash, target, model, and length and blake3 of each other file
//!        programs.json   the programs, launches and buffers
//!        kernels.so      machine code of the generated kernels; absent if no program has any
//! ```
//!
//! Equal input gives byte-identical files. A folder appears by rename, so it is whole or not there, and it is checked
//! whenever it is opened.

use crate::program::Program;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Version of the files' layout; a reader takes its own version only.
pub const FORMAT_VERSION: u32 = 1;

const MANIFEST: &str = "manifest.json";
const PROGRAMS: &str = "programs.json";
const KERNELS: &str = "kernels.so";

/// The machine that code was generated for, in LLVM's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Such as `x86_64-unknown-linux-gnu`.
    pub triple: String,
    /// Such as `znver4` or `x86-64-v3`.
    pub cpu: String,
    /// Such as `+avx2,-avx512f`; may be empty.
    pub features: String,
}

/// Length and content hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub bytes: u64,
    pub blake3: String,
}

impl FileEntry {
    fn of(content: &[u8]) -> FileEntry {
        FileEntry { bytes: content.len() as u64, blake3: blake3::hash(content).to_hex().to_string() }
    }
}

/// What `manifest.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format_version: u32,
    /// 32 hexadecimal digits over programs, machine code, model and target; also the folder's name.
    pub hash: String,
    pub target: Target,
    pub files: BTreeMap<String, FileEntry>,
    /// The model configuration that was compiled.
    pub model: serde_json::Value,
}

/// A compiled model, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    pub manifest: Manifest,
    pub programs: Vec<Program>,
    pub dir: PathBuf,
}

/// Why an artifact cannot be written or opened.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is missing, so {dir} is not a whole artifact; compile it again")]
    Missing { path: PathBuf, dir: PathBuf },
    #[error("{path} has {found} bytes, its manifest says {expected}; delete the folder and compile it again")]
    Length { path: PathBuf, found: u64, expected: u64 },
    #[error("{path} has blake3 {found}, expected {expected}; delete the folder and compile it again")]
    Hash { path: PathBuf, found: String, expected: String },
    #[error("{path} is not what this version reads ({message}); delete the folder and compile it again")]
    Syntax { path: PathBuf, message: String },
    #[error(
        "{path} has format version {found}, this program reads {FORMAT_VERSION}; compile it again with this program"
    )]
    Version { path: PathBuf, found: u64 },
}

impl Artifact {
    /// Writes the artifact to `<parent>/<hash>` and returns it. If a whole one is there already it is kept.
    /// `kernels` is the shared object of the generated kernels, where there are any.
    pub fn write(
        parent: &Path,
        programs: &[Program],
        kernels: Option<&[u8]>,
        model: &serde_json::Value,
        target: &Target,
    ) -> Result<Artifact, ArtifactError> {
        let model = sorted(model);
        let programs_json = to_json(parent, &programs)?;
        let hash = content_hash(&programs_json, kernels, &model, target);
        let dir = parent.join(&hash);
        if let Ok(existing) = Artifact::open(&dir) {
            return Ok(existing);
        }
        let mut files = BTreeMap::from([(PROGRAMS.to_string(), FileEntry::of(&programs_json))]);
        if let Some(kernels) = kernels {
            files.insert(KERNELS.to_string(), FileEntry::of(kernels));
        }
        let manifest =
            Manifest { format_version: FORMAT_VERSION, hash, target: target.clone(), files, model };
        let manifest_json = to_json(parent, &manifest)?;

        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let unique = format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let scratch = parent.join(format!(".{}.{unique}.tmp", manifest.hash));
        fs::create_dir_all(&scratch).map_err(io_error("create", &scratch))?;
        let contents =
            [(PROGRAMS, Some(&programs_json[..])), (KERNELS, kernels), (MANIFEST, Some(&manifest_json[..]))];
        let placed = contents
            .into_iter()
            .filter_map(|(name, content)| content.map(|content| (name, content)))
            .try_for_each(|(name, content)| write_synced(&scratch.join(name), content))
            .and_then(|()| place(&scratch, &dir, &unique));
        if let Err(error) = placed {
            // The reason for the failure matters more than whether the scratch folder could be cleaned up.
            let _ = fs::remove_dir_all(&scratch);
            return Err(error);
        }
        Artifact::open(&dir)
    }

    /// Opens an artifact and checks the length and hash of every file, and the hash of the whole.
    pub fn open(dir: &Path) -> Result<Artifact, ArtifactError> {
        let path = dir.join(MANIFEST);
        let manifest_json = read(&path, dir)?;
        let version: Version = parse(&path, &manifest_json)?;
        if version.format_version != u64::from(FORMAT_VERSION) {
            return Err(ArtifactError::Version { path, found: version.format_version });
        }
        let manifest: Manifest = parse(&path, &manifest_json)?;
        let checked = |name: &str| -> Result<Option<Vec<u8>>, ArtifactError> {
            let Some(expected) = manifest.files.get(name) else { return Ok(None) };
            let path = dir.join(name);
            let content = read(&path, dir)?;
            let found = FileEntry::of(&content);
            if found.bytes != expected.bytes {
                return Err(ArtifactError::Length { path, found: found.bytes, expected: expected.bytes });
            }
            if found.blake3 != expected.blake3 {
                return Err(ArtifactError::Hash {
                    path,
                    found: found.blake3,
                    expected: expected.blake3.clone(),
                });
            }
            Ok(Some(content))
        };
        let programs_json = checked(PROGRAMS)?.ok_or_else(|| ArtifactError::Syntax {
            path: path.clone(),
            message: format!("it does not list {PROGRAMS}"),
        })?;
        let kernels = checked(KERNELS)?;
        let found =
            content_hash(&programs_json, kernels.as_deref(), &sorted(&manifest.model), &manifest.target);
        if found != manifest.hash {
            return Err(ArtifactError::Hash { path, found, expected: manifest.hash });
        }
        let programs = parse(&dir.join(PROGRAMS), &programs_json)?;
        Ok(Artifact { manifest, programs, dir: dir.to_path_buf() })
    }

    /// The shared object of the generated kernels, if there is one.
    pub fn kernels_path(&self) -> Option<PathBuf> {
        self.manifest.files.contains_key(KERNELS).then(|| self.dir.join(KERNELS))
    }

    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|p| p.name == name)
    }
}

#[derive(Deserialize)]
struct Version {
    format_version: u64,
}

/// blake3 over each part with its length, cut to 128 bits.
fn content_hash(
    programs: &[u8],
    kernels: Option<&[u8]>,
    model: &serde_json::Value,
    target: &Target,
) -> String {
    let model = model.to_string();
    let mut hasher = blake3::Hasher::new();
    let parts = [programs, kernels.unwrap_or_default(), model.as_bytes()];
    let names = [&target.triple, &target.cpu, &target.features].map(|s| s.as_bytes());
    for part in parts.into_iter().chain(names) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// The same value with the keys of every object in order, however it was made.
fn sorted(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> = map.iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Renames the finished folder into place. A broken one of the same name is moved out of the way first; if another
/// process has put a whole one there meanwhile, that one stays.
fn place(scratch: &Path, dir: &Path, unique: &str) -> Result<(), ArtifactError> {
    for _ in 0..2 {
        match fs::rename(scratch, dir) {
            Ok(()) => {
                if let Some(parent) = dir.parent() {
                    fs::File::open(parent).and_then(|f| f.sync_all()).map_err(io_error("sync", parent))?;
                }
                return Ok(());
            }
            Err(_) if Artifact::open(dir).is_ok() => {
                return fs::remove_dir_all(scratch).map_err(io_error("remove", scratch));
            }
            Err(_) if dir.exists() => {
                let broken = dir.with_extension(format!("{unique}.broken"));
                fs::rename(dir, &broken).map_err(io_error("move aside the broken", dir))?;
                fs::remove_dir_all(&broken).map_err(io_error("remove", &broken))?;
            }
            Err(source) => return Err(io_error("rename to", dir)(source)),
        }
    }
    fs::rename(scratch, dir).map_err(io_error("rename to", dir))
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), ArtifactError> {
    fs::File::create(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(io_error("write", path))
}

fn read(path: &Path, dir: &Path) -> Result<Vec<u8>, ArtifactError> {
    fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            ArtifactError::Missing { path: path.to_path_buf(), dir: dir.to_path_buf() }
        }
        _ => io_error("read", path)(source),
    })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, ArtifactError> {
    serde_json::from_slice(json)
        .map_err(|error| ArtifactError::Syntax { path: path.to_path_buf(), message: error.to_string() })
}

fn to_json<T: Serialize>(parent: &Path, value: &T) -> Result<Vec<u8>, ArtifactError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|error| ArtifactError::Syntax { path: parent.to_path_buf(), message: error.to_string() })?;
    json.push(b'\n');
    Ok(json)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_path_buf();
    move |source| ArtifactError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::program::{Buffer, Init, Space};

    fn programs() -> Vec<Program> {
        let buffer = Buffer {
            name: "param.w".into(),
            dtype: DType::F32,
            shape: vec![3, 5],
            space: Space::State,
            offset: 0,
            // A value whose shortest decimal form does not read back exactly in a careless parser.
            init: Some(Init::Normal { std: 0.1 + 0.2 }),
        };
        vec![Program {
            name: "train".into(),
            buffers: vec![buffer],
            arena_bytes: 0,
            arena_lower_bound: 0,
            kernels: vec![],
            launches: vec![],
            chains: vec![],
        }]
    }

    fn target() -> Target {
        Target { triple: "x86_64-unknown-linux-gnu".into(), cpu: "x86-64-v3".into(), features: String::new() }
    }

    fn write(parent: &Path, kernels: Option<&[u8]>) -> Artifact {
        let model = serde_json::json!({"n_layers": 2, "d_model": 16, "rms_eps": 1e-6});
        Artifact::write(parent, &programs(), kernels, &model, &target()).unwrap()
    }

    #[test]
    fn reads_back_what_was_written() {
        let parent = tempfile::tempdir().unwrap();
        let artifact = write(parent.path(), Some(b"not really machine code"));
        assert_eq!(artifact.programs, programs());
        assert_eq!(artifact.dir, parent.path().join(&artifact.manifest.hash));
        assert_eq!(Artifact::open(&artifact.dir).unwrap(), artifact);
        assert_eq!(fs::read(artifact.kernels_path().unwrap()).unwrap(), b"not really machine code");
        assert_eq!(write(parent.path(), None).kernels_path(), None);
    }

    #[test]
    fn equal_input_gives_equal_bytes_and_any_difference_another_name() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (write(one.path(), Some(b"code")), write(two.path(), Some(b"code")));
        for name in [MANIFEST, PROGRAMS, KERNELS] {
            assert_eq!(fs::read(a.dir.join(name)).unwrap(), fs::read(b.dir.join(name)).unwrap(), "{name}");
        }
        let model = &a.manifest.model;
        let other_model = serde_json::json!({"n_layers": 3});
        let other_target = Target { cpu: "x86-64-v4".into(), ..target() };
        let others = [
            Artifact::write(one.path(), &programs(), Some(b"codf"), model, &target()),
            Artifact::write(one.path(), &programs(), None, model, &target()),
            Artifact::write(one.path(), &[], Some(b"code"), model, &target()),
            Artifact::write(one.path(), &programs(), Some(b"code"), &other_model, &target()),
            Artifact::write(one.path(), &programs(), Some(b"code"), model, &other_target),
        ];
        for other in others {
            assert_ne!(other.unwrap().manifest.hash, a.manifest.hash);
        }
        assert_eq!(fs::read_dir(one.path()).unwrap().count(), 6, "nothing but artifacts is left behind");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_found() {
        let parent = tempfile::tempdir().unwrap();
        let artifact = write(parent.path(), Some(b"machine code"));
        for name in [MANIFEST, PROGRAMS, KERNELS] {
            let path = artifact.dir.join(name);
            let whole = fs::read(&path).unwrap();
            for at in (0..whole.len()).step_by(7) {
                let mut flipped = whole.clone();
                flipped[at] ^= 1;
                fs::write(&path, &flipped).unwrap();
                let opened = Artifact::open(&artifact.dir);
                // White space of the manifest is the one thing that may differ without changing its meaning.
                match opened {
                    Err(error) => assert!(
                        error.to_string().contains("json") || error.to_string().contains("kernels.so")
                    ),
                    Ok(same) => assert!(name == MANIFEST && same == artifact, "{name} byte {at}"),
                }
                fs::write(&path, &whole[..at]).unwrap();
                assert!(Artifact::open(&artifact.dir).is_err(), "{name} cut to {at} bytes");
            }
            fs::write(&path, &whole).unwrap();
        }
        assert_eq!(Artifact::open(&artifact.dir).unwrap(), artifact);
    }

    #[test]
    fn errors_name_the_file_and_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let artifact = write(parent.path(), Some(b"machine code"));
        let kernels = artifact.dir.join(KERNELS);
        fs::write(&kernels, b"machine cod").unwrap();
        let message = Artifact::open(&artifact.dir).unwrap_err().to_string();
        assert!(message.contains("kernels.so has 11 bytes, its manifest says 12"), "{message}");
        fs::write(&kernels, b"machine kode").unwrap();
        assert!(
            matches!(Artifact::open(&artifact.dir), Err(ArtifactError::Hash { path, .. }) if path == kernels)
        );
        fs::remove_file(&kernels).unwrap();
        assert!(
            matches!(Artifact::open(&artifact.dir), Err(ArtifactError::Missing { path, .. }) if path == kernels)
        );

        // Writing again repairs the folder.
        assert_eq!(write(parent.path(), Some(b"machine code")), artifact);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);

        let manifest = artifact.dir.join(MANIFEST);
        let newer =
            fs::read_to_string(&manifest).unwrap().replace("\"format_version\": 1", "\"format_version\": 2");
        fs::write(&manifest, newer).unwrap();
        assert!(matches!(Artifact::open(&artifact.dir), Err(ArtifactError::Version { found: 2, .. })));
    }
}
