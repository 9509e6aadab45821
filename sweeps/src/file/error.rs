//! What is wrong with a sweep file: place, key, what was found, what is allowed, and the nearest valid name.

use miette::{Diagnostic, NamedSource, SourceSpan};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// One thing wrong with a TOML file that a person wrote.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub struct FileError {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Dotted path of the key, such as `train.lr.rule`; empty for errors of syntax.
    pub key: String,
    pub message: String,
    /// What to write instead.
    #[help]
    pub help: Option<String>,
    label: &'static str,
    #[source_code]
    source_code: NamedSource<Arc<str>>,
    #[label("{label}")]
    span: SourceSpan,
}

/// The file an error is about.
pub struct Source<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Source<'_> {
    /// An error at `span` about `key`.
    pub fn error(
        &self,
        span: Range<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) -> Box<FileError> {
        self.labelled(span, key.into(), message.into(), help.into(), "here")
    }

    /// The value at `span` is not one that `key` can have.
    pub fn bad_value(
        &self,
        span: Range<usize>,
        key: &str,
        found: impl std::fmt::Display,
        allowed: &str,
    ) -> Box<FileError> {
        let message = format!("`{key}` is {found}; it must be {allowed}");
        self.labelled(span, key.to_owned(), message, None, "found here")
    }

    /// The name at `span` is not one of `allowed`.
    pub fn bad_name(
        &self,
        span: Range<usize>,
        key: &str,
        what: &str,
        found: &str,
        allowed: &[String],
    ) -> Box<FileError> {
        let message = format!("`{key}` names `{found}`, which is no {what}");
        self.labelled(span, key.to_owned(), message, Some(choices(found, allowed)), "not known")
    }

    fn labelled(
        &self,
        span: Range<usize>,
        key: String,
        message: String,
        help: Option<String>,
        label: &'static str,
    ) -> Box<FileError> {
        let end = self.text.len();
        let start = span.start.min(end);
        let before = &self.text.as_bytes()[..start];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        Box::new(FileError {
            file: self.file.to_owned(),
            line,
            column,
            key,
            message,
            help,
            label,
            source_code: NamedSource::new(self.file.to_string_lossy(), Arc::from(self.text)),
            span: (start, span.end.clamp(start, end) - start).into(),
        })
    }

    /// Puts serde's message into our form.
    pub fn from_toml(&self, error: &toml::de::Error) -> Box<FileError> {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim();
        let key =
            DeTable::parse(self.text).ok().and_then(|t| path_at(t.get_ref(), &span)).unwrap_or_default();
        let (table, last) = key.rsplit_once('.').unwrap_or(("", &key));
        let at =
            |table: &str| if table.is_empty() { "at the top level".into() } else { format!("in [{table}]") };
        if let Some((found, allowed)) = split_named(message, "unknown field `") {
            let message = format!("unknown key `{found}` {}", at(table));
            return self.labelled(span, key.clone(), message, Some(choices(found, &allowed)), "not known");
        }
        if let Some((found, allowed)) = split_named(message, "unknown variant `") {
            let message = format!("`{key}` cannot be `{found}`");
            return self.labelled(span, key.clone(), message, Some(choices(found, &allowed)), "not known");
        }
        if let Some(missing) = message.strip_prefix("missing field `").and_then(|m| m.strip_suffix('`')) {
            let message = format!("`{missing}` is missing {}", at(&key));
            let whole = if key.is_empty() { missing.to_owned() } else { format!("{key}.{missing}") };
            let help = if key.is_empty() {
                format!("add a table [{missing}]")
            } else {
                format!("add a line `{missing} = ...` to [{key}]")
            };
            return self.labelled(span, whole, message, Some(help), "this table");
        }
        for start in ["invalid type: ", "invalid value: ", "invalid length "] {
            if let Some((found, allowed)) =
                message.strip_prefix(start).and_then(|m| m.split_once(", expected "))
            {
                let found =
                    if start == "invalid length " { format!("{found} long") } else { found.to_owned() };
                let name = if last.is_empty() { "the value" } else { &key };
                return self.bad_value(span, name, found, plain_type(allowed));
            }
        }
        let help = "tables are written [name], keys are written key = value".to_owned();
        self.labelled(span, key, format!("this is not TOML: {message}"), Some(help), "here")
    }
}

/// Serde's name of a type in words.
fn plain_type(allowed: &str) -> &str {
    match allowed {
        "usize" | "u64" | "u8" | "u32" => "a whole number from 0",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

/// `x` and the names between backquotes after it in "unknown field `x`, expected one of `a`, `b`".
fn split_named<'m>(message: &'m str, prefix: &str) -> Option<(&'m str, Vec<String>)> {
    let rest = message.strip_prefix(prefix)?;
    let (found, rest) = rest.split_once('`')?;
    Some((found, rest.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
}

/// "did you mean ...? allowed: ..."
fn choices(found: &str, allowed: &[String]) -> String {
    let list = allowed.iter().map(|a| format!("`{a}`")).collect::<Vec<_>>().join(", ");
    match nearest(found, allowed) {
        Some(name) => format!("did you mean `{name}`? Allowed here: {list}"),
        None => format!("allowed here: {list}"),
    }
}

/// Words that people bring from other programs.
const ALIASES: [(&str, &str); 11] = [
    ("learning_rate", "lr"),
    ("layers", "n_layers"),
    ("heads", "n_heads"),
    ("head_dim", "d_head"),
    ("hidden_size", "d_model"),
    ("context", "seq_len"),
    ("batch_size", "batch_tokens"),
    ("budgets", "flops"),
    ("optimiser", "optimizer"),
    ("min_lr", "final"),
    ("grad_clip", "clip"),
];

/// The valid name that was most likely meant, if one is near enough to be worth naming.
pub fn nearest<'n>(found: &str, allowed: &'n [String]) -> Option<&'n str> {
    let lower = found.to_lowercase();
    if let Some((_, ours)) = ALIASES.iter().find(|(theirs, _)| *theirs == lower)
        && let Some(name) = allowed.iter().find(|a| a == ours)
    {
        return Some(name);
    }
    if let Some(name) = allowed.iter().find(|a| lower.len() >= 3 && a.starts_with(&lower)) {
        return Some(name);
    }
    allowed
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= 1 + found.len().max(name.len()) / 4)
        .map(|(_, name)| name.as_str())
}

/// Dotted path of the key or value at `span`.
fn path_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    for (key, value) in table {
        if key.span() == *span || value.span() == *span {
            return Some(key.get_ref().to_string());
        }
        if let Some(inner) = path_in(value.get_ref(), span) {
            return Some(format!("{}.{inner}", key.get_ref()));
        }
        // Something inside an inline value that has no place of its own.
        if !value.get_ref().is_table() && value.span().start <= span.start && span.end <= value.span().end {
            return Some(key.get_ref().to_string());
        }
    }
    None
}

fn path_in(value: &DeValue<'_>, span: &Range<usize>) -> Option<String> {
    match value {
        DeValue::Table(table) => path_at(table, span),
        DeValue::Array(items) => items.iter().find_map(|item| path_in(item.get_ref(), span)),
        _ => None,
    }
}
