//! Markdown pages as tests see them: their fenced blocks, and whether a program printed what a page says.

use std::path::Path;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A fenced block: the words of the comment before it, and its text.
pub struct Block {
    pub mark: String,
    pub line: usize,
    pub text: String,
}

pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut mark, mut open) = (String::new(), None::<Block>);
    for (i, line) in page.lines().enumerate() {
        match (&mut open, line.starts_with("```")) {
            (None, true) => {
                open = Some(Block { mark: std::mem::take(&mut mark), line: i + 1, text: String::new() })
            }
            (Some(_), true) => blocks.extend(open.take()),
            (Some(block), false) => block.text.extend([line, "\n"]),
            (None, false) => {
                if let Some(comment) = line.strip_prefix("<!--").and_then(|l| l.strip_suffix("-->")) {
                    mark = comment.trim().to_owned();
                } else if !line.trim().is_empty() {
                    mark.clear();
                }
            }
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// Whether `found` is `wanted`, in which a line `...` stands for any lines.
pub fn agrees(wanted: &[&str], found: &[&str]) -> bool {
    match wanted.split_first() {
        None => found.is_empty(),
        Some((&"...", rest)) => (0..=found.len()).any(|skip| agrees(rest, &found[skip..])),
        Some((line, rest)) => found.first() == Some(line) && agrees(rest, &found[1..]),
    }
}
