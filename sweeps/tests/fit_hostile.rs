//! Tables that are broken, hostile or meant otherwise: a message with place, found and allowed, and never a panic.

use isoflop_sweeps::fit::input::{ColumnMap, InputError, ReadOptions, read_bytes};
use isoflop_sweeps::fit::{FitOptions, fit_input};
use miette::Diagnostic;
use proptest::prelude::*;

fn refused(bytes: &[u8]) -> InputError {
    match read_bytes("points.csv", bytes, &ReadOptions::default()) {
        Err(error) => error,
        Ok(input) => panic!("{} runs were read of {:?}", input.runs.len(), String::from_utf8_lossy(bytes)),
    }
}

/// The message and its help.
fn message(bytes: impl AsRef<[u8]>) -> String {
    let error = refused(bytes.as_ref());
    let help = error.help().map(|h| format!(" help: {h}")).unwrap_or_default();
    format!("{error}{help}")
}

#[test]
fn files_that_cannot_be_read_say_where_and_why() {
    let cases: [(&[u8], &[&str]); 35] = [
        (b"", &["points.csv", "is empty"]),
        (b"\n \n\n", &["is empty"]),
        (b"\xef\xbb\xbf", &["is empty"]),
        (b"N,D,loss\n", &["has a header but no rows", "`N`, `D`, `loss`"]),
        (b"[]", &["no rows"]),
        (b"N,D,loss\n1e8,2e9,-3\n", &["line 2, column `loss`: found `-3`, expected a loss above 0"]),
        (b"N,D,loss\n1e8,2e9,0\n", &["line 2, column `loss`: found `0`"]),
        (b"N,D,loss\n1e8,2e9,3\n0,2e9,3\n", &["line 3, column `N`: found `0`, expected a number above 0"]),
        (b"N,D,loss\n-1e8,2e9,3\n", &["column `N`: found `-1e8`"]),
        (b"N,D,loss\n1e8,abc,3\n", &["line 2, column `D`: found `abc`"]),
        (b"N,D,loss\n1e8,2e9,3.1 nats\n", &["column `loss`: found `3.1 nats`"]),
        (b"N;D;loss\n1e8;2e9;3,1\n", &["line 2, column `loss`: found `3,1`", "decimals or thousands"]),
        (b"N\tD\tloss\n1,5e8\t2e9\t3.1\n", &["line 2, column `N`: found `1,5e8`", "decimals or thousands"]),
        (b"N,D,loss\n1e8,2e9,3,1\n", &["line 2: found 4 cells where the header has 3", "decimal comma"]),
        (b"N,D,loss\n1e8,2e9,3\n1e8,2e9\n", &["line 3: found 2 cells where the header has 3"]),
        (b"N,D,loss\n1e8,\"2e9,3\n1e8,2e9,3\n", &["line 2: a quote that opens in this row is never closed"]),
        (b"N,D,loss\n1e8,2e9,\"3", &["line 2: a quote"]),
        (b"N,D,loss\n1e8,2e9,3\n1e8,2\xff9,3\n", &["line 3: is not UTF-8"]),
        (b"N,D,D,loss\n1e8,2e9,2e9,3\n", &["has the column `D` twice, as columns 2 and 3"]),
        (b"N,D\n1e8,2e9\n", &["no column for loss was recognised; it has `N`, `D`", "--map loss=COLUMN"]),
        (b"N,loss\n1e8,3\n", &["no column for tokens", "two of params, tokens and flops"]),
        (b"D,loss\n1e8,3\n", &["no column for params"]),
        (b"N,params,D,loss\n1,1,1,3\n", &["`params`, `N` could all be params", "--map params="]),
        (b"N,D,loss,val_loss\n1e8,2e9,3,3\n", &["`loss`, `val_loss` could all be loss", "--map loss=loss"]),
        (b"N,D,a_loss,b_loss\n1e8,2e9,3,3\n", &["`a_loss`, `b_loss` could all be loss"]),
        (b"a;b c\n1;2\n", &["no column for loss", "`a`, `b c`"]),
        (b"\x1f\x8b\x08\x00rest", &["is a gzip file", "gunzip"]),
        (b"PK\x03\x04rest", &["Excel"]),
        (b"PAR1rest", &["Parquet"]),
        (b"\xff\xfeN\x00", &["UTF-16"]),
        (b"N,D\x00,loss\n", &["binary"]),
        (b"{\"N\":1e8,\"D\":2e9,\"loss\":3}\n{\"N\":1e8,\"D\":\n", &["line 2: is no JSON object: EOF"]),
        (b"{\"N\":1e8,\"D\":2e9,\"loss\":3}\n[1,2]\n", &["line 2: is no JSON object", "one object a line"]),
        (b"[{\"N\":1e8,\"D\":2e9,\"loss\":3},\n\n 7]", &["line 3: is no JSON object"]),
        (b"{\"N\":1e8,\"N\":1e8,\"D\":2e9,\"loss\":3}", &["line 1", "the key `N` is there twice"]),
    ];
    for (bytes, words) in cases {
        let found = message(bytes);
        for word in words {
            assert!(found.contains(word), "{:?}\n{found}\n  lacks: {word}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn tables_without_a_row_to_fit_say_why() {
    let found = message("N,D,loss\n1e8,2e9,NaN\n1e8,2e9,\n,,\n");
    assert!(found.contains("none of its 3 rows can be fitted: 1 loss is not a number, 2 no loss"), "{found}");
    let fit = |text: &str| {
        let input = read_bytes("points.csv", text.as_bytes(), &ReadOptions::default()).expect("a table");
        fit_input(&input, &FitOptions::default()).expect_err("too little").to_string()
    };
    assert!(fit("N,D,loss\n1e8,2e9,3\n").contains("no approach can be fitted to these 1 runs"));
    let equal = format!("N,D,loss\n{}", "1e8,2e9,3\n".repeat(9));
    assert!(fit(&equal).contains("all 9 usable runs have the same parameters (100000000) and tokens"));
}

#[test]
fn maps_that_cannot_be_are_refused() {
    for text in ["", "params", "parms=N", "params=", "params=N,params=N", "=N"] {
        let found = ColumnMap::parse([text]).expect_err(text).to_string();
        assert!(
            found.contains("expected ROLE=COLUMN") && found.contains("params, params_non_embedding"),
            "{found}"
        );
    }
    let read = |map: &str| {
        let map = ColumnMap::parse([map]).expect("a map");
        let options = ReadOptions { map, ..Default::default() };
        read_bytes("points.csv", b"size,toks,\"loss, nats\"\n1e8,2e9,3\n", &options)
    };
    assert_eq!(read("params=size,tokens=toks,loss=loss, nats").expect("read").runs[0].params, 1e8);
    let error = read("params=sze,tokens=toks").expect_err("no such column");
    let help = error.help().expect("help").to_string();
    assert!(
        error.to_string().contains("--map params=sze: there is no such column; it has `size`, `toks`"),
        "{error}"
    );
    assert!(help.contains("did you mean `size`?"), "{help}");
}

#[test]
fn flops_that_a_table_cannot_give_are_refused() {
    let convention = Some(isoflop_compiler::count::Convention::Chinchilla);
    let options = ReadOptions { convention, ..Default::default() };
    let error = read_bytes("points.csv", b"N,D,loss\n1e8,2e9,3\n", &options).expect_err("no shapes");
    assert!(
        error.to_string().contains("chinchilla FLOPs cannot be counted from parameters and tokens"),
        "{error}"
    );
    let input = read_bytes("points.csv", b"N,D,C,loss\n1e8,2e9,1e18,3\n", &options).expect("all three");
    assert_eq!(input.runs[0].flops_convention, "chinchilla");
    let error = message("N,D,budget,loss\n1e8,2e9,3,3\n1e8,2e9,4,3\n");
    assert!(error.contains("column `budget` is no budget in FLOPs"), "{error}");
}

#[test]
fn blank_lines_trailing_separators_and_missing_line_ends_do_not_matter() {
    let plain = read_bytes("a", b"N,D,loss\n1e8,2e9,3\n2e8,2e9,2.9\n", &ReadOptions::default()).unwrap();
    for text in [
        "N,D,loss\r\n1e8,2e9,3\r\n2e8,2e9,2.9",
        "\n\nN,D,loss\n\n1e8,2e9,3\n\n2e8,2e9,2.9\n\n",
        "N,D,loss,\n1e8,2e9,3,\n2e8,2e9,2.9,\n",
        "\u{feff}\"N\" , D,loss\n 1e8 ,\t2e9,\"3\"\n2e8,2e9,2.9\n",
        "N|D|loss\n1e8|2e9|3\n2e8|2e9|2.9\n",
    ] {
        let found = read_bytes("a", text.as_bytes(), &ReadOptions::default())
            .unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let values = |i: &isoflop_sweeps::fit::input::Input| {
            i.runs.iter().map(|r| (r.params, r.tokens, r.validation_loss)).collect::<Vec<_>>()
        };
        assert_eq!(values(&found), values(&plain), "{text:?}");
    }
}

const VALID: [&str; 6] = [
    "C,N,D,loss\n1.2e18,1e8,2e9,3.1\n2.4e18,2e8,2e9,3.0\n2.4e18,1e8,4e9,2.95\n",
    "run,state,_step,config.n_params,tokens,loss\na,finished,1,1e8,1e9,3\na,finished,2,1e8,2e9,2.9\nb,crashed,1,2e8,1e9,NaN\n",
    "{\"params\":1e8,\"tokens\":2e9,\"loss\":3,\"config\":{\"seed\":1}}\n{\"params\":1e8,\"tokens\":\"2.5B\",\"loss\":NaN}\n",
    "[{\"N\":1e8,\"D\":2e9,\"loss\":3},\n{\"N\":\"1,234\",\"D\":2e9,\"loss\":2.5}]",
    "id,size,status,params,params_non_embedding,tokens,flops,flops_convention,budget,seed,train_loss,validation_loss,reason\na,1M,finished,1e6,,2e8,1.2e15,6nd,1.2e15,0,3.1,3.2,\n",
    "Model Size (M);tokens (B);\"val loss\"\n44;1.5;3.2\n\"1,117\";2;3.0\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to the bytes of a valid file, it is read or refused; and what is read is fitted or refused.
    #[test]
    fn damaged_files_never_panic(
        file in 0..VALID.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = VALID[file].as_bytes().to_vec();
        for (at, byte, kind) in changes {
            let i = at.index(bytes.len());
            match kind {
                0 => bytes[i] = byte,
                1 => bytes[i] = b"0,.;\"\n{}[]eNM-"[byte as usize % 14],
                2 => { bytes.remove(i); }
                _ => bytes.insert(i, byte),
            }
            if bytes.is_empty() {
                bytes.push(b'\n');
            }
        }
        if let Ok(input) = read_bytes("points.csv", &bytes, &ReadOptions::default()) {
            let rows = input.source.rows.count;
            let runs = input.source.logs.unwrap_or(rows);
            prop_assert_eq!(input.runs.len() + input.source.left_out.count, runs, "a row was lost");
            for run in &input.runs {
                prop_assert!(run.params > 0.0 && run.tokens > 0.0 && run.flops > 0.0 && run.flops.is_finite());
            }
            let _ = fit_input(&input, &FitOptions { bootstrap: 20, ..Default::default() });
        }
    }
}
