//! Tables of JSON objects: one a line, or in one array. Nested objects give columns with dots, as in `config.lr`.

use super::error::InputError;
use super::table::{Table, TableFormat};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// Objects nested deeper than this are kept as text.
const DEPTH: usize = 4;

/// An object's entries in order, numbers as they are written.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a value for each column")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Rows that may bring new columns.
struct Rows {
    table: Table,
    index: HashMap<String, usize>,
}

impl Rows {
    fn new(path: &str, format: TableFormat) -> Rows {
        Rows { table: Table::new(path, format, Vec::new()), index: HashMap::new() }
    }

    /// Adds the object in `text`, which is written as `raw` in the file.
    fn push(&mut self, line: u64, raw: &str, text: &str) -> Result<(), InputError> {
        let error = |e: serde_json::Error| InputError::Json {
            path: self.table.path.clone(),
            line,
            message: without_place(&e),
        };
        let object: Object<'_> = serde_json::from_str(text).map_err(error)?;
        let mut cells: Vec<Option<String>> = vec![None; self.table.columns.len()];
        flatten("", object, 0, &mut |name, value| {
            let column = *self.index.entry(name).or_insert_with_key(|name| {
                self.table.columns.push(name.clone());
                self.table.columns.len() - 1
            });
            if cells.len() <= column {
                cells.resize(column + 1, None);
            }
            match &cells[column] {
                Some(_) => Some(column),
                None => {
                    cells[column] = Some(value);
                    None
                }
            }
        })
        .map_err(|column| InputError::Json {
            path: self.table.path.clone(),
            line,
            message: format!("the key `{}` is there twice", self.table.columns[column]),
        })?;
        self.table.push(line, raw, cells.iter().map(|c| c.as_deref().unwrap_or("")));
        Ok(())
    }
}

/// Calls `put` with every scalar's name and text; stops with the column that `put` says is there already.
fn flatten(
    prefix: &str,
    object: Object<'_>,
    depth: usize,
    put: &mut impl FnMut(String, String) -> Option<usize>,
) -> Result<(), usize> {
    for (key, raw) in object.0 {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let text = raw.get();
        if text.starts_with('{')
            && depth < DEPTH
            && let Ok(inner) = serde_json::from_str::<Object<'_>>(text)
        {
            flatten(&name, inner, depth + 1, put)?;
            continue;
        }
        let value = match text {
            "null" => String::new(),
            _ if text.starts_with('"') => serde_json::from_str(text).unwrap_or_else(|_| text.to_string()),
            _ => text.to_string(),
        };
        if let Some(column) = put(name, value) {
            return Err(column);
        }
    }
    Ok(())
}

/// The message without serde's own line and column, which count from the object.
fn without_place(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_string()
}

/// Python writes NaN and Infinity, which JSON does not know: they become texts.
fn python_numbers(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let (mut quoted, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !quoted && let Some(word) = ["NaN", "-Infinity", "Infinity"].iter().find(|w| rest.starts_with(**w))
        {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

/// One object a line; blank lines are passed over.
pub(crate) fn lines(path: &str, text: &str) -> Result<Table, InputError> {
    let mut rows = Rows::new(path, TableFormat::Jsonl);
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() {
            rows.push(i as u64 + 1, line, &python_numbers(line))?;
        }
    }
    Ok(rows.table)
}

/// One array of objects.
pub(crate) fn array(path: &str, text: &str) -> Result<Table, InputError> {
    let text = python_numbers(text);
    let items: Vec<&RawValue> = serde_json::from_str(&text).map_err(|e| InputError::Json {
        path: path.into(),
        line: e.line() as u64,
        message: without_place(&e),
    })?;
    let mut rows = Rows::new(path, TableFormat::JsonArray);
    let (mut line, mut seen) = (1, 0);
    for item in items {
        let raw = item.get();
        // An item is a slice of the text, so the difference of addresses is its place.
        let at = (raw.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
        line += text.as_bytes()[seen..at].iter().filter(|b| **b == b'\n').count() as u64;
        seen = at;
        rows.push(line, raw, raw)?;
    }
    Ok(rows.table)
}
