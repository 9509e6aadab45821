//! Lines of records in a text, whatever ends them. The reader's own count is one behind after a carriage return.

/// Counts line ends as it goes forward through a text.
pub(crate) struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: u64,
}

impl<'t> Lines<'t> {
    pub fn of(text: &'t str) -> Self {
        Lines { text, at: 0, line: 1 }
    }

    /// The line, from 1, of the first record at or after `byte`, which is not before the last one asked for.
    pub fn at(&mut self, byte: usize) -> u64 {
        let bytes = self.text.as_bytes();
        let blank = bytes.get(byte..).unwrap_or_default().iter().take_while(|b| matches!(b, b'\r' | b'\n'));
        let start = (byte + blank.count()).min(bytes.len());
        let passed = bytes.get(self.at..start).unwrap_or_default();
        self.line += passed.iter().filter(|b| **b == b'\n').count() as u64;
        self.at = self.at.max(start);
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_line_ends_count_once() {
        for end in ["\n", "\r\n"] {
            let text = ["a,b", "1,2", "", "\"3\n3\",4", "5,6"].join(end);
            let mut reader =
                csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let mut lines = Lines::of(&text);
            let mut found = Vec::new();
            loop {
                let from = reader.position().byte() as usize;
                if !reader.read_record(&mut csv::StringRecord::new()).unwrap() {
                    break;
                }
                found.push(lines.at(from));
            }
            assert_eq!(found, [1, 2, 4, 6], "{end:?}");
        }
    }
}
