//! The sweep that proposed runs are planned by: a sweep file whose runs are replaced, or usual values for a family.

use super::error::ProposeError;
use crate::family::FamilyName;
use crate::file::{self, BatchSpec, LrSpec, ReadError};
use crate::fit::ParamCount;
use crate::plan::PlannedRun;
use isoflop_compiler::config::ModelConfig;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Everything of a sweep file but its runs.
#[derive(Debug, Clone)]
pub struct Template {
    path: PathBuf,
    table: Table,
    /// Whose shapes may be added; none where only the sizes of the file can be trained.
    pub(super) family: Option<FamilyName>,
    /// The only sizes that can be trained, where rates or batches are given size by size.
    sizes: Option<Vec<String>>,
    /// Whether training and data are a user's own.
    pub(super) own: bool,
}

/// A run of the written sweep.
pub(super) struct Entry {
    pub size: String,
    /// Tokens as asked for, before they are rounded to whole steps.
    pub tokens: f64,
    /// FLOPs of one seed.
    pub flops: f64,
    pub seeds: Vec<u64>,
}

impl Template {
    /// Training, data and family of a sweep file. Shapes of its family are added to its sizes unless its rates or batches are
    /// given size by size.
    ///
    /// # Errors
    /// When the file cannot be read or is no sweep.
    pub fn read(path: &Path) -> Result<Template, ProposeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ReadError::File { file: path.to_owned(), source })?;
        let sweep = file::parse(path, &text).map_err(ReadError::from)?;
        let by_size = matches!(sweep.train.lr, LrSpec::PerSize(_))
            || matches!(sweep.train.batch, BatchSpec::PerSize(_));
        let table: Table = toml::from_str(&text)
            .map_err(|e| ProposeError::Base { path: path.to_owned(), message: e.to_string() })?;
        let name = table.get("family").and_then(|f| f.get("name")).and_then(Value::as_str);
        let family = FamilyName::ALL.into_iter().find(|f| Some(f.name()) == name && !by_size);
        let sizes = by_size.then(|| sweep.sizes.into_iter().map(|s| s.name).collect());
        Ok(Template { path: path.to_owned(), table, family, sizes, own: true })
    }

    /// A family with usual batches and rates; the data are still to be named.
    pub fn usual(family: FamilyName, vocab_size: Option<usize>) -> Template {
        let vocab = vocab_size.unwrap_or(family.vocab_size());
        let seq_len = family.seq_len();
        let (batch, lr, device) = match family {
            FamilyName::Gopher => ("{ rule = \"step-law\" }", "{ rule = \"step-law\" }", "h100-sxm"),
            FamilyName::Nano => {
                ("{ rule = \"step-law\", max = 2048 }", "{ rule = \"width\", base = 0.16 }", "cpu")
            }
        };
        let name = family.name();
        let text = format!(
            "[sweep]\nname = \"{name}\"\n[family]\nname = \"{name}\"\nvocab_size = {vocab}\nseq_len = {seq_len}\n\
             [plan]\nkind = \"grid\"\ntokens = [1e9]\ndevice = \"{device}\"\n\
             [train]\nbatch_tokens = {batch}\nlr = {lr}\n[data]\ntrain = \"corpus\"\n"
        );
        // The text above is a table.
        let table = toml::from_str(&text).unwrap_or_default();
        Template { path: PathBuf::from("next.toml"), table, family: Some(family), sizes: None, own: false }
    }

    /// The file that messages name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> &str {
        self.table.get("sweep").and_then(|s| s.get("name")).and_then(Value::as_str).unwrap_or("sweep")
    }

    /// The keys of `[plan]` that are kept, as lines.
    fn kept(&self, convention: &str) -> String {
        let mut text = format!("convention = \"{convention}\"\n");
        for key in ["min_steps", "device"] {
            if let Some(value) = self.table.get("plan").and_then(|p| p.get(key)) {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text
    }

    /// The file without its plan and seeds, with these shapes beside its own.
    fn without_plan(&self, shapes: &[(String, ModelConfig)]) -> Table {
        let mut table = self.table.clone();
        table.remove("plan");
        if let Some(sweep) = table.get_mut("sweep").and_then(Value::as_table_mut) {
            sweep.remove("seeds");
        }
        if let Some(family) = table.get_mut("family").and_then(Value::as_table_mut)
            && !shapes.is_empty()
        {
            let list = family.entry("shape").or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                list.extend(shapes.iter().map(|(name, model)| shape(name, model)));
            }
        }
        table
    }

    /// A sweep of every size with every token count.
    pub(super) fn grid(
        &self,
        shapes: &[(String, ModelConfig)],
        tokens: &[f64],
        convention: &str,
    ) -> Result<String, ProposeError> {
        let mut text = self.written(&self.without_plan(shapes))?;
        let tokens: Vec<String> = tokens.iter().map(|t| format!("{t:e}")).collect();
        text.push_str(&format!(
            "\n[plan]\nkind = \"grid\"\ntokens = [{}]\n{}",
            tokens.join(", "),
            self.kept(convention)
        ));
        if let Some(sizes) = &self.sizes {
            text.push_str(&format!("sizes = {sizes:?}\n"));
        }
        Ok(text)
    }

    /// The sweep of the chosen runs, below `head`, which is a comment.
    pub(super) fn list(
        &self,
        head: &str,
        shapes: &[(String, ModelConfig)],
        entries: &[Entry],
        convention: &str,
    ) -> Result<String, ProposeError> {
        let mut table = self.without_plan(shapes);
        let name = format!("{}-next", self.name().chars().take(50).collect::<String>());
        if let Some(sweep) = table.get_mut("sweep").and_then(Value::as_table_mut) {
            sweep.insert("name".into(), Value::String(name));
        }
        // A rate for a size that is not planned would be refused.
        let rates = table.get_mut("train").and_then(|t| t.get_mut("lr")).and_then(|lr| lr.get_mut("sizes"));
        if let Some(rates) = rates.and_then(Value::as_table_mut) {
            rates.retain(|size, _| entries.iter().any(|e| e.size == *size));
        }
        let mut text = format!("{head}\n{}", self.written(&table)?);
        text.push_str(&format!("\n[plan]\nkind = \"list\"\n{}", self.kept(convention)));
        for entry in entries {
            let Entry { size, tokens, flops, seeds } = entry;
            text.push_str(&format!("\n[[plan.run]]  # {}", crate::fit::format_flops(*flops)));
            text.push_str(&format!(" FLOPs\nsize = \"{size}\"\ntokens = {tokens:e}\n"));
            if seeds.as_slice() != [0] {
                text.push_str(&format!("seeds = {seeds:?}\n"));
            }
        }
        Ok(text)
    }

    fn written(&self, table: &Table) -> Result<String, ProposeError> {
        toml::to_string(table)
            .map_err(|e| ProposeError::Base { path: self.path.clone(), message: e.to_string() })
    }
}

/// A `[[family.shape]]`. Its feed-forward is four times the width, as in every shape of a family.
fn shape(name: &str, model: &ModelConfig) -> Value {
    let mut table = Table::new();
    table.insert("name".into(), Value::String(name.to_owned()));
    let ModelConfig { n_layers, n_heads, d_head, d_model, .. } = *model;
    for (key, value) in
        [("n_layers", n_layers), ("n_heads", n_heads), ("d_head", d_head), ("d_model", d_model)]
    {
        table.insert(key.into(), Value::Integer(value as i64));
    }
    Value::Table(table)
}

/// Parameters of a planned run as a fit counts them.
pub(super) fn counted(run: &PlannedRun, params: ParamCount) -> f64 {
    match params {
        ParamCount::Total => run.params as f64,
        ParamCount::NonEmbedding => run.params_non_embedding as f64,
    }
}
