//! What the fuzz targets do with bytes: read them as one kind of file. Errors are answers; panics are not.

use isoflop_compiler::text::{parse_all, print};
use isoflop_kernels::artifact::{Artifact, FORMAT_VERSION, Manifest, Target};
use isoflop_kernels::program::{Program, Space};
use isoflop_runtime::data::shard::{HEADER_BYTES, MAGIC, ShardHeader};
use isoflop_runtime::data::{Corpus, Format, Sampler, TokenFile};
use isoflop_runtime::exec::Executor;
use isoflop_sweeps::fit::input::{ReadOptions, read_bytes};
use isoflop_sweeps::fit::{FitOptions, fit_input};
use std::collections::BTreeMap;
use std::path::Path;

/// Programs that ask for more memory are not loaded, as there may be too little.
const MOST_BYTES: u128 = 1 << 20;
/// Nor are such as ask for more than the address space has passed over: those must be refused.
const ALL_BYTES: u128 = 1 << 64;

/// What parses prints to text that parses and prints to itself.
pub fn graph_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for g in parse_all(text, "fuzz").unwrap_or_default() {
        let printed = print(&g);
        match parse_all(&printed, "printed").as_deref() {
            Ok([again]) => assert_eq!(print(again), printed),
            other => panic!("what was printed does not parse: {other:?}\n{printed}"),
        }
    }
}

/// A sweep file is read or refused.
pub fn sweep_file(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = isoflop_sweeps::file::parse(Path::new("fuzz.toml"), text);
    }
}

/// A table of runs is read or refused; what is read keeps every row, and is fitted or refused.
pub fn runs_table(bytes: &[u8]) {
    let Ok(input) = read_bytes("fuzz.csv", bytes, &ReadOptions::default()) else { return };
    let runs = input.source.logs.unwrap_or(input.source.rows.count);
    assert_eq!(input.runs.len() + input.source.left_out.count, runs, "a row was lost");
    let _ = fit_input(&input, &FitOptions { bootstrap: 0, ..FitOptions::default() });
}

/// The length of the manifest in four bytes, then the manifest and the programs of an artifact. They are opened as they
/// are; and where the programs can be read, they are loaded as if the manifest were theirs.
pub fn artifact(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return };
    let (manifest, programs) = rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()));
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in [("manifest.json", manifest), ("programs.json", programs)] {
        std::fs::write(folder.path().join(name), content).expect("a file in a temporary folder");
    }
    let _ = Artifact::open(folder.path());
    let Ok(programs) = serde_json::from_slice::<Vec<Program>>(programs) else { return };
    let written = serde_json::to_vec(&programs).expect("JSON");
    assert_eq!(serde_json::from_slice::<Vec<Program>>(&written).expect("what was written"), programs);
    let bytes: u128 = programs.iter().map(bytes_of).fold(0, u128::saturating_add);
    if !(MOST_BYTES..ALL_BYTES).contains(&bytes) {
        let target = Target { triple: String::new(), cpu: String::new(), features: String::new() };
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            hash: String::new(),
            target,
            files: BTreeMap::new(),
            model: serde_json::Value::Null,
        };
        let loaded = Executor::load(&Artifact { manifest, programs, dir: folder.path().into() }, 1);
        assert!(loaded.is_err() || bytes < MOST_BYTES, "{bytes} bytes cannot be there");
    }
}

/// Bytes that a program asks for, without the rounding to places.
fn bytes_of(program: &Program) -> u128 {
    let of = |shape: &[usize]| shape.iter().fold(1u128, |n, &e| n.saturating_mul(e as u128));
    let buffers = program.buffers.iter().filter(|b| b.space != Space::Arena);
    let each = buffers.map(|b| of(&b.shape).saturating_mul(b.dtype.bytes() as u128));
    each.fold(u128::from(program.arena_bytes), u128::saturating_add)
}

/// A file of tokens, which is its own index too: where one of the formats fits, a batch is drawn from it. The hashes of
/// our own shards are made right, so that what they guard is looked at.
pub fn shard(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let _ = ShardHeader::parse(&bytes, bytes.len() as u64, Path::new("fuzz.tok"));
    if bytes.starts_with(&MAGIC) && bytes.len() >= HEADER_BYTES {
        let payload = blake3::hash(&bytes[HEADER_BYTES..]);
        bytes[32..64].copy_from_slice(payload.as_bytes());
        let header = blake3::hash(&bytes[..64]);
        bytes[64..96].copy_from_slice(header.as_bytes());
        if let Ok(header) = ShardHeader::parse(&bytes, bytes.len() as u64, Path::new("fuzz.tok")) {
            assert_eq!(header.to_bytes(), bytes[..HEADER_BYTES]);
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [path, index] = ["fuzz.bin", "fuzz.idx"].map(|name| folder.path().join(name));
    for file in [&path, &index] {
        std::fs::write(file, &bytes).expect("a file in a temporary folder");
    }
    for format in [Format::Shard, Format::Megatron, Format::LlmC, Format::RawU16, Format::RawU32] {
        let _ = TokenFile::open_as(&path, format);
    }
    let Ok(corpus) = Corpus::open(&[path], 1 << 16) else { return };
    let (batch, seq_len) = (2, 3);
    if let Ok(sampler) = Sampler::new(corpus, 1, batch, seq_len) {
        let (mut tokens, mut targets) = (vec![0; batch * seq_len], vec![0; batch * seq_len]);
        if sampler.fill(7, &mut tokens, &mut targets).is_ok() {
            assert!(tokens.iter().chain(&targets).all(|t| (0..1 << 16).contains(t)));
        }
    }
}
