//! Files of cases: reading them, comparing, and writing what was found.

use std::fmt::Write;

/// A file: what stands above its first case, and the cases.
#[derive(Clone, Debug, Default)]
pub struct File {
    pub preamble: Vec<String>,
    pub cases: Vec<Case>,
}

/// A graph, actions, and what each must give.
#[derive(Clone, Debug)]
pub struct Case {
    /// Comments directly above, which are about this case.
    pub above: Vec<String>,
    /// Line of the file, from 1.
    pub line: usize,
    /// One for each `// test: ` line.
    pub actions: Vec<String>,
    /// All lines but CHECK lines.
    pub source: Vec<String>,
    /// What follows `// CHECK: `. With several actions, a line `[action]` stands above what each gives.
    pub checks: Vec<String>,
    pub forbidden: Vec<String>,
    /// The CHECK lines need only be lines of the result, in this order.
    pub partial: bool,
}

/// What an action gave.
pub enum Section {
    Text(String),
    /// It needs machine code, and there was nothing to run it with.
    NotRun,
}

/// The action of a line `// test: ACTION`, or `// test ACTION`.
fn action(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("// test")?;
    let rest = rest.strip_prefix(": ").or_else(|| rest.strip_prefix(' '))?;
    Some(rest.trim()).filter(|a| !a.is_empty())
}

/// The cases of a text.
pub fn cases(text: &str) -> File {
    let mut file = File::default();
    for (k, line) in text.lines().enumerate() {
        if let Some(action) = action(line) {
            let action = action.to_string();
            match file.cases.last_mut() {
                // Another action for the graph that follows.
                Some(case) if case.source.len() == case.actions.len() => case.actions.push(action),
                last => {
                    let before = last.map_or(&mut file.preamble, |c| &mut c.source);
                    let from = before.iter().rposition(|l| !l.starts_with("// ")).map_or(0, |i| i + 1);
                    let above = before.split_off(from);
                    file.cases.push(Case {
                        above,
                        line: k + 1,
                        actions: vec![action],
                        source: vec![],
                        checks: vec![],
                        forbidden: vec![],
                        partial: false,
                    });
                }
            }
        }
        match file.cases.last_mut() {
            None => file.preamble.push(line.to_string()),
            Some(case) => match (line.strip_prefix("// CHECK:"), line.strip_prefix("// CHECK-NOT: ")) {
                (Some(check), _) => case.checks.push(check.strip_prefix(' ').unwrap_or(check).to_string()),
                (None, forbidden) => {
                    case.forbidden.extend(forbidden.map(str::to_string));
                    case.partial |= line.trim() == "// match: partial";
                    case.source.push(line.to_string());
                }
            },
        }
    }
    file
}

impl Case {
    /// The text of the graph, with comments.
    pub fn text(&self) -> String {
        self.source.join("\n")
    }

    /// What follows `// KEY` in a line of its own.
    pub fn settings<'c>(&'c self, key: &'c str) -> impl Iterator<Item = &'c str> {
        self.source.iter().filter_map(move |l| l.strip_prefix("// ")?.strip_prefix(key)?.strip_prefix(' '))
    }

    /// Does a line `// gradients` ask for the graph with its gradients?
    pub fn wants_gradients(&self) -> bool {
        self.source.iter().any(|l| l.trim() == "// gradients")
    }

    /// The CHECK lines of the action at this place.
    fn expected(&self, place: usize) -> &[String] {
        if self.actions.len() < 2 {
            return &self.checks;
        }
        let title = |line: &String| self.actions.iter().any(|a| *line == format!("[{a}]"));
        let own = format!("[{}]", self.actions[place]);
        let Some(at) = self.checks.iter().position(|l| *l == own) else { return &[] };
        let rest = &self.checks[at + 1..];
        &rest[..rest.iter().position(title).unwrap_or(rest.len())]
    }

    /// What is wrong with what this action gave, as a unified diff, if anything is.
    pub fn wrong(&self, place: usize, found: &str) -> Option<String> {
        let expected = self.expected(place);
        if self.partial {
            let mut lines = found.lines().map(str::trim);
            for check in expected {
                if !lines.any(|l| l == check.trim()) {
                    return Some(format!("no line `{check}` in its place in\n{found}"));
                }
            }
            let hit = self.forbidden.iter().find(|f| found.contains(f.as_str()));
            return hit.map(|f| format!("`{f}` must not be in\n{found}"));
        }
        let expected: String = expected.iter().map(|l| format!("{}\n", l.trim_end())).collect();
        let found: String = found.lines().map(|l| format!("{}\n", l.trim_end())).collect();
        if expected == found {
            return None;
        }
        let diff = similar::TextDiff::from_lines(&expected, &found);
        Some(diff.unified_diff().header("expected", "found").to_string())
    }
}

impl File {
    /// The file with the CHECK lines that `found` asks for: no section for a case that was not run.
    pub fn blessed(&self, found: &[Vec<Section>]) -> String {
        let mut out: String = self.preamble.iter().map(|l| format!("{l}\n")).collect();
        for (case, sections) in self.cases.iter().zip(found) {
            case.above.iter().for_each(|l| out.extend([l.as_str(), "\n"]));
            out.push_str(case.text().trim_end());
            out.push('\n');
            let mut checks: Vec<String> = vec![];
            for (k, action) in case.actions.iter().enumerate() {
                if case.actions.len() > 1 && !case.partial {
                    checks.push(format!("[{action}]"));
                }
                match sections.get(k) {
                    Some(Section::Text(text)) if !case.partial => {
                        checks.extend(text.lines().map(str::to_string))
                    }
                    _ if case.partial => {}
                    _ => checks.extend_from_slice(case.expected(k)),
                }
            }
            for line in if case.partial { &case.checks } else { &checks } {
                let _ = writeln!(out, "{}", format!("// CHECK: {line}").trim_end());
            }
            out.push('\n');
        }
        format!("{}\n", out.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "// About the file.

// About one.
// test: cse
graph @one() -> () { return }
// CHECK: old

// About two.
// test explain
// test: run cpu
// input x = 1
graph @two() -> () { return }
// CHECK: [explain]
// CHECK: old
// CHECK: [run cpu]
// CHECK: kept
";

    fn text(s: &str) -> Section {
        Section::Text(s.into())
    }

    #[test]
    fn reads_cases_and_their_settings() {
        let file = cases(FILE);
        let [one, two] = &file.cases[..] else { panic!("{file:?}") };
        assert_eq!((one.line, &one.above[..]), (4, &["// About one.".to_string()][..]));
        assert_eq!(two.actions, ["explain", "run cpu"]);
        assert_eq!(two.settings("input").collect::<Vec<_>>(), ["x = 1"]);
        assert_eq!([two.expected(0), two.expected(1)], [["old"], ["kept"]]);
        assert_eq!(cases("graph").cases.len(), 0);
    }

    #[test]
    fn a_difference_is_a_unified_diff() {
        let file = cases("// test: cse\ngraph\n// CHECK: a\n// CHECK: b\n");
        assert_eq!(file.cases[0].wrong(0, "a\nb  \n"), None);
        let wrong = file.cases[0].wrong(0, "a\nc\n").expect("a difference");
        assert_eq!(wrong, "--- expected\n+++ found\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
    }

    #[test]
    fn part_of_a_result_in_order() {
        let of = |checks: &str| cases(&format!("// test: cse\n// match: partial\ngraph\n{checks}"));
        let wrong = |checks: &str| of(checks).cases[0].wrong(0, "a\n  b\nc\n");
        assert_eq!(wrong("// CHECK: a\n// CHECK: c\n"), None);
        assert!(
            wrong("// CHECK: c\n// CHECK: a\n").is_some_and(|w| w.starts_with("no line `a` in its place"))
        );
        assert!(wrong("// CHECK-NOT: b\n").is_some_and(|w| w.starts_with("`b` must not be in")));
    }

    #[test]
    fn blessing_writes_what_was_found_and_keeps_what_was_not_run() {
        let found = [vec![text("new\n\n  line\n")], vec![text("newer"), Section::NotRun]];
        let expected = FILE.replacen("// CHECK: old", "// CHECK: new\n// CHECK:\n// CHECK:   line", 1);
        let expected = expected.replace("// CHECK: old", "// CHECK: newer");
        assert_eq!(cases(FILE).blessed(&found), expected);
        assert_eq!(cases(FILE).blessed(&[vec![], vec![]]), FILE);
    }
}
