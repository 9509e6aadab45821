//! Canonical text to graph. Any text gives a graph or a [`ParseError`]; none gives a panic.

use super::attributes::{Attribute, MNEMONICS, Source, operation};
use super::lex::{Lexer, Span, Token};
use super::suggest::nearest;
use crate::graph::infer::{Types, infer};
use crate::graph::{Axes, Graph, Library, Op, Operand, Role, Shape, TensorType, Value};
use isoflop_kernels::DType;
use isoflop_kernels::program::Init;
use petgraph::stable_graph::NodeIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Extents, attributes and element counts stay below this, so that no arithmetic on them overflows.
const LARGEST: usize = 1 << 40;
const LARGEST_RANK: usize = 16;
/// Regions inside regions.
const DEEPEST: usize = 16;

/// What is wrong with a text, and where. Displays as a compiler would: place, message, the line, a caret under it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}\n  {line} | {source_line}\n  {} | {}{}",
    " ".repeat(line.to_string().len()), " ".repeat(column - 1), "^".repeat(*width))]
pub struct ParseError {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Characters the caret covers.
    pub width: usize,
    pub message: String,
    pub source_line: String,
}

/// The one graph of a text, types checked.
pub fn parse(text: &str, file: &str) -> Result<Graph, ParseError> {
    one(Parser::new(text, file, true)?)
}

/// Every graph of a text, types checked.
pub fn parse_all(text: &str, file: &str) -> Result<Vec<Graph>, ParseError> {
    let mut p = Parser::new(text, file, true)?;
    let mut graphs = vec![];
    while p.token != Token::End {
        graphs.push(p.graph()?);
    }
    Ok(graphs)
}

/// The one graph of a text, with the types it declares, right or wrong, and operands in any order, cycles included:
/// a graph for the verifier to look at.
pub fn parse_unverified(text: &str, file: &str) -> Result<Graph, ParseError> {
    one(Parser::new(text, file, false)?)
}

fn one(mut p: Parser) -> Result<Graph, ParseError> {
    let g = p.graph()?;
    match p.token {
        Token::End => Ok(g),
        _ => p.fail(
            &p.span,
            format!("after the graph's `}}` found {}; only one graph is allowed", p.token.describe()),
        ),
    }
}

struct Parser<'a> {
    text: &'a str,
    file: &'a str,
    lexer: Lexer<'a>,
    token: Token,
    span: Span,
    checked: bool,
    depth: usize,
}

/// A reference as written: an id or a name, and a result.
struct Reference {
    target: Token,
    result: u16,
    span: Span,
}

struct Statement {
    id: u32,
    span: Span,
    op: Op,
    operands: Vec<Reference>,
    declared: Types,
    scope: Option<Arc<str>>,
}

struct InputLine {
    name: String,
    span: Span,
    ty: TensorType,
    role: Role,
    id: Option<u32>,
    scope: Option<Arc<str>>,
    /// The operand a region's input stands for.
    operand: Option<Reference>,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn new(text: &'a str, file: &'a str, checked: bool) -> Parsed<Self> {
        let lexer = Lexer::new(text);
        let mut p = Parser { text, file, lexer, token: Token::End, span: 0..0, checked, depth: 0 };
        p.advance()?;
        Ok(p)
    }

    fn error(&self, span: &Span, message: impl Into<String>) -> ParseError {
        let start = span.start.min(self.text.len());
        let line_start = self.text[..start].rfind('\n').map_or(0, |i| i + 1);
        let source_line = self.text[line_start..].lines().next().unwrap_or("");
        let line_end = line_start + source_line.len();
        let covered = self.text.get(start..span.end.min(line_end)).map_or(0, |s| s.chars().count());
        ParseError {
            file: self.file.to_string(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: covered.max(1),
            message: message.into(),
            source_line: source_line.replace('\t', " "),
        }
    }

    fn fail<T>(&self, span: &Span, message: impl Into<String>) -> Parsed<T> {
        Err(self.error(span, message))
    }

    fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        self.fail(&self.span, format!("expected {wanted}, found {}", self.token.describe()))
    }

    /// The current token, and steps past it.
    fn advance(&mut self) -> Parsed<(Token, Span)> {
        let (token, span) = self.lexer.next().map_err(|(span, m)| self.error(&span, m))?;
        Ok((std::mem::replace(&mut self.token, token), std::mem::replace(&mut self.span, span)))
    }

    fn at(&self, c: char) -> bool {
        self.token == Token::Sign(c)
    }

    fn accept(&mut self, c: char) -> Parsed<bool> {
        let found = self.at(c);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn expect(&mut self, c: char, after: &str) -> Parsed<()> {
        if self.accept(c)? {
            return Ok(());
        }
        self.unexpected(&format!("{} {after}", Token::Sign(c).describe()))
    }

    /// `item, item, ... close`; the opening sign is already read.
    fn list<T>(
        &mut self,
        close: char,
        what: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut out = vec![];
        while !self.at(close) {
            out.push(item(self)?);
            if !self.at(close) && !self.accept(',')? {
                return self.unexpected(&format!("`,` or {} in {what}", Token::Sign(close).describe()));
            }
        }
        self.advance()?;
        Ok(out)
    }

    fn integer(&mut self) -> Parsed<usize> {
        let Token::Number(digits) = &self.token else { return self.unexpected("a whole number") };
        match digits.parse::<usize>() {
            Ok(n) if n <= LARGEST => {
                self.advance()?;
                Ok(n)
            }
            _ => self.unexpected(&format!("a whole number from 0 to {LARGEST}")),
        }
    }

    fn scope(&mut self) -> Parsed<Option<Arc<str>>> {
        let Token::At(name) = &self.token else { return Ok(None) };
        let scope = Arc::from(name.as_str());
        self.advance()?;
        Ok(Some(scope))
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        let start = self.span.start;
        let dtype = match &self.token {
            Token::Word(w) => w.parse::<DType>().map_err(|m| self.error(&self.span, m))?,
            _ => return self.unexpected("a type such as f32[64,128]"),
        };
        self.advance()?;
        self.expect('[', "after the element type")?;
        let mut end = self.span.end;
        let shape = self.list(']', "the shape", |p| {
            let n = p.integer()?;
            end = p.span.end;
            Ok(n)
        })?;
        let ty = TensorType { dtype, shape: Shape::from_vec(shape) };
        self.bounded(&ty, &(start..end))?;
        Ok(ty)
    }

    /// Refuses tensors so large that arithmetic on their sizes could overflow.
    fn bounded(&self, t: &TensorType, span: &Span) -> Parsed<()> {
        let elements =
            t.shape.iter().try_fold(1usize, |n, &e| n.checked_mul(e.max(1)).filter(|&n| n <= LARGEST));
        if elements.is_none() || t.rank() > LARGEST_RANK {
            return self.fail(
                span,
                format!("{t} is too large: at most {LARGEST} elements and {LARGEST_RANK} axes are allowed"),
            );
        }
        Ok(())
    }

    fn graph(&mut self) -> Parsed<Graph> {
        if self.token != Token::Word("graph".into()) {
            return self.unexpected("`graph @name(`");
        }
        self.advance()?;
        let Token::At(name) = self.token.clone() else { return self.unexpected("the graph's name: `@name`") };
        self.advance()?;
        self.expect('(', "before the graph's inputs")?;
        let inputs = self.list(')', "the graph's inputs", |p| p.input(false))?;
        self.expect('>', "and the types of the outputs")?;
        self.expect('(', "before the types of the outputs")?;
        let from = self.span.start;
        let types = self.list(')', "the output types", |p| p.ty())?;
        let span = from..self.span.start;
        let g = self.body(&name, inputs)?;
        let found: Vec<&TensorType> = g.outputs.iter().map(|o| g.ty(o.value)).collect();
        if self.checked && !found.iter().copied().eq(&types) {
            let found: Vec<String> = found.iter().map(|t| t.to_string()).collect();
            return self
                .fail(&span, format!("the graph returns ({}); its signature must say so", found.join(", ")));
        }
        Ok(g)
    }

    /// `%x: f32[4] {role=...} @scope`; in a region `%p0: f32[4] = %7 ...`.
    fn input(&mut self, in_region: bool) -> Parsed<InputLine> {
        let span = self.span.clone();
        let Token::Named(name) = self.token.clone() else {
            return self.unexpected("an input: `%name: type`");
        };
        self.advance()?;
        self.expect(':', "and the input's type")?;
        let ty = self.ty()?;
        let operand = match in_region {
            true => {
                self.expect('=', "and the operand the input stands for")?;
                Some(self.reference()?)
            }
            false => None,
        };
        let mut a = self.attributes("an input")?;
        let id = match a.has("id") {
            true => Some(a.id("id")?),
            false => None,
        };
        let role = if a.has("role") { a.role()? } else { Role::Data };
        a.finish()?;
        let scope = self.scope()?;
        Ok(InputLine { name, span, ty, role, id, scope, operand })
    }

    fn reference(&mut self) -> Parsed<Reference> {
        let (target, mut span) = match self.token {
            Token::Id(_) | Token::Named(_) => self.advance()?,
            _ => return self.unexpected("a value such as %7 or %x"),
        };
        let mut result = 0;
        if self.accept('#')? {
            span.end = self.span.end;
            result = match self.integer()? {
                n if n < u16::MAX as usize => n as u16,
                n => return self.fail(&span, format!("no node has a result {n}")),
            };
        }
        Ok(Reference { target, result, span })
    }

    /// `{ statements; return ... }`
    fn body(&mut self, name: &str, inputs: Vec<InputLine>) -> Parsed<Graph> {
        self.expect('{', "before the body")?;
        let mut statements = vec![];
        while let Token::Id(_) = self.token {
            statements.push(self.statement()?);
        }
        if self.token != Token::Word("return".into()) {
            return self.unexpected("a node `%7 = ...` or `return`");
        }
        self.advance()?;
        let outputs = self.list('}', "the outputs", |p| {
            let (name, span) = match p.token.clone() {
                Token::Word(w) | Token::Quoted(w) => (w, p.advance()?.1),
                _ => return p.unexpected("an output `name = %7`"),
            };
            p.expect('=', "after the output's name")?;
            Ok((name, span, p.reference()?))
        })?;
        self.build(name, inputs, statements, outputs)
    }

    fn statement(&mut self) -> Parsed<Statement> {
        let (token, span) = self.advance()?;
        let Token::Id(id) = token else { return self.fail(&span, "expected a node's id") };
        let count = if self.accept(':')? { self.integer()? } else { 1 };
        self.expect('=', "after the node's id")?;
        let at = self.span.clone();
        let Token::Word(mnemonic) = self.token.clone() else { return self.unexpected("an operation") };
        self.advance()?;
        let (op, operands) = match mnemonic.as_str() {
            "fused" => self.fused()?,
            _ => {
                let mut operands = vec![];
                if matches!(self.token, Token::Id(_) | Token::Named(_)) {
                    operands.push(self.reference()?);
                    while self.accept(',')? {
                        operands.push(self.reference()?);
                    }
                }
                let mut a = self.attributes(&mnemonic)?;
                let Some(op) = operation(&mnemonic, &mut a)? else {
                    let hint = match nearest(&mnemonic, MNEMONICS) {
                        Some(m) => format!("did you mean `{m}`?"),
                        None => format!("one of {}", MNEMONICS.join(", ")),
                    };
                    return self.fail(&at, format!("unknown operation `{mnemonic}`; {hint}"));
                };
                a.finish()?;
                (op, operands)
            }
        };
        if operands.len() >= u16::MAX as usize {
            return self
                .fail(&at, format!("{} operands; fewer than {} are allowed", operands.len(), u16::MAX));
        }
        if let Op::Call(Library::RelAttention(c) | Library::RelAttentionGrad(c)) = &op {
            self.bounded(&TensorType::f32(&[c.batch, c.seq, c.heads, c.d_head, 3]), &at)?;
        }
        let mut declared = Types::new();
        let typed = self.accept(':')?;
        if typed && self.accept('(')? {
            declared.extend(self.list(')', "the result types", |p| p.ty())?);
        } else if typed {
            declared.push(self.ty()?);
        }
        if (typed || !self.checked) && declared.len() != count {
            return self.fail(&span, format!("%{id} has {count} results but {} types", declared.len()));
        }
        let scope = self.scope()?;
        Ok(Statement { id, span: span.start..at.end, op, operands, declared, scope })
    }

    /// `@name(%p0: f32[4] = %7, ...) { body }`
    fn fused(&mut self) -> Parsed<(Op, Vec<Reference>)> {
        if self.depth == DEEPEST {
            return self.fail(&self.span, format!("regions are nested more than {DEEPEST} deep"));
        }
        let name = self.scope()?;
        self.expect('(', "before the region's inputs")?;
        let mut inputs = self.list(')', "the region's inputs", |p| p.input(true))?;
        let operands = inputs.iter_mut().filter_map(|i| i.operand.take()).collect();
        self.depth += 1;
        let region = self.body(name.as_deref().unwrap_or(""), inputs)?;
        self.depth -= 1;
        Ok((Op::Fused { region: Box::new(region) }, operands))
    }

    /// `{key=value, ...}` if there is any.
    fn attributes<'p>(&'p mut self, of: &str) -> Parsed<Braces<'a, 'p>> {
        let at = self.span.clone();
        let mut found = vec![];
        if self.accept('{')? {
            found = self.list('}', "the attributes", |p| {
                let Token::Word(key) = p.token.clone() else {
                    return p.unexpected("an attribute `name=value`");
                };
                let (_, span) = p.advance()?;
                p.expect('=', "after the attribute's name")?;
                let start = p.span.start;
                let value = p.attribute()?;
                Ok((key, value, span, start))
            })?;
        }
        Ok(Braces { parser: self, of: of.to_string(), at, found, asked: vec![] })
    }

    fn attribute(&mut self) -> Parsed<Attribute> {
        match self.token.clone() {
            Token::Sign('[') => {
                self.advance()?;
                Ok(Attribute::List(Axes::from_vec(self.list(']', "the list", |p| p.integer())?)))
            }
            Token::Number(digits) => {
                if digits.bytes().all(|c| c.is_ascii_digit()) {
                    return Ok(Attribute::Integer(self.integer()?));
                }
                match digits.parse::<f64>() {
                    Ok(x) => {
                        self.advance()?;
                        Ok(Attribute::Number(x))
                    }
                    Err(_) => self.unexpected("a number"),
                }
            }
            Token::Word(w) | Token::Quoted(w) => {
                self.advance()?;
                Ok(Attribute::Word(w))
            }
            _ => self.unexpected("a number, a list such as [0,1], or a name"),
        }
    }

    fn build(
        &self,
        name: &str,
        inputs: Vec<InputLine>,
        statements: Vec<Statement>,
        outputs: Vec<(String, Span, Reference)>,
    ) -> Parsed<Graph> {
        let mut ids: FxHashSet<u32> = FxHashSet::default();
        let given = inputs.iter().filter_map(|i| i.id.map(|id| (id, &i.span)));
        for (id, span) in given.chain(statements.iter().map(|s| (s.id, &s.span))) {
            if !ids.insert(id) && self.checked {
                return self.fail(span, format!("the id %{id} is taken; every node has an id of its own"));
            }
        }
        let mut g = Graph::new(name);
        let mut spare = ids.iter().max().map_or(0, |m| m + 1).max(inputs.len() as u32);
        let mut by_name: FxHashMap<&str, NodeIndex> = FxHashMap::default();
        for (k, i) in inputs.iter().enumerate() {
            let id = i.id.unwrap_or_else(|| {
                let place = k as u32;
                if ids.insert(place) {
                    return place;
                }
                spare += 1;
                spare - 1
            });
            let op = Op::Input { name: i.name.clone(), role: i.role };
            let n = g.add_with_id(id, op, &[], std::slice::from_ref(&i.ty), i.scope.clone());
            if by_name.insert(&i.name, n).is_some() && self.checked {
                return self
                    .fail(&i.span, format!("an input %{} is already there; names are unique", i.name));
            }
        }
        let mut by_id: FxHashMap<u32, NodeIndex> = FxHashMap::default();
        if !self.checked {
            for s in &statements {
                let n = g.add_with_id(s.id, s.op.clone(), &[], &s.declared, s.scope.clone());
                by_id.entry(s.id).or_insert(n);
            }
        }
        let find = |g: &Graph, by_id: &FxHashMap<u32, NodeIndex>, r: &Reference| -> Parsed<Value> {
            let node = match &r.target {
                Token::Id(id) => by_id.get(id).copied(),
                Token::Named(name) => by_name.get(name.as_str()).copied(),
                _ => None,
            };
            let Some(node) = node else {
                let hint = match &r.target {
                    Token::Named(n) => {
                        nearest(n, by_name.keys().copied()).map(|m| format!("; did you mean `%{m}`?"))
                    }
                    _ => None,
                };
                let message =
                    format!("{} is not defined above{}", r.target.describe(), hint.unwrap_or_default());
                return self.fail(&r.span, message);
            };
            let results = g.node(node).results.len();
            if r.result as usize >= results {
                let message =
                    format!("{} has {results} results; there is no #{}", r.target.describe(), r.result);
                return self.fail(&r.span, message);
            }
            Ok(Value { node, result: r.result })
        };
        for (k, s) in statements.into_iter().enumerate() {
            let operands: Vec<Value> =
                s.operands.iter().map(|r| find(&g, &by_id, r)).collect::<Parsed<_>>()?;
            if !self.checked {
                let node = NodeIndex::new(inputs.len() + k);
                for (position, v) in operands.iter().enumerate() {
                    g.nodes.add_edge(v.node, node, Operand { position: position as u16, result: v.result });
                }
                continue;
            }
            let types: Vec<&TensorType> = operands.iter().map(|&v| g.ty(v)).collect();
            let results = infer(&s.op, &types, &s.declared).map_err(|m| self.error(&s.span, m))?;
            for t in &results {
                self.bounded(t, &s.span)?;
            }
            if !s.declared.is_empty() && s.declared != results {
                let results: Vec<String> = results.iter().map(|t| t.to_string()).collect();
                let declared: Vec<String> = s.declared.iter().map(|t| t.to_string()).collect();
                let (gives, says) = (results.join(", "), declared.join(", "));
                return self
                    .fail(&s.span, format!("{} gives {gives}, the text says {says}", s.op.mnemonic()));
            }
            let n = g.add_with_id(s.id, s.op, &operands, &results, s.scope);
            by_id.insert(s.id, n);
        }
        for (name, span, r) in &outputs {
            if self.checked && g.output_named(name).is_some() {
                return self.fail(span, format!("an output {name} is already there; names are unique"));
            }
            let v = find(&g, &by_id, r)?;
            g.output(name, v);
        }
        Ok(g)
    }
}

/// Attributes of one node, asked for by name; what nobody asked for is an error.
struct Braces<'a, 'p> {
    parser: &'p Parser<'a>,
    of: String,
    at: Span,
    /// Name, value, span of the name, start of the value.
    found: Vec<(String, Attribute, Span, usize)>,
    asked: Vec<&'static str>,
}

impl Braces<'_, '_> {
    fn has(&self, key: &str) -> bool {
        self.found.iter().any(|f| f.0 == key)
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(Attribute) -> Option<T>,
    ) -> Parsed<T> {
        self.asked.push(key);
        let Some(k) = self.found.iter().position(|f| f.0 == key) else {
            // Another key that is close to the one that is missing is more likely misspelt than surplus.
            return match self.found.iter().find(|f| nearest(&f.0, [key]).is_some()) {
                Some((near, _, span, _)) => self
                    .parser
                    .fail(span, format!("{} has no attribute `{near}`; did you mean `{key}`?", self.of)),
                None => self
                    .parser
                    .fail(&self.at, format!("{} needs the attribute `{key}`: {{{key}={wanted}}}", self.of)),
            };
        };
        let (_, value, _, start) = self.found.remove(k);
        let place = start..start + 1;
        read(value)
            .ok_or_else(|| self.parser.error(&place, format!("`{key}` of {} must be like {wanted}", self.of)))
    }

    fn id(&mut self, key: &'static str) -> Parsed<u32> {
        self.take(key, "7", |a| match a {
            Attribute::Integer(n) if n <= 1 << 30 => Some(n as u32),
            _ => None,
        })
    }

    fn role(&mut self) -> Parsed<Role> {
        let role = self.take("role", "state, or data, or table", |a| match a {
            Attribute::Word(w) if matches!(w.as_str(), "data" | "state" | "table") => Some(w),
            _ => None,
        })?;
        if role == "data" {
            return Ok(Role::Data);
        }
        let wanted = "zeros, or ones, or normal, or relative-sinusoid";
        let init = self.take("init", wanted, |a| match a {
            Attribute::Word(w) => match w.as_str() {
                "zeros" => Some(Init::Zeros),
                "ones" => Some(Init::Ones),
                "normal" => Some(Init::Normal { std: 0.0 }),
                "relative-sinusoid" => Some(Init::RelativeSinusoid),
                _ => None,
            },
            _ => None,
        })?;
        let init = match init {
            Init::Normal { .. } => Init::Normal { std: self.number("std")? },
            other => other,
        };
        Ok(if role == "state" { Role::State(init) } else { Role::Table(init) })
    }

    fn finish(self) -> Parsed<()> {
        let Some((key, _, span, _)) = self.found.first() else { return Ok(()) };
        let allowed = if self.asked.is_empty() { "none is".into() } else { self.asked.join(", ") };
        self.parser.fail(span, format!("{} has no attribute `{key}`; allowed: {allowed}", self.of))
    }
}

impl Source for Braces<'_, '_> {
    fn integer(&mut self, key: &'static str) -> Parsed<usize> {
        self.take(key, "1", |a| match a {
            Attribute::Integer(n) => Some(n),
            _ => None,
        })
    }

    fn number(&mut self, key: &'static str) -> Parsed<f64> {
        self.take(key, "1.0", |a| match a {
            Attribute::Number(x) => Some(x),
            Attribute::Integer(n) => Some(n as f64),
            Attribute::Word(w) => match w.as_str() {
                "inf" => Some(f64::INFINITY),
                "nan" => Some(f64::NAN),
                _ => None,
            },
            Attribute::List(_) => None,
        })
    }

    fn word(&mut self, key: &'static str) -> Parsed<String> {
        self.take(key, "data", |a| match a {
            Attribute::Word(w) => Some(w),
            _ => None,
        })
    }

    fn axes(&mut self, key: &'static str) -> Parsed<Axes> {
        self.take(key, "[0,1]", |a| match a {
            Attribute::List(l) => Some(l),
            _ => None,
        })
    }
}
