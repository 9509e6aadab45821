//! Text of drawings and pages: escaped, and with superscripts.

use std::fmt::Write;

/// Escapes text for HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are not allowed in HTML.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Pieces of text with superscripts marked as `^{...}`: (piece, raised).
pub(crate) fn pieces(text: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("^{") {
        let Some((raised, next)) = after.split_once('}') else { break };
        found.push((before, false));
        found.push((raised, true));
        rest = next;
    }
    found.push((rest, false));
    found.retain(|(piece, _)| !piece.is_empty());
    found
}

/// SVG text with raised superscripts: `10^{11}`.
pub(crate) fn rich(text: &str) -> String {
    let mut out = String::new();
    let mut up = false;
    for (piece, raised) in pieces(text) {
        let piece = escape(piece);
        match (raised, up) {
            // dy is in units of the tspan's own text size: 0.72 of the line's for a superscript.
            (true, _) => {
                let piece = piece.replace('-', "\u{2212}");
                let _ = write!(out, r#"<tspan class="sup" font-size="72%" dy="-0.5em">{piece}</tspan>"#);
            }
            (false, true) => {
                let _ = write!(out, r#"<tspan dy="0.36em">{piece}</tspan>"#);
            }
            (false, false) => out.push_str(&piece),
        }
        up = raised;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_superscripts_are_raised() {
        assert_eq!(escape("<a href='x'>&\u{7}"), "&lt;a href=&#39;x&#39;&gt;&amp;\u{fffd}");
        assert_eq!(
            rich("10^{-3} x"),
            "10<tspan class=\"sup\" font-size=\"72%\" dy=\"-0.5em\">\u{2212}3</tspan><tspan dy=\"0.36em\"> x</tspan>"
        );
        assert_eq!(rich("a ^{b"), "a ^{b");
    }
}
