//! Token files end to end: making shards, reading them and the files of others, refusing broken ones, drawing batches.

use isoflop_runtime::data::prepare::{prepare_sharded, read_manifest};
use isoflop_runtime::data::shard::{HEADER_BYTES, ShardWriter};
use isoflop_runtime::data::{
    Corpus, DataError, Format, Sampler, TokenFile, Tokenizer, Validation, default_corpus, prepare,
};
use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn shard(path: &Path, vocab_size: usize, tokens: &[u32]) -> PathBuf {
    let mut writer = ShardWriter::create(path, vocab_size).unwrap();
    tokens.chunks(1000).for_each(|c| writer.push(c).unwrap());
    writer.finish().unwrap();
    path.into()
}

/// Tokens and targets.
type Window = (Vec<i32>, Vec<i32>);

/// All whole windows of the files, in order.
fn read_all(paths: &[PathBuf], vocab_size: usize, seq_len: usize) -> Result<Vec<Window>, DataError> {
    let corpus = Corpus::open(paths, vocab_size)?;
    let validation = Validation::new(corpus, usize::MAX, 1, seq_len)?;
    (0..validation.batches())
        .map(|i| {
            let (mut tokens, mut targets) = (vec![0; seq_len], vec![0; seq_len]);
            validation.fill(i, &mut tokens, &mut targets)?;
            Ok((tokens, targets))
        })
        .collect()
}

fn check_counting(path: &Path, count: i32) {
    let windows = read_all(&[path.into()], 1 << 17, 1).unwrap();
    let first: Vec<i32> = windows.iter().map(|w| w.0[0]).collect();
    assert_eq!(first, (0..count - 1).collect::<Vec<_>>(), "{}", path.display());
    assert_eq!(windows.last().unwrap().1, [count - 1]);
}

#[test]
fn every_width_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    for (vocab_size, count, bytes) in
        [(256, 256u32, 1), (257, 257, 2), (65_536, 65_536, 2), (65_537, 65_537, 4)]
    {
        let tokens: Vec<u32> = (0..count).collect();
        let path = shard(&dir.path().join("a.tok"), vocab_size, &tokens);
        assert_eq!(fs::metadata(&path).unwrap().len(), HEADER_BYTES as u64 + u64::from(count) * bytes);
        let file = TokenFile::open(&path).unwrap();
        file.verify().unwrap();
        assert_eq!((file.format(), file.count()), (Format::Shard, u64::from(count)));
        check_counting(&path, count as i32);
    }
    // The last file has 4 bytes a token: more than is read at once.
    let windows = read_all(&[dir.path().join("a.tok")], 65_537, 30_000).unwrap();
    assert_eq!(windows.len(), 2);
    assert_eq!(windows[1], ((30_000..60_000).collect(), (30_001..60_001).collect()));
}

#[test]
fn files_of_others_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let u16s: Vec<u8> = (0..1000u16).flat_map(u16::to_le_bytes).collect();
    let u32s: Vec<u8> = (0..70_000u32).flat_map(u32::to_le_bytes).collect();

    let raw16 = dir.path().join("raw.u16");
    fs::write(&raw16, &u16s).unwrap();
    check_counting(&raw16, 1000);
    let raw32 = dir.path().join("raw.u32");
    fs::write(&raw32, &u32s).unwrap();
    check_counting(&raw32, 70_000);
    let unnamed = dir.path().join("tokens");
    fs::write(&unnamed, &u16s).unwrap();
    assert!(matches!(TokenFile::open(&unnamed), Err(DataError::UnknownFormat { .. })));
    assert_eq!(TokenFile::open_as(&unnamed, Format::RawU16).unwrap().count(), 1000);

    for (magic, version, count, payload) in
        [(20240520i32, 1i32, 1000i32, &u16s), (20240801, 7, 70_000, &u32s)]
    {
        let mut header = [0i32; 256];
        header[..3].copy_from_slice(&[magic, version, count]);
        let mut bytes: Vec<u8> = header.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.extend(payload);
        let path = dir.path().join(format!("llmc-{magic}.bin"));
        fs::write(&path, &bytes).unwrap();
        assert_eq!(TokenFile::open(&path).unwrap().format(), Format::LlmC);
        check_counting(&path, count);
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(TokenFile::open(&path), Err(DataError::Truncated { .. })));
    }

    for (code, width, payload) in [(8u8, 2u64, &u16s), (4, 4, &u32s)] {
        let count = payload.len() as u64 / width;
        let lengths = [400, 0, count as i32 - 400];
        let mut index = b"MMIDIDX\0\0".to_vec();
        index.extend(1u64.to_le_bytes());
        index.push(code);
        index.extend(3u64.to_le_bytes());
        index.extend(4u64.to_le_bytes());
        lengths.iter().for_each(|l| index.extend(l.to_le_bytes()));
        [0, 400 * width, 400 * width].iter().for_each(|p| index.extend((*p as i64).to_le_bytes()));
        [0i64, 1, 2, 3].iter().for_each(|d| index.extend(d.to_le_bytes()));
        let path = dir.path().join(format!("megatron{code}.bin"));
        fs::write(&path, payload).unwrap();
        assert!(matches!(TokenFile::open(&path), Err(DataError::UnknownFormat { .. })), "no index yet");
        fs::write(path.with_extension("idx"), &index).unwrap();
        assert_eq!(TokenFile::open(&path).unwrap().format(), Format::Megatron);
        check_counting(&path, count as i32);
        fs::write(path.with_extension("idx"), &index[..60]).unwrap();
        assert!(matches!(TokenFile::open(&path), Err(DataError::Truncated { .. })));
        index[17] = 6;
        fs::write(path.with_extension("idx"), &index).unwrap();
        let message = TokenFile::open(&path).unwrap_err().to_string();
        assert!(message.contains(".idx: the Megatron type code is 6"), "{message}");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = shard(&dir.path().join("a.tok"), 300, &(0..40).collect::<Vec<_>>());
    let whole = fs::read(&path).unwrap();
    let open = |path: &Path| Corpus::open(&[path.to_path_buf()], 300).map(|_| ());
    open(&path).unwrap();
    for byte in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[byte] ^= 1 << (byte % 8);
        fs::write(&path, &bytes).unwrap();
        let message = open(&path).expect_err(&format!("byte {byte}")).to_string();
        assert!(message.contains("a.tok"), "{message}");
        fs::write(&path, &whole[..byte]).unwrap();
        open(&path).expect_err(&format!("cut to {byte}"));
    }
    let mut bytes = whole.clone();
    bytes[HEADER_BYTES + 3] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, DataError::Damaged { part: "payload", .. }), "{error}");
    assert!(error.to_string().contains("prepare it again"), "{error}");
    fs::write(&path, &whole[..whole.len() - 6]).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, DataError::Truncated { expected: 208, found: 202, .. }), "{error}");
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_named_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = shard(&dir.path().join("a.tok"), 1000, &(0..1000).collect::<Vec<_>>());
    let corpus = Corpus::open(std::slice::from_ref(&path), 1000).unwrap();
    let windows = Validation::new(corpus, usize::MAX, 1, 16).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(128 + 2 * 500).unwrap();
    let (mut tokens, mut targets) = (vec![0; 16], vec![0; 16]);
    windows.fill(30, &mut tokens, &mut targets).unwrap();
    assert_eq!((tokens[0], targets[15]), (480, 496));
    let error = windows.fill(31, &mut tokens, &mut targets).unwrap_err();
    assert!(
        matches!(error, DataError::Cut { offset: 1120, needed: 34, expected: 2128, found: 1128, .. }),
        "{error}"
    );
    let message = error.to_string();
    assert!(message.contains("a.tok: no 34 bytes at offset 1120: the file had 2128 bytes"), "{message}");
}

#[test]
fn an_epoch_has_each_window_once_and_the_next_another_order() {
    let dir = tempfile::tempdir().unwrap();
    // Two files, so that windows lie across their border.
    let paths = [
        shard(&dir.path().join("a.tok"), 1000, &(0..333).collect::<Vec<_>>()),
        shard(&dir.path().join("b.tok"), 1000, &(333..1000).collect::<Vec<_>>()),
    ];
    let (batch, seq_len) = (3, 16);
    let sampler = |seed| Sampler::new(Corpus::open(&paths, 1000).unwrap(), seed, batch, seq_len).unwrap();
    let one = sampler(1);
    assert_eq!(one.windows(), 62);
    assert_eq!(one.epochs(62), 3.0);
    let mut order = Vec::new();
    let (mut tokens, mut targets) = (vec![0; batch * seq_len], vec![0; batch * seq_len]);
    for step in 0..62 {
        one.fill(step, &mut tokens, &mut targets).unwrap();
        for (row, next) in tokens.chunks(seq_len).zip(targets.chunks(seq_len)) {
            assert_eq!(row[0] % seq_len as i32, 0);
            assert!((0..seq_len).all(|i| row[i] == row[0] + i as i32 && next[i] == row[i] + 1));
            order.push(row[0]);
        }
    }
    let epochs: Vec<&[i32]> = order.chunks(62).collect();
    for epoch in &epochs {
        assert_eq!(epoch.iter().collect::<HashSet<_>>().len(), 62);
    }
    assert_ne!(epochs[0], epochs[1]);
    let other: Vec<u64> = (0..62).map(|i| sampler(2).window_of(i)).collect();
    assert_ne!(other, (0..62).map(|i| one.window_of(i)).collect::<Vec<_>>());
    // The batch changes how many sequences a step takes, not which come next.
    let wide = Sampler::new(Corpus::open(&paths, 1000).unwrap(), 1, 31, seq_len).unwrap();
    assert!((0..186).all(|i| wide.window_of(i) == one.window_of(i)));
}

#[test]
fn short_corpora_and_large_tokens_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = shard(&dir.path().join("a.tok"), 1000, &[1, 2, 999, 3]);
    let message = read_all(std::slice::from_ref(&path), 1000, 4).unwrap_err().to_string();
    assert!(message.contains("hold 4 tokens, but 5 are needed"), "{message}");
    let error = Sampler::new(Corpus::open(std::slice::from_ref(&path), 1000).unwrap(), 0, 1, 4).unwrap_err();
    assert!(error.to_string().contains("training"), "{error}");
    let error = read_all(&[path], 500, 3).unwrap_err();
    assert!(
        matches!(error, DataError::TokenOutOfRange { position: 2, token: 999, vocab_size: 500, .. }),
        "{error}"
    );
    let empty = dir.path().join("empty.u16");
    fs::write(&empty, "").unwrap();
    assert!(matches!(read_all(&[empty], 500, 3).unwrap_err(), DataError::TooShort { tokens: 0, .. }));
}

fn lines(n: usize) -> Vec<u8> {
    (0..n)
        .flat_map(|i| format!("line {i} of a text whose lines all differ: {}\n", i * i).into_bytes())
        .collect()
}

fn tokens_of(paths: &[PathBuf]) -> Vec<u8> {
    paths.iter().flat_map(|p| fs::read(p).unwrap()[HEADER_BYTES..].to_vec()).collect()
}

#[test]
fn prepared_text_is_split_by_lines_whole_and_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let texts = dir.path().join("texts");
    fs::create_dir_all(texts.join("sub")).unwrap();
    fs::write(texts.join("b.txt"), lines(3000)).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gz.write_all(b"packed line one\npacked line two\n").unwrap();
    fs::write(texts.join("sub/c.gz"), gz.finish().unwrap()).unwrap();
    fs::write(texts.join(".hidden"), "not read").unwrap();

    let out = dir.path().join("out");
    let run = |out: &Path, fraction| {
        let mut calls = 0;
        let inputs = [texts.clone()];
        let prepared = prepare_sharded(&inputs, &Tokenizer::Bytes, out, fraction, 50_000, &mut |p| {
            assert!(p.bytes_read <= p.bytes_total);
            calls += 1;
        })
        .unwrap();
        (prepared, calls)
    };
    let (first, calls) = run(&out, 0.05);
    assert!(first.written && calls > 20);
    assert_eq!(read_manifest(&out).unwrap().manifest, first.manifest);
    assert!(first.train.len() > 2, "{:?}", first.train);
    let (train, validation) = (tokens_of(&first.train), tokens_of(&first.validation));
    let text = [lines(3000), b"packed line one\npacked line two\n".to_vec()].concat();
    let fraction = validation.len() as f64 / text.len() as f64;
    assert!((0.03..0.07).contains(&fraction), "{fraction}");
    let as_set =
        |bytes: &[u8]| -> HashSet<Vec<u8>> { bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect() };
    let common: Vec<_> = as_set(&train).intersection(&as_set(&validation)).cloned().collect();
    assert_eq!(common, [Vec::<u8>::new()], "only the empty end is in both");
    let union: HashSet<_> = as_set(&train).union(&as_set(&validation)).cloned().collect();
    assert_eq!(union, as_set(&text), "no line is lost or torn");

    assert!(!run(&out, 0.05).0.written, "the same again is not done again");
    let (other, _) = run(&dir.path().join("other"), 0.05);
    for (a, b) in first.train.iter().chain(&first.validation).zip(other.train.iter().chain(&other.validation))
    {
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }
    assert!(run(&out, 0.1).0.written, "another fraction is");
    fs::write(&first.train[1], "broken").unwrap();
    assert!(run(&out, 0.1).0.written, "and so is a broken shard");
    assert_eq!(TokenFile::open(&first.train[1]).unwrap().count(), 50_000);
}

#[test]
fn bad_inputs_of_prepare_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let fail = |input: &Path, fraction| {
        prepare(&[input.to_path_buf()], &Tokenizer::Bytes, &out, fraction, &mut |_| ())
            .unwrap_err()
            .to_string()
    };
    let missing = dir.path().join("none.txt");
    assert!(fail(&missing, 0.05).contains("none.txt"));
    assert!(fail(&missing, 0.0).contains("validation fraction 0"));
    let tiny = dir.path().join("tiny.txt");
    fs::write(&tiny, "a\n").unwrap();
    assert!(fail(&tiny, 0.05).contains("the validation part"));
    let torn = dir.path().join("torn.gz");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    gz.write_all(&lines(5000)).unwrap();
    let bytes = gz.finish().unwrap();
    fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    assert!(fail(&torn, 0.05).contains("torn.gz"));
    assert!(!out.join("manifest.json").exists());
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["train-000.tok"], "the whole shard of the tiny text, no temporary file");
    let message = Tokenizer::from_spec("no/such/tokenizer.json").unwrap_err().to_string();
    assert!(message.contains("no/such/tokenizer.json"), "{message}");
}

#[test]
fn the_default_corpus_is_found_or_the_error_says_how_to_get_it() {
    match default_corpus() {
        Ok(path) => {
            let dir = tempfile::tempdir().unwrap();
            let prepared = prepare(&[path], &Tokenizer::Bytes, dir.path(), 0.05, &mut |_| ()).unwrap();
            let (train, validation) = (prepared.manifest.train_tokens, prepared.manifest.validation_tokens);
            assert!(train + validation > 30_000_000, "{train} + {validation}");
            let share = validation as f64 / (train + validation) as f64;
            assert!((0.049..0.051).contains(&share), "{share}");
        }
        Err(e) => assert!(e.to_string().contains("apt-get install dict-gcide"), "{e}"),
    }
}

#[cfg(feature = "hf-tokenizers")]
#[test]
fn a_tokenizer_json_gives_its_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"[UNK]":0,"heat":3,"is":1,"motion":700},"unk_token":"[UNK]"}}"#;
    fs::write(&path, json).unwrap();
    let tokenizer = Tokenizer::from_spec(path.to_str().unwrap()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 701);
    let mut tokens = Vec::new();
    tokenizer.encode(b"heat is motion is what", Path::new("x"), &mut tokens).unwrap();
    assert_eq!(tokens, [3, 1, 700, 1, 0]);
    fs::write(&path, "{}").unwrap();
    let message = Tokenizer::from_spec(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(message.contains("not a tokenizer.json"), "{message}");
}
