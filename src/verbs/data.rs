//! `isoflop data`: token files from text.

use crate::output;
use clap::{Subcommand, ValueEnum, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};
use isoflop_runtime::data::{Tokenizer, default_corpus, prepare};
use miette::{IntoDiagnostic, miette};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Data {
    /// Make shards of tokens and a manifest from text files
    Prepare(Args),
}

/// Texts that are found without naming a file.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// The dictionary of Debian's package dict-gcide, 40 MB
    Gcide,
}

#[derive(clap::Args)]
#[command(after_help = "Examples:
  isoflop data prepare --source gcide --out corpus/gcide
  isoflop data prepare --tokenizer tokenizer.json --out corpus/books books/*.txt.gz

A folder that already holds the same text prepared in the same way is left as it is.")]
pub struct Args {
    /// Text files, plain, .gz or .dz; a folder stands for all files in it
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "source", conflicts_with = "source")]
    text: Vec<PathBuf>,
    /// A text that needs no file name
    #[arg(long)]
    source: Option<Source>,
    /// Folder for the shards and manifest.json
    #[arg(long, value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// `bytes`, or a tokenizer.json
    #[arg(long, default_value = "bytes", value_hint = ValueHint::FilePath)]
    tokenizer: String,
    /// Share of the text kept for validation
    #[arg(long, default_value_t = 0.01)]
    validation: f64,
}

pub fn run(data: &Data) -> miette::Result<ExitCode> {
    let Data::Prepare(args) = data;
    let text = match args.source {
        Some(Source::Gcide) => vec![default_corpus().map_err(|e| miette!("{e}"))?],
        None => args.text.clone(),
    };
    let tokenizer = Tokenizer::from_spec(&args.tokenizer).map_err(|e| miette!("{e}"))?;
    let bar = ProgressBar::new(0);
    let style = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    bar.set_style(ProgressStyle::with_template(style).into_diagnostic()?);
    let prepared = prepare(&text, &tokenizer, &args.out, args.validation, &mut |p| {
        bar.set_length(p.bytes_total);
        bar.set_position(p.bytes_read);
        bar.set_message(format!("{} tokens", p.tokens));
    });
    bar.finish_and_clear();
    let prepared = prepared.map_err(|e| miette!("{e}"))?;
    output::line(&format!(
        "{}: {} training and {} validation tokens ({}){}",
        args.out.display(),
        prepared.manifest.train_tokens,
        prepared.manifest.validation_tokens,
        prepared.manifest.tokenizer.name,
        if prepared.written { "" } else { ", already there" }
    ))?;
    Ok(ExitCode::SUCCESS)
}
