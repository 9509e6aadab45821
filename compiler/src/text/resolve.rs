//! From parsed lines to a graph: ids, names and types.

use super::lex::Token;
use super::parse::{InputLine, OutputLine, Parsed, Parser, Reference, Statement};
use super::suggest::nearest;
use crate::graph::infer::infer;
use crate::graph::{Graph, Op, Operand, TensorType, Value};
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};

/// A graph under construction, and what its lines may refer to.
#[derive(Default)]
struct Names {
    g: Graph,
    by_id: FxHashMap<u32, NodeIndex>,
    by_name: FxHashMap<String, NodeIndex>,
}

impl Parser<'_> {
    pub(super) fn build(
        &self,
        name: &str,
        inputs: Vec<InputLine>,
        statements: Vec<Statement>,
        outputs: Vec<OutputLine>,
    ) -> Parsed<Graph> {
        let mut names = Names { g: Graph::new(name), ..Names::default() };
        let ids = self.input_ids(&inputs, &statements)?;
        for (i, id) in inputs.into_iter().zip(ids) {
            let op = Op::Input { name: i.name.clone(), role: i.role };
            let n = names.g.add_with_id(id, op, &[], &[i.ty], i.scope);
            if names.by_name.contains_key(&i.name) && self.checked {
                return self
                    .fail(&i.span, format!("an input %{} is already there; names are unique", i.name));
            }
            names.by_name.entry(i.name).or_insert(n);
        }
        match self.checked {
            true => statements.into_iter().try_for_each(|s| self.add_checked(&mut names, s))?,
            false => self.add_as_declared(&mut names, statements)?,
        }
        for o in outputs {
            if self.checked && names.g.output_named(&o.name).is_some() {
                return self
                    .fail(&o.span, format!("an output {} is already there; names are unique", o.name));
            }
            let v = self.find(&names, &o.value)?;
            names.g.output(&o.name, v);
        }
        Ok(names.g)
    }

    /// An id for each input: the one it says, or its place in the signature, or one nobody has.
    fn input_ids(&self, inputs: &[InputLine], statements: &[Statement]) -> Parsed<Vec<u32>> {
        let mut taken: FxHashSet<u32> = FxHashSet::default();
        let given = inputs.iter().filter_map(|i| i.id.map(|id| (id, &i.span)));
        for (id, span) in given.chain(statements.iter().map(|s| (s.id, &s.span))) {
            if !taken.insert(id) && self.checked {
                return self.fail(span, format!("the id %{id} is taken; every node has an id of its own"));
            }
        }
        let mut spare = taken.iter().max().map_or(0, |m| m + 1).max(inputs.len() as u32);
        let mut id_of = |(place, i): (usize, &InputLine)| {
            i.id.unwrap_or_else(|| {
                let place = place as u32;
                if taken.insert(place) {
                    return place;
                }
                spare += 1;
                spare - 1
            })
        };
        Ok(inputs.iter().enumerate().map(&mut id_of).collect())
    }

    /// One node whose operands stand above it, with inferred types that must be the declared ones.
    fn add_checked(&self, names: &mut Names, s: Statement) -> Parsed<()> {
        let operands: Vec<Value> = s.operands.iter().map(|r| self.find(names, r)).collect::<Parsed<_>>()?;
        let types: Vec<&TensorType> = operands.iter().map(|&v| names.g.ty(v)).collect();
        let results = infer(&s.op, &types, &s.declared).map_err(|m| self.error(&s.span, m))?;
        for t in &results {
            self.bounded(t, &s.span)?;
        }
        if results.len() != s.results {
            let (id, has) = (s.id, results.len());
            return self.fail(&s.span, format!("%{id} has {has} results; write `%{id}:{has} = ...`"));
        }
        if !s.declared.is_empty() && s.declared != results {
            let show = |t: &[TensorType]| t.iter().map(|t| t.to_string()).collect::<Vec<_>>().join(", ");
            let (gives, says) = (show(&results), show(&s.declared));
            return self.fail(&s.span, format!("{} gives {gives}, the text says {says}", s.op.mnemonic()));
        }
        let n = names.g.add_with_id(s.id, s.op, &operands, &results, s.scope);
        names.by_id.insert(s.id, n);
        Ok(())
    }

    /// All nodes first, then all operands: they may stand below what uses them.
    fn add_as_declared(&self, names: &mut Names, statements: Vec<Statement>) -> Parsed<()> {
        let mut added = Vec::with_capacity(statements.len());
        for s in statements {
            let n = names.g.add_with_id(s.id, s.op, &[], &s.declared, s.scope);
            names.by_id.entry(s.id).or_insert(n);
            added.push((n, s.operands));
        }
        for (n, operands) in added {
            for (position, r) in operands.iter().enumerate() {
                let v = self.find(names, r)?;
                names.g.nodes_mut().add_edge(
                    v.node,
                    n,
                    Operand { position: position as u16, result: v.result },
                );
            }
        }
        Ok(())
    }

    fn find(&self, names: &Names, r: &Reference) -> Parsed<Value> {
        let node = match &r.target {
            Token::Id(id) => names.by_id.get(id),
            Token::Named(name) => names.by_name.get(name),
            _ => None,
        };
        let Some(&node) = node else {
            let mut known: Vec<&str> = names.by_name.keys().map(String::as_str).collect();
            known.sort_unstable();
            let hint = match &r.target {
                Token::Named(name) => nearest(name, known).map(|m| format!("; did you mean `%{m}`?")),
                _ => None,
            };
            let name = r.target.describe();
            return self.fail(&r.span, format!("{name} is not defined above{}", hint.unwrap_or_default()));
        };
        let results = names.g.node(node).results.len();
        if r.result as usize >= results {
            let last = match results {
                0 => "it has no results".to_string(),
                n => format!("its last result is #{}", n - 1),
            };
            let name = r.target.describe();
            return self.fail(&r.span, format!("{name} has no result #{}; {last}", r.result));
        }
        Ok(Value { node, result: r.result })
    }
}
