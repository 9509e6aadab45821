//! Where NVIDIA's compilers are: the folder that `ISOFLOP_CUDA_HOME` names, or `third_party/cuda` of the sources.

use std::path::{Path, PathBuf};

/// Names the folder that holds NVIDIA's compilers: pip's wheels unpacked, or a CUDA installation.
pub const VARIABLE: &str = "ISOFLOP_CUDA_HOME";
/// Where scripts/setup.sh puts them.
const DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../third_party/cuda");
/// Folders of libraries and programs, in wheels and in installations.
const FOLDERS: [&str; 5] = ["nvidia/cu13/lib", "nvidia/cu13/bin", "lib64", "lib", "bin"];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no {file} in {}; scripts/setup.sh fetches it, or set {VARIABLE} to a folder of CUDA 13 that has it",
    .home.display()
)]
pub struct Missing {
    file: String,
    home: PathBuf,
}

/// The path of a library or program, for example `libnvrtc.so.13`, `ptxas` or `nvdisasm`.
pub fn find(file: &str) -> Result<PathBuf, Missing> {
    let home = std::env::var_os(VARIABLE).filter(|v| !v.is_empty());
    find_in(home.as_deref().map_or(Path::new(DEFAULT), Path::new), file)
}

fn find_in(home: &Path, file: &str) -> Result<PathBuf, Missing> {
    let candidates = FOLDERS.iter().map(|folder| home.join(folder).join(file));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Missing { file: file.to_string(), home: home.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_and_installations_are_searched_and_absence_is_one_sentence() {
        let home = tempfile::tempdir().expect("a folder");
        for (folder, file) in [("nvidia/cu13/lib", "liba.so.13"), ("bin", "b")] {
            std::fs::create_dir_all(home.path().join(folder)).expect("a folder");
            std::fs::write(home.path().join(folder).join(file), "").expect("a file");
            assert_eq!(find_in(home.path(), file), Ok(home.path().join(folder).join(file)));
        }
        let missing = find_in(home.path(), "ptxas").expect_err("not there").to_string();
        assert!(missing.starts_with("no ptxas in ") && missing.contains("scripts/setup.sh"), "{missing}");
    }
}
