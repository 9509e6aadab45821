//! Object files to one shared object, through the system's C compiler driver.

use super::MlirError;
use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// The command that links. A driver rather than `ld`: it knows where the C library's import files are.
const LINKER: &str = "cc";

/// Everything that could differ between two runs is left out: no build id, no symbol table with file names, no start files.
const FLAGS: [&str; 9] = [
    "-shared",
    "-nostartfiles",
    "-Wl,--build-id=none",
    "-Wl,--no-undefined",
    "-Wl,--hash-style=gnu",
    "-Wl,--as-needed",
    "-Wl,--strip-all",
    "-Wl,-z,relro,-z,now",
    "-Wl,-z,noexecstack",
];

/// Links `objects` (the bytes of object files, in this order) into the shared object `out`, with the C and maths libraries.
///
/// The result is put in place by a rename, and its bytes depend on the objects alone, not on paths or time. The objects must
/// be for the machine that `cc` links for, which is this one unless `cc` is a cross compiler.
///
/// # Errors
/// `NoLinker` when there is no `cc`, `Link` with its message when it fails (a symbol defined twice or nowhere), `Io` for files.
pub fn link_shared(objects: &[&[u8]], out: &Path) -> Result<(), MlirError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| MlirError::Io { path, source }
    };
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let scratch = tempfile::Builder::new().prefix(".link-").tempdir_in(folder).map_err(io(folder))?;
    let mut names: Vec<OsString> = Vec::with_capacity(objects.len());
    for (index, bytes) in objects.iter().enumerate() {
        let name = format!("{index}.o");
        let path = scratch.path().join(&name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).map_err(io(&path))?;
        names.push(name.into());
    }
    let output = Command::new(LINKER)
        .current_dir(scratch.path())
        .env("LC_ALL", "C")
        .args(FLAGS)
        .args(["-o", "linked.so"])
        .args(&names)
        .arg("-lm")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| match source.kind() {
            ErrorKind::NotFound => MlirError::NoLinker,
            _ => MlirError::Io { path: LINKER.into(), source },
        })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(MlirError::Link { status: output.status.to_string(), stderr });
    }
    std::fs::rename(scratch.path().join("linked.so"), out).map_err(io(out))
}
