//! Every file of tests/bad_toml is refused with the message beside it. `BLESS=1` rewrites the messages.

use miette::Diagnostic;
use std::fmt::Write;
use std::path::Path;

/// The message, its key and its help, as a person sees them.
fn refusal(path: &Path, text: &str) -> String {
    let name = path.file_name().expect("a file has a name");
    match isoflop_sweeps::file::parse(Path::new(name), text) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(e) => {
            let mut out = format!("{e}\nkey: {}\n", e.key);
            if let Some(help) = e.help() {
                writeln!(out, "help: {help}").expect("writing to a string");
            }
            out
        }
    }
}

#[test]
fn bad_files_are_refused_with_the_message_beside_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_toml");
    let bless = std::env::var_os("BLESS").is_some();
    let mut cases = 0;
    let mut wrong = String::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of cases") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        cases += 1;
        let found = refusal(&path, &std::fs::read_to_string(&path).expect("a case"));
        let expected_path = path.with_extension("expected");
        if bless {
            std::fs::write(&expected_path, &found).expect("writing the expectation");
            continue;
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected {
            writeln!(wrong, "--- {}\nexpected:\n{expected}found:\n{found}", path.display())
                .expect("a string");
        }
    }
    assert!(cases >= 25, "only {cases} cases in {}", folder.display());
    assert!(wrong.is_empty(), "BLESS=1 rewrites the expectations if these are right:\n{wrong}");
}
