//! What MLIR and LLVM say about a module, with the line of the text it is about.

use std::fmt::Write as _;

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
    Note,
}

/// One message from MLIR or LLVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Line and column in the MLIR text, both from 1; none for messages of LLVM's own passes.
    pub position: Option<(usize, usize)>,
    pub message: String,
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error without a position.
    pub(super) fn error(message: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            position: None,
            message: message.to_owned(),
            notes: Vec::new(),
        }
    }
}

/// Diagnostics as text: one paragraph each, with the line of `source` it points at quoted below the message.
pub(super) fn render(diagnostics: &[Diagnostic], source: &str) -> String {
    if diagnostics.is_empty() {
        return "no diagnostic was given".into();
    }
    let mut out = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let quoted = diagnostic.position.and_then(|(line, column)| {
            let text = source.lines().nth(line.checked_sub(1)?)?;
            Some((line, column, text.trim_end()))
        });
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "{severity}: {}", diagnostic.message);
        if let Some((line, column, text)) = quoted {
            let _ = write!(out, "\n  {line}:{column} | {}", text.trim_start());
        }
        for note in &diagnostic.notes {
            let _ = write!(out, "\n  note: {note}");
        }
    }
    out
}
