//! Canonical text to graph. Any text gives a graph or a [`ParseError`]; none gives a panic.

use super::attributes::{Attribute, MNEMONICS, operation};
use super::braces::{Braces, Entry};
use super::lex::{Lexer, Span, Token};
use super::suggest::nearest;
use crate::graph::infer::Types;
use crate::graph::{Axes, Graph, Library, Op, Role, Shape, TensorType};
use isoflop_kernels::DType;
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

pub(super) struct Parser<'a> {
    text: &'a str,
    file: &'a str,
    lexer: Lexer<'a>,
    token: Token,
    span: Span,
    /// Are types inferred and compared, and operands looked for above only?
    pub checked: bool,
    depth: usize,
}

/// A reference as written: an id or a name, and a result.
pub(super) struct Reference {
    pub target: Token,
    pub result: u16,
    pub span: Span,
}

/// `%7:2 = op operands {attributes} : types @scope`
pub(super) struct Statement {
    pub id: u32,
    pub span: Span,
    pub op: Op,
    pub operands: Vec<Reference>,
    pub results: usize,
    /// Empty where the text leaves them out.
    pub declared: Types,
    pub scope: Option<Arc<str>>,
}

/// `%x: f32[4] {role=...} @scope`
pub(super) struct InputLine {
    pub name: String,
    pub span: Span,
    pub ty: TensorType,
    pub role: Role,
    pub id: Option<u32>,
    pub scope: Option<Arc<str>>,
    /// The operand a region's input stands for.
    operand: Option<Reference>,
}

/// `name = %7`
pub(super) struct OutputLine {
    pub name: String,
    pub span: Span,
    pub value: Reference,
}

pub(super) type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn new(text: &'a str, file: &'a str, checked: bool) -> Parsed<Self> {
        let lexer = Lexer::new(text);
        let mut p = Parser { text, file, lexer, token: Token::End, span: 0..0, checked, depth: 0 };
        p.advance()?;
        Ok(p)
    }

    pub fn error(&self, span: &Span, message: impl Into<String>) -> ParseError {
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

    pub fn fail<T>(&self, span: &Span, message: impl Into<String>) -> Parsed<T> {
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
    pub fn bounded(&self, t: &TensorType, span: &Span) -> Parsed<()> {
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
            Ok(OutputLine { name, span, value: p.reference()? })
        })?;
        self.build(name, inputs, statements, outputs)
    }

    fn statement(&mut self) -> Parsed<Statement> {
        let (token, span) = self.advance()?;
        let Token::Id(id) = token else { return self.fail(&span, "expected a node's id") };
        let results = if self.accept(':')? { self.integer()? } else { 1 };
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
        if let Op::Call(Library::HeadLoss(c) | Library::HeadLossGrad(c)) = &op {
            self.bounded(&TensorType::f32(&[c.rows, c.width, c.vocab]), &at)?;
        }
        let mut declared = Types::new();
        let typed = self.accept(':')?;
        if typed && self.accept('(')? {
            declared.extend(self.list(')', "the result types", |p| p.ty())?);
        } else if typed {
            declared.push(self.ty()?);
        }
        if (typed || !self.checked) && declared.len() != results {
            return self.fail(
                &span,
                format!("%{id} is written with {results} results and {} types", declared.len()),
            );
        }
        let scope = self.scope()?;
        Ok(Statement { id, span: span.start..at.end, op, operands, results, declared, scope })
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
                let value_start = p.span.start;
                let value = p.attribute()?;
                Ok(Entry { key, value, span, value_start })
            })?;
        }
        Ok(Braces::new(self, of, at, found))
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
}
