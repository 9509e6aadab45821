//! Attributes in braces, asked for by name.

use super::attributes::{Attribute, Source};
use super::lex::{LARGEST_ID, Span};
use super::parse::{Parsed, Parser};
use super::suggest::nearest;
use crate::graph::{Axes, Role};
use isoflop_kernels::program::Init;

/// Attributes of one node, asked for by name; what nobody asked for is an error.
pub(super) struct Braces<'a, 'p> {
    parser: &'p Parser<'a>,
    /// Whose they are, for messages.
    of: String,
    at: Span,
    found: Vec<Entry>,
    asked: Vec<&'static str>,
}

pub(super) struct Entry {
    pub key: String,
    pub value: Attribute,
    /// Of the key.
    pub span: Span,
    pub value_start: usize,
}

impl<'a, 'p> Braces<'a, 'p> {
    pub fn new(parser: &'p Parser<'a>, of: &str, at: Span, found: Vec<Entry>) -> Self {
        Braces { parser, of: of.to_string(), at, found, asked: vec![] }
    }

    pub fn has(&self, key: &str) -> bool {
        self.found.iter().any(|f| f.key == key)
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl Fn(Attribute) -> Option<T>,
    ) -> Parsed<T> {
        self.asked.push(key);
        let Some(k) = self.found.iter().position(|f| f.key == key) else {
            // Another key that is close to the one that is missing is more likely misspelt than surplus.
            return match self.found.iter().find(|f| nearest(&f.key, [key]).is_some()) {
                Some(Entry { key: near, span, .. }) => self
                    .parser
                    .fail(span, format!("{} has no attribute `{near}`; did you mean `{key}`?", self.of)),
                None => self
                    .parser
                    .fail(&self.at, format!("{} needs the attribute `{key}`: {{{key}={wanted}}}", self.of)),
            };
        };
        let Entry { value, value_start, .. } = self.found.remove(k);
        let place = value_start..value_start + 1;
        read(value)
            .ok_or_else(|| self.parser.error(&place, format!("`{key}` of {} must be like {wanted}", self.of)))
    }

    pub fn id(&mut self, key: &'static str) -> Parsed<u32> {
        self.take(key, "7", |a| match a {
            Attribute::Integer(n) if n <= LARGEST_ID as usize => Some(n as u32),
            _ => None,
        })
    }

    pub fn role(&mut self) -> Parsed<Role> {
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

    pub fn finish(self) -> Parsed<()> {
        let Some(Entry { key, span, .. }) = self.found.first() else { return Ok(()) };
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
